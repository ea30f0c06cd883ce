"""RF++'s files of weights, whose architecture has to be told from the names and shapes."""

import math

import pytest
import torch

from flowexp.errors import UsageError
from flowexp.published import read_published
from tests.goldens.edm_checkpoints import imported_model
from tests.published.persistence_files import TINY, network

NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
          "resample_filter": [1, 3, 3, 1]}  # fmt: skip
SKIPS = {"encoder_type": "skip", "decoder_type": "skip", "num_blocks": 2, "attn_resolutions": [8]}


def save(path, state):
    torch.save({f"model.{name}": value for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("SongUNet", {"augment_dim": 9}),
        ("SongUNet", {**NCSNPP, "label_dim": 3}),
        ("SongUNet", SKIPS),
        ("DhariwalUNet", {"label_dim": 5, "model_channels": 64, "channel_mult_emb": 2}),
    ],
)
def test_the_architecture_is_told_from_the_weights(kind, arguments, tmp_path):
    path = save(tmp_path / "flow_model_9_ema.pth", network(kind, **arguments).state_dict())
    found = read_published(path).parts["network"].arguments
    for name, value in {**TINY, **arguments}.items():
        assert name == "dropout" or found[name] == value, name


def test_the_velocity_on_the_linear_path(tmp_path):
    net = network()
    model = imported_model(read_published(save(tmp_path / "x.pth", net.state_dict())))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    # v = (1+s) [ x_t (s - sd^2)/(s^2+sd^2) - sd F / sqrt(s^2+sd^2) ],  s = t/(1-t), F at x_t/(1-t)
    s, wide = t / (1 - t), (t / (1 - t)).float()[:, None, None, None]
    norm = (wide**2 + 0.25).sqrt()
    with torch.inference_mode():
        output = net(x * (1 + wide) / norm, (s.log() / 4).float())
        expected = (1 + wide) * (x * (wide - 0.25) / norm**2 - 0.5 * output / norm)
        torch.testing.assert_close(model.velocity(x, t), expected, rtol=1e-4, atol=1e-4)
    assert math.isclose(model.time_range[1], 1 - 1e-5, rel_tol=1e-9)


def test_a_training_state_holds_averages(tmp_path):
    net = network(**NCSNPP)
    slots = {i: {"ema": 0.5 * p.detach()} for i, p in enumerate(net.parameters())}
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    content = {"model_state_dict": state, "optimizer_state_dict": {"state": slots}, "iter": 400}
    torch.save(content, tmp_path / "training_state_400.pth")
    published = read_published(tmp_path / "training_state_400.pth")
    assert published.step == 400
    for name, value in net.named_parameters():
        assert torch.equal(published.averaged[name], 0.5 * value)
    assert torch.equal(published.averaged["map_noise.freqs"], net.state_dict()["map_noise.freqs"])


def test_weights_of_something_else(tmp_path):
    state = network().state_dict()
    del state["dec.8x8_aux_norm.weight"]
    for wrong in (state, {"fc.weight": torch.zeros(2, 2)}):
        with pytest.raises(UsageError, match="not fit a known network"):
            read_published(save(tmp_path / "x.pth", wrong))
