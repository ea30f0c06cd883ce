"""PFGM++: the Student-t source, EDM's sampler on it, its loss, quantiser, and PFGM's field."""

import json
import math
from pathlib import Path as File
from unittest import mock

import numpy as np
import torch

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.networks.quantization import quantized
from flowexp.objectives import PoissonField, Regression, SquaredL2, field_points, finite_set_mean
from flowexp.objectives.weightings import EDM, SNR, Uniform
from flowexp.parameterizations import EDMPreconditioning, VEPreconditioning
from flowexp.paths import VE, ClippedStudentT, Path, beta_radius
from flowexp.samplers import EDMGrid, EDMHeun, Heun, NoiseToSignal, StateNoise
from flowexp.seeding import generator
from tests.goldens.edm_networks import build, load_weights
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import DenoiserModel, finite_set_denoiser

SIGMA_MAX = 80.0


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key], dtype=np.float64))


def names(data, suffix):
    found = sorted(key.removesuffix(suffix) for key in data.files if key.endswith(suffix))
    assert found
    return found


def check_prior(case):
    """The source's own formula, fed with the reference's draws.

    ``b ~ Beta(N/2, D/2)`` and ``chi2_D = |g|^2 (1 - b)/b`` are the same draw: then
    ``g / sqrt(chi2_D / D) = g/|g| sqrt(b/(1-b)) sqrt(D)``.
    """
    data = np.load(case)
    for name in names(data, "/beta"):
        D = float(name.removeprefix("D"))
        g, beta = tensor(data, f"{name}/gaussian"), tensor(data, f"{name}/beta")
        half_chi2 = 0.5 * g.square().sum(1) * (1.0 - beta) / beta
        path = Path(VE(t_max=SIGMA_MAX), D=D)
        with (
            mock.patch.object(torch, "randn", return_value=g),
            mock.patch.object(torch, "_standard_gamma", return_value=half_chi2),
        ):
            e = path.source.sample(g.shape, rng=generator(0, "latents"), dtype=torch.float64)
        latents = path.start(e, torch.tensor(SIGMA_MAX, dtype=torch.float64))
        expected = tensor(data, f"{name}/latents")
        torch.testing.assert_close(latents.reshape(expected.shape), expected, rtol=1e-6, atol=0.0)


class RecordedNoise:
    def __init__(self, draws):
        self.draws = draws

    def __call__(self, step, like):
        return self.draws[step].to(like)


def check_sampler(case):
    """Deterministic trajectories over the ideal denoiser of a finite set, and with state noise."""
    data = np.load(case)
    steps, grid = int(data["num_steps"]), EDMGrid()
    for D in data["D_list"].tolist():
        path = Path(VE(t_min=grid.sigma_min, t_max=grid.sigma_max), D=float(D))
        denoiser = finite_set_denoiser(tensor(data, "data_points"), D=float(D))
        model, states = DenoiserModel(path, denoiser), []
        # The file's latents are the state at the largest noise level itself.
        e = tensor(data, f"D{D}/latents") / grid.times(model, steps)[0]
        sampler = EDMHeun(steps=steps, time_grid=grid)
        samples = sampler.sample(model, e, on_step=lambda _, x, states=states: states.append(x))
        close(torch.stack(states[1:]), tensor(data, f"D{D}/traj"), 1e-9)
        close(samples.x, tensor(data, f"D{D}/final"), 1e-9)
        close(torch.stack(model.sigmas), tensor(data, f"D{D}/call_sigma"), 1e-12)
        assert samples.nfe.unique().tolist() == [int(data[f"D{D}/nfe"])]
        targets = tensor(data, f"D{D}/target")
        rows = zip(
            tensor(data, f"D{D}/target_x"), tensor(data, f"D{D}/target_sigma"), targets, strict=True
        )
        for x, sigma, target in rows:
            close(model.denoise(x, sigma).reshape(target.shape), target, 1e-5)
            level = sigma.reshape(-1).expand(len(x))
            set_mean = finite_set_mean(x, level, reference=tensor(data, "data_points"), D=float(D))
            close(set_mean.reshape(target.shape), target, 1e-5)
        for name in names(data, "/noise"):
            if name.split("/")[0] == f"D{D}":
                check_state_noise(data, name, model, e, steps)


def check_state_noise(data, name, model, e, steps):
    scale = float(name.split("/alpha")[1])
    sampler = Heun(
        steps=steps,
        time_grid=EDMGrid(),
        variable=NoiseToSignal(),
        perturbation=StateNoise(scale=scale),
    )
    noise = RecordedNoise(tensor(data, f"{name}/noise"))
    close(sampler.sample(model, e, noise=noise).x, tensor(data, f"{name}/final"), 1e-9)


def close(actual, expected, tolerance):
    atol = tolerance * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol)


def check_loss(case):
    """The authors' losses from their raw draws: clipped radius, state, denoiser, weighted error."""
    data = np.load(case)
    network = build({"cls": "SongUNet"} | json.loads(str(data["cfg_json"])))
    load_weights(network, data)
    for name in names(data, "/beta"):
        ve = name == "VE"
        D = float(data["VE/D"]) if ve else float(name.removeprefix("D"))
        if ve:
            sigma = 0.02 * (100.0 / 0.02) ** tensor(data, f"{name}/rnd_uniform").reshape(-1)
        else:
            sigma = torch.exp(1.2 * tensor(data, f"{name}/rnd_normal").reshape(-1) - 1.2)
        expected_sigma = tensor(data, f"{name}/sigma").reshape(-1)
        torch.testing.assert_close(sigma, expected_sigma, rtol=1e-5, atol=0.0)
        path = Path(VE(t_max=SIGMA_MAX), D=D, source=ClippedStudentT(D))
        parameterization = VEPreconditioning() if ve else EDMPreconditioning()
        model = FlowModel(path, network=network, parameterization=parameterization)
        x = tensor(data, "images")
        e = clipped_draws(data, name, path.source).reshape(x.shape)
        radius = sigma * e.flatten(1).norm(dim=1)
        point = path.point(x, e, sigma)
        check_stages(data, name, radius=radius, point=point, model=model)
        objective = Regression("data", weighting=SNR() if ve else EDM(), premetric=SquaredL2())
        with torch.no_grad():
            loss = objective.loss(model, Pairs(x, e, {}), sigma, rng=generator(0, "objective"))
        expected = tensor(data, f"{name}/loss").flatten(1).mean(1)
        torch.testing.assert_close(loss.per_sample.double(), expected, rtol=1e-3, atol=0.0)


def clipped_draws(data, name, source):
    """The source's own sampling, fed with the reference's direction and its Beta draw."""
    g, beta = tensor(data, f"{name}/gaussian"), tensor(data, f"{name}/beta")
    parts = mock.Mock(side_effect=[beta, 1.0 - beta])
    with (
        mock.patch.object(torch, "randn", return_value=g),
        mock.patch.object(torch, "_standard_gamma", parts),
    ):
        e = source.sample(g.shape, rng=generator(0, "source"), dtype=torch.float64)
    expected = beta_radius(beta, D=source.D, low=source.low, high=source.high)
    torch.testing.assert_close(e.norm(dim=1), expected, rtol=1e-12, atol=0.0)
    return e


def check_stages(data, name, *, radius, point, model):
    def compare(key, actual, tolerance):
        if f"{name}/{key}" in data.files:
            expected = tensor(data, f"{name}/{key}")
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    compare("R", radius, 1e-5)
    compare("perturbation", point.x_t - point.x, 1e-5)
    compare("x_noisy", point.x_t, 1e-5)
    with torch.no_grad():
        compare("denoised", model.denoise(point.x_t, point.t), 1e-3)


def check_quant(case):
    data = np.load(case)
    w = torch.from_numpy(data["w"])
    for name in names(data, "/dequant"):
        result, zero = quantized(w, bits=int(name.removeprefix("bits")))
        expected = torch.from_numpy(data[f"{name}/dequant"])
        torch.testing.assert_close(result, expected, rtol=0.0, atol=1e-6)
        assert zero == int(data[f"{name}/zero_point"])


def check_pfgm_original(case):
    """PFGM's perturbation from its draws, and its field with both of the factors in use."""
    data = np.load(case)
    x, z = tensor(data, "data"), tensor(data, "draw_z").reshape(-1)
    count, dims = len(z), x[0].numel()
    options = {k: float(data[k]) for k in ("tau", "sigma_end", "gamma") if k in data.files}
    objective = PoissonField(weighting=Uniform(), premetric=SquaredL2(), **options)
    points = field_points(
        x[:count],
        growth=(1.0 + objective.tau) ** tensor(data, "m"),
        level=objective.sigma_end * z,
        radius=objective.sigma_end * tensor(data, "draw_norm").flatten(1).norm(dim=1),
        direction=tensor(data, "draw_angle").reshape(x[:count].shape),
    )
    found = torch.cat([points.x.flatten(1), points.level[:, None]], dim=1)
    close(found, tensor(data, "perturbed"), 1e-5)
    parts = objective.target(points, reference=x, D=1.0)
    target = torch.cat([parts[0].flatten(1), parts[1][:, None]], dim=1)
    torch.testing.assert_close(target, tensor(data, "target"), rtol=1e-3, atol=1e-4)
    other = target * math.sqrt((dims + 1) / dims)
    torch.testing.assert_close(other, tensor(data, "target_sqrtNp1"), rtol=1e-3, atol=1e-4)


CHECKS = {
    "prior": check_prior,
    "sampler": check_sampler,
    "loss": check_loss,
    "quant": check_quant,
    "pfgm_original": check_pfgm_original,
}


@parametrize("pfgmpp")
def test_case(case: File):
    dispatch(case, CHECKS)
