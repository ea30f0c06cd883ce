"""Checks of the EDM golden cases that concern training and evaluation (collected by test_edm.py).

Augmentation, preconditioners, losses, and the formula of FID.
"""

import json
from collections.abc import Callable
from pathlib import Path as File

import numpy as np
import torch

from flowexp.augmentations import EDMAugmentation
from flowexp.couplings import Pairs
from flowexp.metrics.frechet import frechet_distance, frechet_distance_from_moments
from flowexp.models import FlowModel
from flowexp.objectives import Regression, SquaredL2, weightings
from flowexp.parameterizations import (
    EDMPreconditioning,
    IDDPMPreconditioning,
    VEPreconditioning,
    VPPreconditioning,
)
from flowexp.paths import VE, VP, Path
from flowexp.seeding import generator
from flowexp.timesteps import LogNormal, LogUniform, VPUniform
from tests.goldens.edm_networks import build, fill

# EDM's own network is not limited; the others' ranges come from their formulas.
EVERY_LEVEL = {"sigma_min": 1e-12, "sigma_max": 1e12}
PRECONDITIONERS = {
    "EDMPrecond": EDMPreconditioning(sigma_data=0.5, **EVERY_LEVEL),
    "VPPrecond": VPPreconditioning(beta_min=0.1, beta_max=20.0, time_steps=1000, eps_t=1e-5),
    "VEPrecond": VEPreconditioning(sigma_min=0.02, sigma_max=100.0),
    "iDDPMPrecond": IDDPMPreconditioning(C1=0.001, C2=0.008, time_steps=1000),
}
LOSSES = {
    "EDM": (LogNormal(P_mean=-1.2, P_std=1.2), weightings.EDM(sigma_data=0.5), "EDMPrecond"),
    "VP": (VPUniform(beta_min=0.1, beta_max=20.0, eps_t=1e-5), weightings.SNR(), "VPPrecond"),
    "VE": (LogUniform(sigma_min=0.02, sigma_max=100.0), weightings.SNR(), "VEPrecond"),
}
ANY_LEVEL = VE(t_min=1e-9, t_max=1e9)


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key]))


def close(actual, expected, *, rtol, atol=0.0):
    torch.testing.assert_close(actual.to(expected.dtype), expected, rtol=rtol, atol=atol)


def filled(data, **changes):
    """The file's network with the file's weights."""
    network = build({"cls": "SongUNet"} | json.loads(str(data["cfg_json"])) | changes)
    fill(network, int(data["fill_seed"]))
    return network


class RecordedNetwork(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, []

    def forward(self, x, c_noise, **conditions):
        self.calls.append((x, c_noise))
        return self.network(x, c_noise, **conditions)


def check_precond(case: File) -> None:
    """All four preconditioners on the VE path: inputs, outputs, ranges and rounding."""
    data = np.load(case)
    names = sorted(key.removesuffix("/F") for key in data.files if key.endswith("/F"))
    assert names
    for name in names:
        parameterization = PRECONDITIONERS[name]
        channels = data[f"{name}/F"].shape[1]
        network = RecordedNetwork(filled(data, out_channels=channels))
        model = FlowModel(Path(ANY_LEVEL), network=network, parameterization=parameterization)
        sigma, x = tensor(data, f"{name}/sigma"), tensor(data, f"{name}/x")
        with torch.inference_mode():
            outputs = {
                "D": model.denoise(x, sigma, labels=tensor(data, "class_labels")),
                "D_nolabel": model.denoise(x, sigma),
            }
        # D holds F times sigma, and with it sigma times the rounding of the network.
        scale = sigma.clamp(min=1.0)[:, None, None, None]
        for key, value in outputs.items():
            close(value / scale, tensor(data, f"{name}/{key}") / scale, rtol=2e-4, atol=2e-4)
        check_network_call(data, name, network)
        rounded = parameterization.nearest_time(ANY_LEVEL, sigma.double())
        close(rounded, tensor(data, f"{name}/round_sigma"), rtol=1e-3)
        check_range(parameterization, tensor(data, f"{name}/sigma_min_max"))
    check_vp_time(data)
    check_iddpm_table(data)


def check_network_call(data, name, network):
    """Inputs and outputs of the network.

    The reference forms ln(1 + sigma^2) in float32, which costs VP's c_noise up to 1e-3 at small
    sigma; the output is therefore compared at the file's own c_noise.
    """
    state, c_noise = network.calls[0]
    expected = tensor(data, f"{name}/c_noise")
    close(state, tensor(data, f"{name}/net_input"), rtol=2e-4, atol=2e-4)
    close(c_noise, expected, rtol=2e-4, atol=1e-3)
    with torch.inference_mode():
        output = network(state, expected, labels=tensor(data, "class_labels"))
    close(output, tensor(data, f"{name}/F"), rtol=2e-4, atol=2e-4)


def check_range(parameterization, expected):
    """The reference forms expm1 in float32, which costs its smallest level up to three percent."""
    low, high = parameterization.time_range(VE(t_min=1e-15, t_max=1e15))
    if torch.isinf(expected[1]):
        assert expected.tolist() == [0.0, torch.inf]
        assert (low, high) == tuple(EVERY_LEVEL.values())
    else:
        close(torch.tensor(low), expected[0].float(), rtol=3e-2)
        close(torch.tensor(high), expected[1].float(), rtol=1e-3)


def check_vp_time(data):
    """The VP path that the preconditioner refers to."""
    path = PRECONDITIONERS["VPPrecond"].reference
    t, sigma = tensor(data, "VPPrecond/t"), tensor(data, "VPPrecond/sigma_of_t")
    close(path.nsr(t), sigma, rtol=1e-9)
    close(path.time_at_nsr(sigma), tensor(data, "VPPrecond/sigma_inv"), rtol=1e-7)
    close(VP().nsr(t), sigma, rtol=1e-9)


def check_iddpm_table(data):
    """The levels, their numbers, and the signal they come from."""
    iddpm = PRECONDITIONERS["iDDPMPrecond"]
    close(iddpm.levels.flip(0), tensor(data, "iDDPMPrecond/u"), rtol=1e-3)
    index = iddpm.index(tensor(data, "iDDPMPrecond/sigma").double())
    assert torch.equal(index, tensor(data, "iDDPMPrecond/index"))
    expected = tensor(data, "iDDPMPrecond/alpha_bar")
    every = torch.linspace(0, iddpm.time_steps, len(expected), dtype=torch.float64).round()
    close(iddpm.alpha_bar(every), expected, rtol=1e-6, atol=1e-12)


def check_loss(case: File) -> None:
    """Noise levels, noisy pictures, weights and losses of the three losses."""
    data = np.load(case)
    names = sorted(key.removesuffix("/loss") for key in data.files if key.endswith("/loss"))
    assert names
    network = filled(data)
    x, e = tensor(data, "images"), tensor(data, "noise_unit")
    pairs = Pairs(x, e, {"labels": tensor(data, "class_labels")})
    uniforms = {
        "EDM": torch.special.ndtr(tensor(data, "rnd_normal").double().flatten()),
        # The reference's VP time falls from 1 as its uniform number grows.
        "VP": 1.0 - tensor(data, "rnd_uniform").double().flatten(),
        "VE": tensor(data, "rnd_uniform").double().flatten(),
    }
    for name in names:
        law, weighting, preconditioner = LOSSES[name]
        model = FlowModel(
            Path(ANY_LEVEL), network=network, parameterization=PRECONDITIONERS[preconditioner]
        )
        sigma = law.quantile(uniforms[name])
        close(sigma, tensor(data, f"{name}/sigma").flatten(), rtol=1e-3)
        point = model.path.point(x.double(), e.double(), sigma)
        close(point.x_t, tensor(data, f"{name}/x_noisy"), rtol=1e-3, atol=1e-3)
        weight = weighting(ANY_LEVEL.coefficients(sigma))
        close(weight, tensor(data, f"{name}/weight").flatten(), rtol=1e-3)
        objective = Regression("data", weighting=weighting, premetric=SquaredL2())
        with torch.inference_mode():
            loss = objective.loss(model, pairs, sigma, rng=generator(0, "objective")).per_sample
            error = model.denoise(point.x_t, sigma, **pairs.conditions) - x
        per_element = tensor(data, f"{name}/loss")
        close(loss, per_element.flatten(1).mean(1), rtol=1e-3)
        close(weight[:, None, None, None] * error**2, per_element, rtol=1e-3, atol=1e-3)
        total = loss.double().mean() * x[0].numel()
        close(total, tensor(data, f"{name}/loss_sum_over_batch"), rtol=1e-3)


class RecordedDraws:
    """The random numbers of a golden file, in the order of its calls."""

    def __init__(self, data):
        keys = sorted(key for key in data.files if key.startswith("draw/"))
        self.left = [(key.rpartition("_")[2], tensor(data, key)) for key in keys]

    def take(self, kind, *count):
        found, value = self.left.pop(0)
        assert found == kind
        return value.reshape(*count, -1)

    def integers(self, high):
        return self.take("randint")

    def uniform(self, *count):
        return self.take("rand", *count).double()

    def normal(self, *count):
        return self.take("randn", *count).double()


def check_augmentation(case: File) -> None:
    """Pictures and labels from recorded draws."""
    data = np.load(case)
    options = json.loads(str(data["kwargs_json"]))
    augmentation = EDMAugmentation(**({"p": float(data["p"])} | options))
    draws = RecordedDraws(data)
    images, labels = augmentation.apply(tensor(data, "images"), draws)
    assert draws.left == []
    close(images, tensor(data, "out"), rtol=0.0, atol=1e-4)
    close(labels, tensor(data, "labels"), rtol=0.0, atol=1e-6)
    assert augmentation.augment_dim == labels.shape[1]


def check_fid_formula(case: File) -> None:
    """The distance from features and from moments."""
    data = np.load(case)
    features = [tensor(data, f"feat_{side}") for side in "ab"]
    moments = [tensor(data, f"{kind}_{side}") for side in "ab" for kind in ("mu", "sigma")]
    expected = float(data["fid"])
    for side, (mean, covariance) in zip(features, [moments[:2], moments[2:]], strict=True):
        close(side.mean(0), mean, rtol=1e-6, atol=1e-12)
        close(torch.cov(side.T), covariance, rtol=1e-6, atol=1e-12)
    assert abs(frechet_distance(*features) / expected - 1.0) < 1e-6
    assert abs(frechet_distance_from_moments(*moments) / expected - 1.0) < 1e-6


CHECKS: dict[str, Callable[[File], None]] = {
    "precond": check_precond,
    "loss": check_loss,
    "augment_": check_augmentation,
    "fid_formula": check_fid_formula,
}
