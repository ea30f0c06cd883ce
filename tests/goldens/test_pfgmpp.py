"""PFGM++: the Student-t source and EDM's sampler on it."""

from pathlib import Path as File
from unittest import mock

import numpy as np
import torch

from flowexp.paths import VE, Path
from flowexp.samplers import EDMGrid, EDMHeun, Heun, NoiseToSignal, StateNoise
from flowexp.seeding import generator
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


CHECKS = {"prior": check_prior, "sampler": check_sampler}


@parametrize("pfgmpp")
def test_case(case: File):
    dispatch(case, CHECKS)
