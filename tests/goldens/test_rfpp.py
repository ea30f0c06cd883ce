"""RF++ (Lee et al.) against the authors' code, whose convention is flowexp's."""

import re

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from flowexp.couplings import Pairs
from flowexp.data.partners import noise_of_record
from flowexp.diagnostics.straightness import straightness
from flowexp.models import FlowModel
from flowexp.objectives import (
    L2,
    PerceptualRegression,
    PseudoHuber,
    Regression,
    SquaredL2,
    weightings,
)
from flowexp.parameterizations import EDMPreconditioning, VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.published import precond_state, read_published
from flowexp.samplers import (
    Euler,
    Given,
    Heun,
    InsetUniform,
    Inversion,
    Reinterpolation,
    Uniform,
)
from flowexp.timesteps import UShaped
from tests.goldens.edm_checkpoints import assert_same_tensors, imported_model
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

MARGIN = 1e-5
INVERSION_START = 1e-3


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(g, key):
    return torch.from_numpy(g[key])


def check_t_dist(case):
    """The reference's draws hold mirrored pairs, half as many independent ones as it says.

    A correct law fails the Kolmogorov-Smirnov test for one file in 100,000.
    """
    g = load(case)
    a, margin = float(g["a"]), float(g["t_min"])
    assert float(g["t_max"]) == pytest.approx(1.0 - margin, abs=1e-12)
    plain, law = UShaped(a=a, margin=0.0), UShaped(a=a, margin=margin)
    found = {
        "pdf": plain.pdf(tensor(g, "u")),
        "cdf": plain.cdf(tensor(g, "u")),
        "quantile_u": plain.quantile(tensor(g, "q")),
        "quantile_t": law.quantile(tensor(g, "q")),
    }
    for key, value in found.items():
        torch.testing.assert_close(value, tensor(g, key), rtol=0, atol=1e-8)
    literal = torch.exp(a * tensor(g, "u")) + torch.exp(-a * tensor(g, "u"))
    torch.testing.assert_close(literal, tensor(g, "pdf_paper_formula"), rtol=1e-8, atol=0)
    draws = np.sort(g["ref_samples"].astype(np.float64))
    exact = law.cdf(torch.from_numpy(draws)).numpy()
    distance = np.abs(exact - (np.arange(len(draws)) + 0.5) / len(draws)).max()
    assert stats.kstwo.sf(distance, len(draws) // 2) > 1e-5


class KnownOutput(nn.Module):
    """A network whose outputs are known; it remembers what it was given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, c_noise):
        self.seen = x, c_noise
        return self.output


def check_edm_to_rf(case):
    g = load(case)
    network = KnownOutput(tensor(g, "F"))
    parameterization = EDMPreconditioning(sigma_data=float(g["sigma_data"]))
    model = FlowModel(Path(Linear()), network=network, parameterization=parameterization)
    point = model.path.point(tensor(g, "x"), tensor(g, "e"), tensor(g, "t"))
    torch.testing.assert_close(point.x_t, tensor(g, "x_t"), rtol=0, atol=1e-12)
    for x_t in (point.x_t, point.x_t.to(torch.float32)):
        prediction = model.predict(x_t, point.t)
        exact = tensor(g, "v_exact_f64")
        torch.testing.assert_close(prediction.velocity.double(), exact, rtol=0, atol=2e-5)
        denoised = tensor(g, "edm_denoised")
        torch.testing.assert_close(prediction.data.float(), denoised, rtol=0, atol=2e-5)
        scaled, c_noise = network.seen
        torch.testing.assert_close(scaled, tensor(g, "c_in_times_x"), rtol=1e-5, atol=1e-6)
        # The reference forms t/(1 - t) in float32, which is 0.6 % off at t = 1 - 1e-5.
        torch.testing.assert_close(c_noise, tensor(g, "c_noise"), rtol=0, atol=2e-3)
        log_sigma = torch.log(tensor(g, "sigma"))
        torch.testing.assert_close(c_noise.double(), 0.25 * log_sigma, rtol=1e-6, atol=1e-7)
    nsr = model.path.schedule.nsr(point.t)
    torch.testing.assert_close(nsr, tensor(g, "sigma"), rtol=1e-9, atol=0)


RUN = re.compile(r"(euler|heun)_(default|new)_N(\d+)(_sched)?(_inv)?")


class Recorded(MixtureModel):
    """Keeps its predictions."""

    def __init__(self, *args):
        super().__init__(*args)
        self.predictions = []

    def predict(self, x_t, t, **conditions):
        self.predictions.append(super().predict(x_t, t, **conditions))
        return self.predictions[-1]


def grid_of(g, run, *, inverse):
    """The times of a run, from the source end on."""
    if f"{run}_t" not in g:
        return Uniform() if inverse else InsetUniform(margin=MARGIN)
    times = [float(t) for t in g[f"{run}_t"].flatten()]
    return Given(values=times if times[-1] == 0.0 else [*times, 0.0])


def sampler_of(solver, rule, *, steps, grid):
    if rule == "new":
        return Reinterpolation(steps=steps, time_grid=grid, heun=solver == "heun")
    return {"euler": Euler, "heun": Heun}[solver](steps=steps, time_grid=grid)


def check_sampler(case):
    g = load(case)
    mu, s = tensor(g, "mu").flatten(1), tensor(g, "s")
    for run in g["runs"].tolist():
        model = Recorded(Path(Linear()), g["w"], mu, s[:, None].expand_as(mu))
        solver, rule, _, _, inverse = RUN.fullmatch(run).groups()
        expected = tensor(g, f"{run}_traj")
        steps = len(expected) - 1
        grid = grid_of(g, run, inverse=bool(inverse))
        sampler = sampler_of(solver, rule, steps=steps, grid=grid)
        seen = []
        observer = {"on_step": lambda t, x, seen=seen: seen.append(x.clone())}
        if inverse:
            way_back = Inversion(sampler, start_time=INVERSION_START, final_euler=solver == "heun")
            x = tensor(g, "inv_input") / (1.0 - INVERSION_START)
            nfe = way_back.invert(model, x, **observer).nfe
        else:
            # The state given to the reference, whatever the first time is.
            start = sampler.times(model)[0]
            nfe = sampler.sample(model, tensor(g, "z_scaled") / start, **observer).nfe
        assert nfe.unique().tolist() == [int(g[f"{run}_calls"])]
        trajectory = torch.stack(seen)
        torch.testing.assert_close(trajectory, expected, rtol=0, atol=1e-5)
        # The reference keeps what the last network call of each step says.
        calls = model.predictions if solver == "euler" else model.predictions[1::2]
        calls = [*calls, model.predictions[-1]][:steps]
        guesses = torch.stack([p.noise if inverse else p.data for p in calls])
        torch.testing.assert_close(guesses, tensor(g, f"{run}_x0hat"), rtol=0, atol=1e-5)
        found = straightness(trajectory).mean()
        torch.testing.assert_close(found, tensor(g, f"{run}_straightness"), rtol=0, atol=1e-5)


def check_stored_noise(case):
    g = load(case)
    shape = g["shape"].tolist()
    for record, noise in zip(g["records"], g["noise"], strict=True):
        assert np.array_equal(noise_of_record(record.tobytes(), shape), noise)


class Affine(nn.Module):
    """``a x_t + 0.1 t``."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(a.clone())

    def forward(self, x, c_noise):
        return self.a * x + 0.1 * c_noise.reshape(-1, *([1] * (x.ndim - 1)))


def stand_in(channels):
    """The goldens' linear stand-in of LPIPS, whose channel mixing is ``channels`` (O, 3)."""

    def prepared(x):
        size = {"size": (224, 224), "mode": "bilinear", "align_corners": False}
        return nn.functional.interpolate(x, **size) * 0.5 + 0.5

    def distance(a, b):
        pooled = nn.functional.avg_pool2d(prepared(a) - prepared(b), 8)
        return torch.einsum("oc,bchw->bohw", channels, pooled).square().mean((1, 2, 3))

    return distance


PREMETRICS = {"l2-squared": SquaredL2, "l2": L2, "huber": PseudoHuber}


def objective_of(name, perceptual, *, inverse_time):
    if "lpips" not in name:
        return Regression("velocity", weighting=weightings.Uniform(), premetric=PREMETRICS[name]())
    rest = name.removeprefix("lpips").removeprefix("-")
    return PerceptualRegression(
        "velocity",
        weighting=weightings.Alpha(),
        premetric=PREMETRICS[rest]() if rest else None,
        perceptual=perceptual,
        inverse_time=inverse_time,
    )


def check_loss(case):
    g = load(case)
    x, e, t = tensor(g, "x"), tensor(g, "e"), tensor(g, "t").to(torch.float64)
    assert float(g["huber_c"]) == pytest.approx(PseudoHuber().c_per_dimension * x[0].numel())
    network = Affine(tensor(g, "a"))
    model = FlowModel(Path(Linear()), network=network, parameterization=VelocityPrediction())
    point = model.path.point(x, e, t)
    torch.testing.assert_close(point.x_t.float(), tensor(g, "x_t"), rtol=1e-5, atol=1e-6)
    prediction = model.velocity(tensor(g, "x_t"), t).detach()
    torch.testing.assert_close(prediction, tensor(g, "pred"), rtol=1e-5, atol=1e-6)
    objective = objective_of(
        str(g["loss_type"]), stand_in(tensor(g, "W")), inverse_time=bool(g["divt"])
    )
    pairs = Pairs(x=x, e=e, conditions={})
    loss = objective.loss(model, pairs, t, rng=torch.Generator()).per_sample.mean()
    loss.backward()
    torch.testing.assert_close(loss.detach(), tensor(g, "loss"), rtol=0, atol=2e-6)
    torch.testing.assert_close(network.a.grad, tensor(g, "a_grad"), rtol=0, atol=1e-5)


def check_edm_pickle(case):
    g = load(case.with_name(f"{case.stem}_state.npz"))
    inputs = {key: torch.from_numpy(g.pop(key)) for key in ("__x", "__sigma", "__D")}
    assert_same_tensors(precond_state(case), g)
    model = imported_model(read_published(case))
    with torch.inference_mode():
        denoised = model.denoise(inputs["__x"], inputs["__sigma"].flatten())
    torch.testing.assert_close(denoised, inputs["__D"], rtol=0, atol=1e-5, check_dtype=False)


CHECKS = {
    "t_dist_": check_t_dist,
    "edm_to_rf_": check_edm_to_rf,
    "sampler_": check_sampler,
    "stored_noise_": check_stored_noise,
    "loss_": check_loss,
    "edm_style_": check_edm_pickle,
}


@parametrize("rfpp")
def test_case(case):
    dispatch(case, CHECKS)
