"""Checkpoints of rectified flow and score_sde."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.errors import UsageError
from flowexp.published import read_published, read_score_sde
from tests.goldens.edm_checkpoints import assert_same_tensors, imported_model
from tests.published.score_sde_network import ReferenceDDPMpp

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("case", sorted(DATA.glob("score_sde_style_*.pth")), ids=lambda p: p.stem)
def test_raw_and_averaged_weights(case):
    expected = np.load(case.with_name(f"{case.stem}_expected.npz"))
    found = read_score_sde(case)
    for kind in ("raw", "ema"):
        named = {
            k.removeprefix(f"{kind}/"): expected[k] for k in expected.files if k[:4] == f"{kind}/"
        }
        assert_same_tensors(getattr(found, kind), named)
    assert list(found.trainable) == [str(n).removeprefix("module.") for n in expected["trainable"]]
    assert found.step == int(expected["step"])
    assert found.decay == float(expected["decay"])
    assert found.num_updates == int(expected["num_updates"])
    with pytest.raises(UsageError, match="not score_sde's DDPM"):
        read_published(case)


def write(path, model, shadow, step=11):
    content = {"optimizer": {}, "model": {f"module.{k}": v for k, v in model.items()}, "step": step,
               "ema": {"decay": 0.999, "num_updates": 3, "shadow_params": shadow}}  # fmt: skip
    torch.save(content, path)
    return path


def test_a_frozen_tensor_of_the_same_shape_keeps_its_value(tmp_path):
    rng = torch.Generator().manual_seed(0)
    model = {f"w{i}": torch.randn(5, 5, generator=rng) for i in range(4)}
    shadow = [model["w0"] + 0.01, model["w2"] - 0.01, model["w3"] * 0.99]
    found = read_score_sde(write(tmp_path / "x.pth", model, shadow))
    assert found.trainable == ("w0", "w2", "w3")
    assert torch.equal(found.ema["w1"], model["w1"])
    assert torch.equal(found.ema["w2"], shadow[1])


def test_averages_that_do_not_fit_are_refused(tmp_path):
    model = {"a": torch.zeros(2), "b": torch.zeros(3)}
    for shadow in ([torch.zeros(3), torch.zeros(2)], [torch.zeros(4)], [torch.zeros(2)] * 3):
        with pytest.raises(UsageError, match="do not fit"):
            read_score_sde(write(tmp_path / "x.pth", model, shadow))


@pytest.mark.parametrize(
    ("mult", "blocks", "attention"),
    [([1, 2], 1, [False, True]), ([2, 1, 1], 2, [True, False, False]), ([1], 2, [True])],
)
def test_ddpmpp_becomes_the_same_function(mult, blocks, attention, tmp_path):
    reference = ReferenceDDPMpp(width=8, mult=mult, blocks=blocks, attention=attention)
    size = 16 << attention.index(True)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    labels = (999 * (1 - t)).float()
    reference(x, labels)
    averaged = {k: 0.9 * v for k, v in reference.state.items()}
    model = {**reference.state, "sigmas": torch.ones(7)}
    published = read_published(
        write(tmp_path / "checkpoint_11.pth", model, list(averaged.values()))
    )
    arguments = published.parts["network"].arguments
    assert (arguments["channel_mult"], arguments["num_blocks"]) == (mult, blocks)
    assert arguments["img_resolution"] == size
    assert published.step == 11
    flow = imported_model(published)
    reference.state = averaged
    with torch.inference_mode():
        expected = -reference(x, labels)
        torch.testing.assert_close(flow.velocity(x, t), expected, rtol=1e-4, atol=1e-4)
        data = x - t.float()[:, None, None, None] * expected
        torch.testing.assert_close(flow.denoise(x, t), data, rtol=1e-4, atol=1e-4)


def test_another_architecture_is_refused(tmp_path):
    reference = ReferenceDDPMpp(width=8, mult=[1], blocks=1, attention=[True])
    reference(torch.zeros(1, 3, 16, 16), torch.zeros(1))
    fourier = {"all_modules.0.W": torch.zeros(4)} | {
        f"all_modules.{int(k.split('.')[1]) + 1}.{k.split('.', 2)[2]}": v
        for k, v in reference.state.items()
    }
    shadow = list(fourier.values())[1:]
    with pytest.raises(UsageError, match="not score_sde's DDPM"):
        read_published(write(tmp_path / "x.pth", fourier, shadow))
