"""Snapshots and training states of EDM's code base, as flowexp's models."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.errors import UsageError
from flowexp.published import precond_state, read_published
from tests.goldens.edm_checkpoints import assert_same_tensors, imported_model
from tests.published.persistence_files import (
    network,
    stored_precond,
    write_snapshot,
    write_state,
)

DATA = Path(__file__).parent / "data"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
sigma = torch.tensor([0.4, 3.0], dtype=torch.float64)
s = sigma.float()[:, None, None, None]


@pytest.mark.parametrize("case", sorted(DATA.glob("edm_style_*.pkl")), ids=lambda p: p.stem)
def test_a_pickle_of_rfpp(case):
    stored = np.load(case.with_name(f"{case.stem}_state.npz"))
    expected = {k: stored[k] for k in stored.files if not k.startswith("__")}
    assert_same_tensors(precond_state(case), expected)
    model = imported_model(read_published(case))
    with torch.inference_mode():
        denoised = model.denoise(
            torch.from_numpy(stored["__x"]), torch.from_numpy(stored["__sigma"])
        )
    torch.testing.assert_close(denoised, torch.from_numpy(stored["__D"]), rtol=1e-5, atol=1e-5)


def beta(sigma, beta_d, beta_min):
    """EDM's t(sigma) of a VP path."""
    return ((beta_min**2 + 2 * beta_d * (1 + sigma**2).log()).sqrt() - beta_min) / beta_d


def test_the_vp_preconditioner(tmp_path):
    net = network()
    arguments = {"beta_d": 15.0, "beta_min": 0.2}
    ema = stored_precond("VPPrecond", net, arguments=arguments)
    model = imported_model(read_published(write_snapshot(tmp_path / "vp.pkl", ema)))
    c_noise = (999 * beta(sigma, 15.0, 0.2)).float()
    with torch.inference_mode():
        expected = x - s * net(x / (s**2 + 1).sqrt(), c_noise)
        torch.testing.assert_close(model.denoise(x, sigma), expected, **CLOSE)


def test_the_ve_preconditioner_and_class_labels(tmp_path):
    fourier = {"label_dim": 4, "embedding_type": "fourier", "encoder_type": "residual",
               "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}  # fmt: skip
    net = network(**fourier)
    ema = stored_precond(
        "VEPrecond", net, attributes={"sigma_min": 0.02, "sigma_max": 100}, **fourier
    )
    published = read_published(write_snapshot(tmp_path / "ve.pkl", ema))
    assert published.parts["network"].option == "ncsnpp"
    assert published.parts["path"].arguments == {"schedule.t_min": 0.02, "schedule.t_max": 80.0}
    model = imported_model(published)
    labels = torch.tensor([3, 0])
    with torch.inference_mode():
        expected = x + s * net(x, (sigma / 2).log().float(), labels)
        torch.testing.assert_close(model.denoise(x, sigma, labels=labels), expected, **CLOSE)


def test_the_iddpm_preconditioner_drops_the_variance_channels(tmp_path):
    wide = {"out_channels": 6, "label_dim": 2}
    net = network("DhariwalUNet", **wide)
    buffers = {"u": torch.linspace(20000.0, 0.0, 1001)}
    ema = stored_precond("iDDPMPrecond", net, buffers=buffers, **wide)
    published = read_published(write_snapshot(tmp_path / "iddpm.pkl", ema))
    assert published.weights["out_conv.weight"].shape[0] == 3
    model = imported_model(published)
    # nearest level: u_j^2 + 1 is the product of the clamped ratios of neighbouring abar
    j = torch.arange(1001, dtype=torch.float64)
    abar = torch.sin(0.5 * torch.pi * j / (1000 * 1.008)).square()
    ratio = (abar[1:] / abar[:-1].clamp(min=1e-300)).reciprocal().clamp(min=1e-3)
    u = torch.cat([(ratio.flip(0).reciprocal().cumprod(0).flip(0) - 1).sqrt(), torch.zeros(1)])
    nearest = (u[None] - sigma[:, None]).abs().argmin(1)
    with torch.inference_mode():
        expected = x - s * net(x / (s**2 + 1).sqrt(), (999 - nearest).float())[:, :3]
        torch.testing.assert_close(model.denoise(x, sigma), expected, **CLOSE)


def edm_denoiser(net, sd=0.5):
    c_in, c_noise = (s**2 + sd**2).rsqrt(), (sigma.log() / 4).float()
    return sd**2 * c_in**2 * x + s * sd * c_in * net(c_in * x, c_noise)


def test_a_training_state_of_pfgmpp(tmp_path):
    raw, ema = network(), network(dropout=0.1)
    with torch.no_grad():
        for parameter in ema.parameters():
            parameter.mul_(0.5)
    more = {"arguments": {"D": 128, "N": 192, "pfgmpp": True}, "attributes": {"D": 128, "N": 192}}
    path = write_state(
        tmp_path / "training-state-000007.pt",
        net=stored_precond("EDMPrecond", raw, **more),
        ema=stored_precond("EDMPrecond", ema, **more),
        step=7000,
        optimizer_state={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []},
    )
    published = read_published(path)
    assert (published.D, published.kimg) == (128.0, 7.0)
    assert published.parts["path"].option == "pfgmpp"
    for name, value in raw.state_dict().items():
        assert torch.equal(published.weights[name], value)
    model = imported_model(published)
    assert model.path.D == 128.0
    with torch.inference_mode():
        torch.testing.assert_close(model.denoise(x, sigma), edm_denoiser(ema), **CLOSE)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_pickle_protocol_and_the_gaussian_switch_of_pfgmpp(tmp_path, protocol):
    net = network()
    arguments = {"D": 2048, "N": 192, "pfgmpp": False, "sigma_data": 0.7}
    ema = stored_precond("EDMPrecond", net, arguments=arguments)
    path = write_snapshot(tmp_path / "network-snapshot-002500.pkl", ema, protocol=protocol)
    published = read_published(path)
    assert math.isinf(published.D)
    assert published.kimg == 2500.0
    with torch.inference_mode():
        denoised = imported_model(published).denoise(x, sigma)
        torch.testing.assert_close(denoised, edm_denoiser(net, sd=0.7), **CLOSE)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda net: stored_precond("EDM2Precond", net), "EDM2Precond"),
        (lambda net: stored_precond("EDMPrecond", net, arguments={"warp": 3}), "warp"),
        (lambda net: stored_precond("EDMPrecond", net, rotary=True), "rotary"),
    ],
)
def test_what_is_unknown_is_named(tmp_path, make, named):
    path = write_snapshot(tmp_path / "x.pkl", make(network()))
    with pytest.raises(UsageError, match=named):
        read_published(path)


def test_a_snapshot_without_a_network(tmp_path):
    with pytest.raises(UsageError, match="no network 'ema'"):
        read_published(write_snapshot(tmp_path / "x.pkl", None))
