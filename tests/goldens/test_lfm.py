"""Flow matching in latent space: path, guidance and samplers of VinAIResearch/LFM."""

import numpy as np
import pytest
import torch

from flowexp.guidance import ClassifierFree
from flowexp.models import Model
from flowexp.paths import Linear, Path, Prediction
from flowexp.samplers import Euler, Given, Heun
from tests.goldens import lfm_conditions
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

TOLERANCE = 1e-9
SIGMA_MIN = 1e-5
# the reference's time grid is float32
SAMPLER_TOLERANCE = 1e-5
# Its Heun takes Euler steps from here on, since the number of steps it compares with is never set.
HEUN_STEPS = 39


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: torch.from_numpy(np.array(stored[key])) for key in stored.files}


def close(actual, expected, tolerance=TOLERANCE):
    torch.testing.assert_close(
        actual.to(torch.float64), expected.to(torch.float64), rtol=tolerance, atol=tolerance
    )


def check_path(case):
    g = load(case)
    point = Path(Linear(sigma_min=SIGMA_MIN)).point(g["z_data"], g["z_noise"], g["t"])
    close(point.x_t, g["z_t"])
    close(point.velocity, g["u"])


class Stored(Model):
    """Two stored velocities: with a label, and without (-1)."""

    def __init__(self, conditional, unconditional):
        self.path = Path(Linear(sigma_min=SIGMA_MIN))
        self.time_range = (0.0, 1.0)
        self.conditional, self.unconditional = conditional, unconditional

    def predict(self, x_t, t, *, labels, **conditions):
        rows = torch.arange(len(x_t)) % len(self.conditional)
        labelled = (labels >= 0)[:, None, None, None]
        velocity = torch.where(labelled, self.conditional[rows], self.unconditional[rows])
        return Prediction.of_velocity(self.path, x_t, t, velocity)


def check_cfg(case):
    """On all channels."""
    g = load(case)
    model = Stored(g["v_cond"], g["v_uncond"])
    guided = ClassifierFree(scale=g["scale"].item()).wrap(model)
    t = torch.tensor(0.5, dtype=torch.float64)
    labels = torch.zeros(len(g["v"]), dtype=torch.int64)
    close(guided.velocity(torch.zeros_like(g["v"]), t, labels=labels), g["v"])
    plain = ClassifierFree(scale=1.0).wrap(model)
    close(plain.velocity(torch.zeros_like(g["v"]), t, labels=labels), g["v_cond"])


def gaussian(g):
    n = g["z"][0].numel()
    mean, std = g["data_mean"].item(), g["data_std"].item()
    return MixtureModel(Path(Linear()), [1.0], [[mean] * n], [[std] * n])


def walked(method, model, x, times):
    """The state at the last of the times, from the state x at the first, and the evaluations."""
    sampler = method(steps=len(times) - 1, time_grid=Given(values=times))
    samples = sampler.sample(model, x / times[0])
    return samples.x, int(samples.nfe.unique().item())


def check_euler(case):
    g = load(case)
    times = np.linspace(1.0, SIGMA_MIN, int(g["num_points"])).tolist()
    out, nfe = walked(Euler, gaussian(g), g["z"], times)
    close(out, g["out"], SAMPLER_TOLERANCE)
    assert nfe == g["nfe"]


def check_heun(case):
    """In parity with the reference: Heun's method up to its 39th step, then Euler's."""
    g = load(case)
    model = gaussian(g)
    times = np.linspace(1.0, SIGMA_MIN, int(g["num_points"])).tolist()
    heun, euler = times[: HEUN_STEPS + 1], times[HEUN_STEPS:]
    out, nfe = walked(Heun, model, g["z"], heun)
    if len(euler) > 1:
        out, further = walked(Euler, model, out, euler)
        nfe += further
    close(out, g["out"], SAMPLER_TOLERANCE)
    assert nfe == g["nfe"]


CHECKS = {
    "path": check_path,
    "cfg": check_cfg,
    "sampler_euler": check_euler,
    "sampler_heun": check_heun,
    **lfm_conditions.CHECKS,
}


@parametrize("lfm")
def test_golden(case):
    dispatch(case, CHECKS)


def test_latents_at_both_ends_of_the_path():
    """The source itself at t = 1; at t = 0 the latents with noise of 1e-5."""
    rng = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, 3, 4, 8, 8, generator=rng, dtype=torch.float64)
    path = Path(Linear(sigma_min=SIGMA_MIN))
    t = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(path.point(x, e, t + 1.0).x_t, e, rtol=0, atol=1e-15)
    torch.testing.assert_close(path.point(x, e, t).x_t, x + SIGMA_MIN * e, rtol=0, atol=1e-15)


@pytest.mark.parametrize("points", [20, 50])
def test_our_heun_corrects_every_step(points):
    """2 evaluations per step, where the reference has 2 * 39 + 10 for 50 points."""
    g = {"z": torch.zeros(1, 2), "data_mean": torch.tensor(0.3), "data_std": torch.tensor(0.5)}
    times = np.linspace(1.0, SIGMA_MIN, points).tolist()
    assert walked(Heun, gaussian(g), g["z"], times)[1] == 2 * (points - 1)
