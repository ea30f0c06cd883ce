"""The laws of flow maps, and what every objective makes of an exact one."""

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives.flow_map import (
    JVP,
    Adaptive,
    DataVelocity,
    EMATarget,
    EndPoint,
    FixedShare,
    FlowMapMatching,
    GivenMiddle,
    OwnStep,
    OwnVelocity,
    RandomShare,
    Residual,
    Tangent,
    TeacherVelocity,
)
from flowexp.objectives.premetrics import SquaredL2
from flowexp.paths import VE, Linear, Path, Trigonometric
from tests.objectives.flow_map.exact import GaussianMap, MixtureMap, Perturbed

F64 = torch.float64
W, M, C = [0.3, 0.5, 0.2], [-1.5, 0.4, 2.0], [0.3, 0.2, 0.5]


def gaussian(schedule):
    return GaussianMap(Path(schedule), mean=[0.4, -1.0], std=[0.7, 0.2])


def mixture(schedule):
    return MixtureMap(Path(schedule), w=W, m=M, c=C)


MAPS = {
    f"{kind.__name__}-{type(schedule).__name__}": kind(schedule)
    for kind in (gaussian, mixture)
    for schedule in (Linear(), Trigonometric(), VE(t_min=0.01, t_max=10.0))
}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def batch(model, n, *, seed, diagonal=False, shortest=0.05):
    """Pairs, and times r < s < t (r = s = t on the diagonal) away from the ends."""
    rng = generator(seed)
    x = model.data(n, rng=rng)
    e = torch.randn(x.shape, dtype=F64, generator=rng)
    u = torch.rand(n, 3, dtype=F64, generator=rng).sort(dim=1, descending=True).values
    low, high = model.time_range
    t, s, r = (low + (high - low) * (0.02 + 0.96 * u)).unbind(1)
    t = torch.maximum(t, r + shortest * (high - low)).clamp(max=high)
    times = torch.stack([t, t, t] if diagonal else [t, r, torch.minimum(s, t)], dim=1)
    return Pairs(x, e, {}), times


def along(model, leap, *, by):
    """X_{t->r} of a batch and its derivative along (dx, dt, dr)."""
    return JVP().along(model.flow_map, leap, by)


@pytest.mark.parametrize("model", MAPS.values(), ids=MAPS)
def test_the_three_laws_hold(model):
    pairs, times = batch(model, 200, seed=1)
    t, r, s = times.unbind(1)
    x = model.path.point(pairs.x, pairs.e, t).x_t
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    end, lagrangian = along(model, (x, t, r), by=(torch.zeros_like(x), zero, one))
    torch.testing.assert_close(lagrangian, model.velocity(end, r), rtol=1e-9, atol=1e-9)
    _, eulerian = along(model, (x, t, r), by=(model.velocity(x, t), one, zero))
    torch.testing.assert_close(eulerian, torch.zeros_like(x), rtol=0.0, atol=1e-9)
    both = model.flow_map(model.flow_map(x, t, s), s, r)
    torch.testing.assert_close(both, end, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", MAPS.values(), ids=MAPS)
def test_the_average_velocity_tends_to_the_velocity(model):
    """Linearly in the gap: each tenth of a gap has a tenth of the error."""
    pairs, times = batch(model, 50, seed=2)
    t = times[:, 0]
    x = model.path.point(pairs.x, pairs.e, t).x_t
    velocity = model.velocity(x, t)
    assert torch.equal(model.average_velocity(x, t, t), velocity) or isinstance(model, GaussianMap)
    torch.testing.assert_close(model.average_velocity(x, t, t), velocity, rtol=1e-12, atol=1e-12)
    errors = [
        float((model.average_velocity(x, t, t - gap * t) - velocity).abs().mean())
        for gap in (1e-3, 1e-4, 1e-5)
    ]
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(10.0, rel=0.05)


def objective(leg, driver, *, regressed=None, **options):
    return FlowMapMatching(
        driver=driver, leg=leg, premetric=SquaredL2(), regressed=regressed, **options
    )


def own(model):
    """Objectives whose residual is 0 at the exact map."""
    marginal = TeacherVelocity(teacher=model)
    return {
        "half": objective(FixedShare(share=0.5), OwnStep()),
        "third-end-point": objective(FixedShare(share=1 / 3), OwnStep(), regressed=EndPoint()),
        "random": objective(RandomShare(), OwnStep()),
        "random-residual": objective(RandomShare(), OwnStep(), regressed=Residual()),
        "given": objective(GivenMiddle(), OwnStep()),
        "tangent-own": objective(Tangent(), OwnVelocity()),
        "tangent-teacher": objective(Tangent(), marginal),
        "tangent-adaptive": objective(Tangent(), marginal, error_weight=Adaptive(p=0.75)),
    }


def loss_of(matching, model, pairs, times):
    return matching.loss(
        model, pairs, times[:, : len(matching.columns)], rng=generator(5)
    ).per_sample


@pytest.mark.parametrize("model", MAPS.values(), ids=MAPS)
def test_objectives_of_the_marginal_flow_vanish_at_the_exact_map(model):
    pairs, times = batch(model, 64, seed=3)
    for name, matching in own(model).items():
        rows = loss_of(matching, model, pairs, times)
        assert rows.shape == (64,), name
        assert float(rows.max()) < 1e-16, name


@pytest.mark.parametrize("model", [MAPS["gaussian-VE"], MAPS["mixture-Linear"]])
def test_they_are_larger_at_any_other_map(model):
    pairs, times = batch(model, 64, seed=3)
    direction = torch.randn(Perturbed.COUNT, dtype=F64, generator=generator(4))
    for name, matching in own(model).items():
        near, far = (
            float(loss_of(matching, Perturbed(model, size * direction), pairs, times).mean())
            for size in (0.01, 0.1)
        )
        assert 1e-8 < near < far, name


def gradient_z(matching, model, *, diagonal=False, n=6000):
    """z scores of the gradient of the mean loss at the exact map, one per direction."""
    pairs, times = batch(model, n, seed=16, diagonal=diagonal)
    theta = torch.zeros(Perturbed.COUNT, n, 1, dtype=F64, requires_grad=True)
    rows = loss_of(matching, Perturbed(model, theta), pairs, times)
    (gradients,) = torch.autograd.grad(rows.double().sum(), theta)
    error = gradients.std((1, 2)).clamp(min=1e-12) / n**0.5
    return (gradients.mean((1, 2)) / error).abs()


DATA_LEGS = {
    "diagonal": (objective(Tangent(), DataVelocity()), True),
    "tangent": (objective(Tangent(), DataVelocity()), False),
    "tangent-end-point": (objective(Tangent(), DataVelocity(), regressed=EndPoint()), False),
}


@pytest.mark.parametrize("leg", DATA_LEGS)
@pytest.mark.parametrize("model", [MAPS["gaussian-Trigonometric"], MAPS["mixture-Linear"]])
def test_data_velocities_leave_no_gradient_on_average(model, leg):
    """Six directions below 4.5 standard errors: false alarms in 4 of 100,000 runs."""
    matching, diagonal = DATA_LEGS[leg]
    assert float(gradient_z(matching, model, diagonal=diagonal).max()) < 4.5


def test_finite_legs_along_data_velocities_do_leave_one():
    """Trajectory flow matching has another solution, half legs are biased: the test sees it."""
    for share in (1.0, 0.5):
        matching = objective(FixedShare(share=share), DataVelocity())
        assert float(gradient_z(matching, MAPS["mixture-Linear"]).max()) > 10.0


def test_against_the_exact_target_the_exact_map_is_best():
    """MeanFlow, its target held at the exact map, by 4.5 standard errors along 8 perturbations."""
    model = MAPS["gaussian-Trigonometric"]
    pairs, times = batch(model, 8000, seed=7)
    matching = objective(Tangent(), DataVelocity(), target=EMATarget(name="exact"))
    best = loss_of(matching, Perturbed(model, torch.zeros(Perturbed.COUNT)), pairs, times)
    for direction in torch.randn(4, Perturbed.COUNT, dtype=F64, generator=generator(8)):
        for size in (-0.3, 0.3):
            rows = loss_of(matching, Perturbed(model, size * direction), pairs, times)
            worse = (rows - best).double()
            assert float(worse.mean()) > 4.5 * float(worse.std()) / len(worse) ** 0.5


def test_short_legs_of_the_own_velocity_miss_by_their_length():
    model = MAPS["mixture-Linear"]
    pairs, times = batch(model, 64, seed=9)
    sizes = []
    for share in (0.1, 0.01, 0.001):
        matching = objective(FixedShare(share=share), OwnVelocity(), regressed=Residual())
        sizes.append(float(loss_of(matching, model, pairs, times).mean()) ** 0.5)
    assert sizes[0] / sizes[1] == pytest.approx(10.0, rel=0.3)
    assert sizes[1] / sizes[2] == pytest.approx(10.0, rel=0.03)
