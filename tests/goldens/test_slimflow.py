"""SlimFlow (Zhu et al.) against the authors' code, whose time runs from noise to data."""

import re
from functools import partial

import numpy as np
import pytest
import torch

from flowexp.couplings import (
    AnnealedPairs,
    ConstantAnnealing,
    CosineAnnealing,
    ExponentialAnnealing,
    LinearAnnealing,
)
from flowexp.data import ImageArrays, gather_batch
from flowexp.data.partners import StoredPartners
from flowexp.objectives import FlowGuided, SquaredL2, weightings
from flowexp.paths import Linear, Path, Prediction
from flowexp.requirements import Parts
from flowexp.samplers import Heun, Inversion, LaggedEuler, Uniform
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

EPS = 1e-3
BATCH = 128


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(g, key):
    return torch.from_numpy(g[key])


class SinglePrecision(MixtureModel):
    """The analytic network as the reference calls it: time and answer in float32."""

    def predict(self, x_t, t, **conditions):
        self.states = [*getattr(self, "states", []), x_t]
        exact = super().predict(x_t.to(torch.float32).to(torch.float64), t)
        velocity = exact.velocity.to(torch.float32).to(x_t.dtype)
        return Prediction.of_velocity(self.path, x_t, t, velocity)


def mixture(g, prefix="", **kwargs):
    mu, s = tensor(g, f"{prefix}mu").flatten(1), tensor(g, f"{prefix}s")
    return SinglePrecision(Path(Linear()), g[f"{prefix}w"], mu, s[:, None].expand_as(mu), **kwargs)


SCHEDULES = {
    "warmup_cos": CosineAnnealing,
    "warmup_exp": ExponentialAnnealing,
    "warmup": LinearAnnealing,
}


def annealing_of(setting):
    """The schedule of a setting of the reference, which counts iterations of 128 images."""
    kind, number = setting.rsplit("_", 1)
    if kind == "fix":
        return ConstantAnnealing(float(number.replace("p", ".")))
    return SCHEDULES[kind](float(number) * BATCH / 1000.0)


def check_beta_schedule(case):
    g = load(case)
    steps = g.pop("steps").tolist()
    assert g
    for setting, expected in g.items():
        annealing = annealing_of(setting)
        found = [annealing(BATCH * step) for step in steps]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def shown(x, e, *, flipped):
    """A batch of stored pairs as training sees it."""
    partners = StoredPartners(e.numpy())
    arrays = ImageArrays.of(x.numpy(), None, num_classes=0, name="pairs", partners=partners)
    mirrored = np.full(len(x), flipped)
    return gather_batch(arrays, np.arange(len(x)), mirrored=mirrored)


def check_annealing_pair(case):
    g = load(case)
    assert bool(g["h_flip"]) or not bool(g["flipped"])
    batch = shown(tensor(g, "x"), tensor(g, "e"), flipped=bool(g["flipped"]))
    coupling = AnnealedPairs(ConstantAnnealing(float(g["beta"])))
    # the reference mirrors last, so that its fresh noise is mirrored too: the same law
    fresh = tensor(g, "fresh").flip(-1) if g["flipped"] else tensor(g, "fresh")
    pairs = coupling.pair(batch.images, fresh, {}, rng=torch.Generator(), partner=batch.partner)
    torch.testing.assert_close(pairs.x, tensor(g, "x_used"), rtol=0, atol=1e-6)
    torch.testing.assert_close(pairs.e, tensor(g, "e_used"), rtol=0, atol=1e-6)
    point = Path(Linear()).point(pairs.x, pairs.e, tensor(g, "t").double())
    torch.testing.assert_close(point.x_t.float(), tensor(g, "x_t"), rtol=0, atol=1e-6)
    torch.testing.assert_close(point.velocity.float(), tensor(g, "v_target"), rtol=0, atol=1e-6)


WEIGHTS = {
    "uniform": weightings.Uniform,
    "snr+1": weightings.ShiftedSNR,
    "karras": partial(weightings.ShiftedSNR, plus=4.0),
}


def check_flow_guided(case):
    g = load(case)
    student, teacher = mixture(g, "student_"), mixture(g, "teacher_")
    (start,) = np.unique(g["student_eval_t"])
    weighting = WEIGHTS[str(g["weight_schedule"])]()
    objective = FlowGuided(
        teacher=teacher,
        student_first={"student": True, "teacher": False}[str(g["first_velocity"])],
        start_time=float(start),
        premetric=SquaredL2(),
        weighting=weighting,
    )
    assert list(objective.needs(Parts(path=student.path))) == []
    e, t = tensor(g, "e").double(), tensor(g, "t").double()
    assert ((t > objective.low) & (t < objective.high)).all()
    value, _ = objective.deviation(student, e, t, conditions={})
    loss = (value * weighting(student.path.schedule.coefficients(t))).mean()
    torch.testing.assert_close(loss.float(), tensor(g, "loss_l2"), rtol=2e-5, atol=2e-5)
    velocity = student.velocity(e, torch.full_like(t, float(start)))
    target = objective.target(
        e, t, start=torch.full_like(t, float(start)), student=velocity, conditions={}
    )
    found = {
        "student_v": velocity,
        "student_x": e - velocity,
        "target_v": target,
        "x_target": e - target,
        "teacher_eval_x": teacher.states[-1],
    }
    for key, expected in found.items():
        torch.testing.assert_close(expected.float(), tensor(g, key), rtol=0, atol=2e-5)
    times = teacher.times[-1].expand(len(t))
    torch.testing.assert_close(times, tensor(g, "teacher_eval_t"), rtol=0, atol=1e-6)


RUN = re.compile(r"(one_step|euler|heun)(\d+)(_rev)?_out")


def run_of(solver, n, g):
    """The sampler of the reference, the model it is used on and the scale of its start."""
    if solver == "heun":
        # its grid begins at 1 - eps with e itself
        return Heun(steps=n, time_grid=Uniform()), mixture(g, time_range=(0.0, 1.0 - EPS)), 1 - EPS
    end = EPS if solver == "one_step" else 0.0
    return LaggedEuler(steps=n, time_grid=Uniform(t_end=end), lag=EPS), mixture(g), 1.0


def check_sampler(case):
    g = load(case)
    runs = [match for key in g if (match := RUN.fullmatch(key))]
    assert len(runs) == sum(key.endswith("_out") for key in g)
    for match in runs:
        solver, n, reverse = match.groups()
        run = match.group().removesuffix("_out")
        sampler, model, scale = run_of(solver, int(n), g)
        z = tensor(g, "z").double()
        if reverse:
            samples = Inversion(sampler).invert(model, z)
        else:
            samples = sampler.sample(model, z / scale)
        torch.testing.assert_close(samples.x.float(), tensor(g, f"{run}_out"), rtol=0, atol=2e-5)
        # the reference's Heun asks once more, at t = 0, and uses the answer for nothing
        calls = int(g[f"{run}_calls"]) - (solver == "heun")
        assert samples.nfe.unique().tolist() == [calls]
        assert int(g[f"{run}_nfe_reported"]) == calls
        if f"{run}_t" in g:
            times = torch.stack([t.flatten()[0] for t in model.times])
            expected = tensor(g, f"{run}_t")[:calls]
            torch.testing.assert_close(times, expected, rtol=0, atol=1e-6)


CHECKS = {
    "beta_schedule_": check_beta_schedule,
    "annealing_pair_": check_annealing_pair,
    "flow_guided_": check_flow_guided,
    "sampler_": check_sampler,
}


@parametrize("slimflow")
def test_case(case):
    dispatch(case, CHECKS)


def test_one_step_and_one_step_of_euler_differ():
    model = MixtureModel(Path(Linear()), [1.0], [[0.5, -1.0]], [[0.3, 0.4]])
    e = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    whole, most = (
        LaggedEuler(steps=1, time_grid=Uniform(t_end=end)).sample(model, e).x for end in (0.0, EPS)
    )
    torch.testing.assert_close(most - e, (1.0 - EPS) * (whole - e), rtol=1e-12, atol=0)
    assert float((whole - most).abs().max()) > 1e-4


def test_unknown_weights_are_not_passed_over():
    with pytest.raises(KeyError):
        WEIGHTS["snr"]
