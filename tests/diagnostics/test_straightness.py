"""S against closed forms, on every path, and against Liu et al.'s identity."""

import math

import pytest
import torch

from flowexp.diagnostics import Straightness, straightness
from flowexp.models import Model
from flowexp.paths import VE, VP, Cosine, Linear, Path, StudentT
from flowexp.samplers import Euler, Uniform
from tests.diagnostics.fields import FieldModel, draws, measure
from tests.samplers.closed_forms import GaussianModel, MixtureModel

C = torch.tensor([3.0, -4.0], dtype=torch.float64)  # |c|^2 = 25


def test_a_constant_field_is_straight():
    model = FieldModel(lambda x, t: C.expand_as(x))
    record = measure(Straightness(steps=7), model)
    assert abs(record.value) < 1e-25
    assert record.extra["chord_arc_ratio"] == pytest.approx(1.0, abs=1e-12)
    assert record.extra["transport_cost"] == pytest.approx(12.5, rel=1e-12)


@pytest.mark.parametrize("per_dimension", [True, False])
@pytest.mark.parametrize("steps", [10, 1000])
def test_a_speed_that_grows_with_time(steps, per_dimension):
    """v = a (t - 1/2) c: S = a^2 |c|^2 / 12, on the grid 1/n .. 1 times (1 - 1/n^2)."""
    model = FieldModel(lambda x, t: (2.0 * (t - 0.5) * C).expand_as(x))
    metric = Straightness(steps=steps, per_dimension=per_dimension)
    expected = 4.0 * 25.0 / 12.0 * (1.0 - steps**-2) / (2 if per_dimension else 1)
    record = measure(metric, model)
    assert record.value == pytest.approx(expected, rel=1e-10)
    assert record.value == pytest.approx(4.0 * 25.0 / 12.0 / (2 if per_dimension else 1), rel=0.011)


def gaussian_s(std: float) -> tuple[float, float]:
    """S and transport cost per dimension of N(0, std^2) and unit noise: z = sqrt(q) e."""
    t = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    q = ((1.0 - t) * std) ** 2 + t**2
    speed = (t - (1.0 - t) * std**2) / q.sqrt()
    cost = (1.0 - std) ** 2
    return float(speed.square().mean()) - cost, cost


PATHS = {
    "linear": Linear(),
    "linear_with_rest": Linear(sigma_min=1e-4),
    "ve": VE(t_min=1e-4, t_max=3000.0),
    "vp": VP(t_min=1e-6, beta_max=40.0),
    "cosine": Cosine(t_max=0.9999),
}


@pytest.mark.parametrize("path", PATHS)
def test_gaussian_data_have_one_straightness_on_every_path(path):
    """Per unit of |e|^2 / N, which differs between the seeds; Euler's error is below 1 %."""
    model = GaussianModel(
        Path(PATHS[path]), mean=torch.zeros(1, 2, dtype=torch.float64), std=0.3,
        time_range=(1e-5, PATHS[path].t_max),
    )  # fmt: skip
    record = measure(Straightness(steps=800), model)
    size = float(draws(model).square().mean())
    deviation, cost = gaussian_s(0.3)
    assert record.value == pytest.approx(size * deviation, rel=0.01)
    assert record.extra["transport_cost"] == pytest.approx(size * cost, rel=0.01)


def test_one_model_on_two_paths_has_one_straightness():
    """Of trajectories that really bend, within Euler's error and the truncation of VE."""
    weights = [0.4, 0.6], [[1.5, 0.0], [-0.5, 1.0]], [[0.2, 0.2], [0.1, 0.1]]
    values = [
        measure(
            Straightness(steps=400),
            MixtureModel(Path(schedule), *weights),
            seeds=range(64),
            batch_size=64,
        )
        for schedule in (Linear(), VE(t_min=1e-4, t_max=2000.0))
    ]
    assert values[0].value > 0.1
    assert values[1].value == pytest.approx(values[0].value, rel=5e-3)
    ratios = [record.extra["chord_arc_ratio"] for record in values]
    assert ratios[1] == pytest.approx(ratios[0], rel=5e-3)
    assert ratios[0] > 1.01


def test_the_student_source_starts_from_its_own_law():
    model = MixtureModel(Path(VE(t_min=1e-3), source=StudentT(8.0)), [1.0], [[0.0, 0.0]], [[0.3]])
    assert math.isfinite(measure(Straightness(steps=50), model).value)


def test_a_grid_finer_than_the_range_ends_at_its_lower_end():
    model = GaussianModel(
        Path(Linear()), mean=torch.zeros(1, 2, dtype=torch.float64), std=0.3,
        time_range=(0.05, 1.0),
    )  # fmt: skip
    record = measure(Straightness(steps=400), model)
    assert min(float(t) for t in model.times) >= 0.05
    deviation, _ = gaussian_s(0.3)
    size = float(draws(model).square().mean())
    assert record.value == pytest.approx(size * deviation, rel=0.1)


def test_the_stored_trajectory_of_a_sampler_says_the_same():
    model = MixtureModel(Path(Linear()), [0.4, 0.6], [[1.5, 0.0], [-0.5, 1.0]], [[0.2], [0.1]])
    states = []
    Euler(steps=20, time_grid=Uniform()).sample(
        model, draws(model), on_step=lambda t, x: states.append(x.clone())
    )
    stored = straightness(torch.stack(states))
    assert stored.shape == (8,)
    record = measure(Straightness(steps=20), model)
    assert float(stored.mean()) == pytest.approx(record.value, rel=1e-9)
    whole = straightness(torch.stack(states), per_dimension=False)
    torch.testing.assert_close(whole, 2.0 * stored)


def test_no_cancellation_on_a_nearly_straight_flow():
    """A wobble of 1e-9 on a velocity of 1e3: the difference of squares would lose it."""
    wobble = 1e-9
    field = FieldModel(lambda x, t: 1e3 + wobble * (t - 0.5).expand_as(x) * torch.ones_like(x))
    value = measure(Straightness(steps=100), field).value
    # float64 itself resolves the velocity to 1e-13, a ten-thousandth of the wobble
    assert value == pytest.approx(wobble**2 / 12.0, rel=1e-2)


class Crossing:
    """E|(e - x) - v*(x_t, t)|^2: the least loss on independent pairs of the mixture."""

    def __init__(self, model: Model, n: int) -> None:
        rng = torch.Generator().manual_seed(1)
        k = torch.multinomial(model.w, n, replacement=True, generator=rng)
        noise = torch.randn(n, 2, generator=rng, dtype=torch.float64)
        self.x = model.m[k] + model.c[k] * noise
        self.e = draws(model, seeds=range(n))
        t = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        self.t = t[torch.randperm(n, generator=rng)]
        x_t = (1.0 - self.t)[:, None] * self.x + self.t[:, None] * self.e
        self.loss = (self.e - self.x - model.velocity(x_t, self.t)).square().sum(1)
        self.cost = (self.e - self.x).square().sum(1)


@pytest.mark.statistical
def test_cost_of_the_pairs_is_cost_of_the_flow_plus_straightness_plus_crossing():
    """E|e-x|^2 = E|z_1-z_0|^2 + S + V within 4 standard errors (false alarm 6e-5), and 0.01 that
    400 Euler steps may err."""
    n = 4000
    model = MixtureModel(Path(Linear()), [0.4, 0.6], [[1.5, 0.0], [-0.5, 1.0]], [[0.2], [0.1]])
    pairs = Crossing(model, n)
    record = measure(
        Straightness(steps=400, per_dimension=False), model, seeds=range(n), batch_size=n
    )
    flow = record.value + record.extra["transport_cost"]
    difference = pairs.cost - pairs.loss
    error = float(difference.std()) / n**0.5
    assert float(pairs.loss.mean()) > 0.3
    assert abs(float(difference.mean()) - flow) < 4.0 * error + 0.01
    assert error < 0.05


def test_the_title_says_what_was_divided_and_how_it_was_simulated():
    model = FieldModel(lambda x, t: C.expand_as(x))
    titles = [measure(Straightness(steps=5, per_dimension=d), model).title for d in (True, False)]
    assert titles[0] == "straightness S/N[5 Euler steps in linear-path time] 8 on points"
    assert titles[1] == "straightness S[5 Euler steps in linear-path time] 8 on points"


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="steps is 1; allowed: integers >= 2"):
        Straightness(steps=1)
    with pytest.raises(ValueError, match="trajectory has shape"):
        straightness(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="trajectory has shape"):
        straightness(torch.zeros(4, 2))
