"""A folder in diffusers' layout: the golden was made by diffusers 0.42.1 with a random VAE."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flowexp.autoencoders.diffusers_vae import read_vae
from flowexp.autoencoders.folder_facts import channels, factor, resolution
from flowexp.errors import UsageError

GOLDEN = Path(__file__).parent / "data" / "vae"
WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture
def folder(tmp_path):
    copied = tmp_path / "vae"
    copied.mkdir()
    for name in ("config.json", WEIGHTS):
        shutil.copy(GOLDEN / name, copied / name)
    return copied


def test_encoder_and_decoder_are_those_of_diffusers() -> None:
    codec, expected = read_vae(GOLDEN), np.load(GOLDEN / "expected.npz")
    with torch.inference_mode():
        mean, logvar = codec.encode(torch.from_numpy(expected["x"]))
        decoded = codec.decode(torch.from_numpy(expected["mean"]))
    for found, name in ((mean, "mean"), (logvar, "logvar"), (decoded, "decoded")):
        np.testing.assert_allclose(found.numpy(), expected[name], rtol=2e-5, atol=2e-5)
    assert not any(p.requires_grad for p in codec.parameters())


def test_facts_of_the_folder() -> None:
    assert (channels(str(GOLDEN)), factor(str(GOLDEN))) == (2, 2)
    assert resolution(str(GOLDEN), 9) == 5


def test_old_names_and_convolutions_are_understood(folder) -> None:
    old = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        for now, then in OLD.items():
            if f".{now}." in name:
                name = name.replace(f".{now}.", f".{then}.")
                tensor = tensor[:, :, None, None].clone() if tensor.ndim == 2 else tensor
        old[name] = tensor
    assert any("query" in name for name in old)
    (folder / WEIGHTS).unlink()
    torch.save(old, folder / "diffusion_pytorch_model.bin")
    ours, again = read_vae(GOLDEN).state_dict(), read_vae(folder).state_dict()
    assert all(torch.equal(ours[name], again[name]) for name in ours)


class Planted:
    """What unpickling would run."""

    def __reduce__(self):
        return (open, ("planted", "w"))


def test_nothing_in_a_folder_is_executed(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / WEIGHTS).unlink()
    torch.save({"a": Planted()}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UsageError, match="cannot be read"):
        read_vae(folder)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / WEIGHTS).unlink(), "holds no weights"),
        (lambda f: (f / "config.json").unlink(), "neither a run directory nor a VAE"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / WEIGHTS).write_bytes(b"no tensors"), "cannot be read"),
        (lambda f: change(f, _class_name="VQModel"), "VQModel, not AutoencoderKL"),
        (lambda f: change(f, block_out_channels=[4, 4]), "do not fit config.json"),
        (lambda f: change(f, act_fn="relu"), "act_fn=relu"),
    ],
)
def test_what_is_no_vae_is_refused(folder, spoil, said) -> None:
    spoil(folder)
    with pytest.raises(UsageError, match=said):
        read_vae(folder)


def change(folder: Path, **values) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        channels(str(tmp_path / "nowhere"))


def test_half_precision_is_read_as_single(folder) -> None:
    assert {t.dtype for t in load_file(folder / WEIGHTS).values()} == {torch.float16}
    double = {n: t.double() for n, t in load_file(folder / WEIGHTS).items()}
    save_file(double, folder / WEIGHTS)
    assert {t.dtype for t in read_vae(folder).state_dict().values()} == {torch.float32}
