"""Multistep solvers: local orders with exact history, both ends of a path, what they cost."""

import math

import pytest
import torch

from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import (
    DDIM,
    DPMSolver,
    EDMGrid,
    Given,
    LogSNR,
    PowerGrid,
    SinglestepDPMSolver,
    Uniform,
    UniPC,
)
from flowexp.samplers.multistep import Level, Weights, phi
from tests.samplers.closed_forms import GaussianModel, MixtureModel

PATHS = {
    "ve": Path(VE(t_min=0.002, t_max=80.0)),
    "vp": Path(VP(t_min=1e-3)),
    "linear": Path(Linear()),
}
MEAN = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)
STD = 0.6


def gaussian(path):
    return GaussianModel(path, mean=MEAN, std=STD)


def level(path, lam):
    schedule = path.schedule
    t = schedule.time_at_nsr(torch.tensor(-lam, dtype=torch.float64).exp())
    c = schedule.coefficients(t)
    return Level.of(float(t), float(c.alpha), float(c.sigma))


def local_error(rule, path, h, *, corrected, history):
    """The error of one step from exact values, on a walk with unequal gaps."""
    model, start = gaussian(path), 0.3
    lams = [start - h * gap for gap in (0.0, 0.8, 1.7)][:history]
    nodes, end = [level(path, lam) for lam in lams], level(path, start + h)
    x0 = torch.tensor([[1.0, -0.4, 0.7]], dtype=torch.float64)

    def exact(to):
        return model.exact(x0, level(path, start).time, to.time)

    def output(x, at):
        prediction = model.predict(x, torch.tensor(at.time, dtype=torch.float64))
        return rule.remember(at)(prediction, x)

    memory = [output(exact(node), node) for node in nodes]
    predictor, corrector = rule.updates(nodes, end, last=False)
    x = predictor(x0, memory)
    if corrected:
        x = corrector(x0, [output(x, end), *memory])
    return float((x - exact(end)).abs().max())


def rule_of(sampler):
    return sampler.rule(None)


def dpm(order, **options):
    return rule_of(DPMSolver(steps=1, time_grid=Uniform(), order=order, **options))


def unipc(order, **options):
    return rule_of(UniPC(steps=1, time_grid=Uniform(), order=order, **options))


LOCAL = {
    "1": (dpm(1), 1, False, 2),
    "1, noise": (dpm(1, predicts_data=False), 1, False, 2),
    "2M": (dpm(2), 2, False, 3),
    "2M Taylor": (dpm(2, midpoint=False), 2, False, 3),
    "2M, noise": (dpm(2, predicts_data=False), 2, False, 3),
    "3M as coded": (dpm(3), 3, False, 3),
    "3M Taylor": (dpm(3, halved_curvature=False), 3, False, 4),
    "3M Taylor, noise": (dpm(3, halved_curvature=False, predicts_data=False), 3, False, 4),
    "UniPC-2 predictor": (unipc(2), 2, False, 3),
    "UniPC-3 predictor": (unipc(3), 3, False, 4),
    "UniPC-3 predictor, bh1": (unipc(3, exponential=False), 3, False, 4),
    "UniPC-2 both": (unipc(2), 2, True, 4),
    "UniPC-3 both": (unipc(3), 3, True, 5),
    "UniPC-3 both, noise": (unipc(3, predicts_data=False), 3, True, 5),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("rule", "history", "corrected", "order"), LOCAL.values(), ids=LOCAL)
def test_local_order_with_exact_history(path, rule, history, corrected, order):
    errors = [
        local_error(rule, path, h, corrected=corrected, history=history) for h in (0.02, 0.01)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_full_curvature_is_unipcs_predictor():
    path = PATHS["vp"]
    nodes = [level(path, lam) for lam in (0.3, 0.1, -0.4)]
    taylor, _ = dpm(3, halved_curvature=False).updates(nodes, level(path, 0.6), last=False)
    unified, _ = unipc(3).updates(nodes, level(path, 0.6), last=False)
    assert taylor.state == pytest.approx(unified.state, rel=1e-14)
    assert taylor.outputs == pytest.approx(unified.outputs, rel=1e-12)
    coded, _ = dpm(3).updates(nodes, level(path, 0.6), last=False)
    assert coded.outputs != pytest.approx(taylor.outputs, rel=1e-3)


@pytest.mark.parametrize("predicts_data", [True, False])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_first_order_is_ddim(path, predicts_data):
    model, e = mixture(path), torch.randn(4, 3, dtype=torch.float64, generator=rng())
    grid = {"time_grid": Uniform(), "steps": 7}
    expected = DDIM(**grid).sample(model, e).x
    found = DPMSolver(**grid, order=1, predicts_data=predicts_data).sample(model, e).x
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def rng():
    return torch.Generator().manual_seed(5)


def mixture(path):
    m = torch.tensor([[1.0, 0.5, -0.5], [-1.0, 0.25, 0.75]])
    return MixtureModel(path, [0.4, 0.6], m, [[0.3, 0.5, 0.2], [0.4, 0.3, 0.6]])


SAMPLERS = {
    "1S": lambda **k: DPMSolver(order=1, **k),
    "2M": lambda **k: DPMSolver(order=2, **k),
    "3M": lambda **k: DPMSolver(order=3, **k),
    "3M noise": lambda **k: DPMSolver(order=3, predicts_data=False, **k),
    "2S": SinglestepDPMSolver,
    "2S noise": lambda **k: SinglestepDPMSolver(predicts_data=False, **k),
    "UniPC": UniPC,
    "UniPC bh1": lambda **k: UniPC(exponential=False, **k),
    "UniPC noise": lambda **k: UniPC(predicts_data=False, **k),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_from_the_very_source_to_the_very_data(sampler, path):
    """On the linear path lambda is infinite at both ends; the last step gives the data."""
    model = gaussian(path)
    e = torch.randn(6, 3, dtype=torch.float64, generator=rng())
    errors = []
    grid = EDMGrid() if path is PATHS["ve"] else Uniform()
    for steps in (20, 40):
        solver = sampler(steps=steps, time_grid=grid)
        x = solver.sample(model, e).x
        start = path.start(e, torch.tensor(model.time_range[1], dtype=torch.float64))
        errors.append(float((x - model.exact(start, model.time_range[1], 0.0)).abs().max()))
    assert errors[1] < 0.1
    assert errors[1] < 0.8 * errors[0]


# a corrector on noise prediction changes the state, and with it the data, after the last call
DENOISING = {name: make for name, make in SAMPLERS.items() if name != "UniPC noise"}


@pytest.mark.parametrize("sampler", DENOISING.values(), ids=DENOISING)
def test_last_step_to_zero_is_the_models_data_prediction(sampler):
    path = PATHS["linear"]
    model = mixture(path)
    seen = []
    original = model.predict
    model.predict = lambda x, t, **k: seen.append(original(x, t, **k)) or seen[-1]
    e = torch.randn(2, 3, dtype=torch.float64, generator=rng())
    samples = sampler(steps=5, time_grid=Uniform()).sample(model, e)
    torch.testing.assert_close(samples.x, seen[-1].data, rtol=1e-12, atol=1e-12)
    assert samples.nfe.tolist() == [len(seen)] * 2


@pytest.mark.parametrize(
    ("sampler", "to_zero", "stopping"),
    [("2M", 6, 6), ("3M", 6, 6), ("UniPC", 6, 6), ("UniPC noise", 6, 6), ("2S", 11, 12)],
)
def test_counts_its_calls(sampler, to_zero, stopping):
    e = torch.zeros(3, 3, dtype=torch.float64)
    for grid, calls in ((EDMGrid(to_zero=True), to_zero), (EDMGrid(to_zero=False), stopping)):
        model = mixture(PATHS["ve"])
        samples = SAMPLERS[sampler](steps=6, time_grid=grid).sample(model, e)
        assert len(model.times) == calls
        assert samples.nfe.tolist() == [calls] * 3


def test_lower_order_final_falls_to_one():
    field_steps = orders_of(DPMSolver(steps=6, time_grid=EDMGrid(to_zero=False), order=3))
    assert field_steps == [1, 2, 3, 3, 2, 1]
    high = DPMSolver(steps=6, time_grid=EDMGrid(to_zero=False), order=3, lower_order_final=False)
    assert orders_of(high) == [1, 2, 3, 3, 3, 3]


def orders_of(sampler):
    from flowexp.samplers import Field, Time

    model = mixture(PATHS["ve"])
    field = Field(model, variable=Time(), conditions={}, device=torch.device("cpu"))
    steps = sampler.plan(field, field.nodes(sampler.times(model)))
    return [len(step.predict.outputs) for step in steps]


def test_unipc_corrects_all_steps_but_the_last():
    sampler = UniPC(steps=5, time_grid=EDMGrid(to_zero=False), order=3)
    from flowexp.samplers import Field, Time

    model = mixture(PATHS["ve"])
    field = Field(model, variable=Time(), conditions={}, device=torch.device("cpu"))
    steps = sampler.plan(field, field.nodes(sampler.times(model)))
    assert [step.correct is not None for step in steps] == [True] * 4 + [False]


def test_paths_with_the_same_levels_have_the_same_samples():
    """In half log-SNR a schedule is only a scale: VE, VP and linear agree on equal levels."""
    lams = torch.linspace(-3.0, 4.0, 9, dtype=torch.float64)
    e = torch.randn(4, 3, dtype=torch.float64, generator=rng())
    ends = []
    for path in PATHS.values():
        times = path.schedule.time_at_nsr(torch.exp(-lams))
        sampler = UniPC(steps=8, time_grid=Given(values=times.tolist()), order=3)
        c = path.schedule.coefficients(times)
        # the mixture's start is scaled to the same point of the same flow
        samples = sampler.sample(mixture(path), e)
        ends.append(samples.x / c.alpha[-1])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-9, atol=1e-9)


def test_grid_finer_than_the_models_levels():
    """Steps of no length are passed over: neither calls nor history."""
    path = PATHS["ve"]
    levels = torch.tensor([80.0, 20.0, 5.0, 1.0, 0.2, 0.002], dtype=torch.float64)

    class Discrete(MixtureModel):
        def nearest_time(self, t):
            return levels[(t[:, None].log() - levels.log()).abs().argmin(1)]

    parts = mixture(path)
    model = Discrete(path, parts.w, parts.m, parts.c)
    e = torch.randn(2, 3, dtype=torch.float64, generator=rng())
    fine = UniPC(steps=12, time_grid=LogSNR(sigma_min=0.002, sigma_max=80.0, to_zero=False))
    coarse = UniPC(steps=5, time_grid=Given(values=levels.tolist()))
    found = fine.sample(model, e)
    assert found.nfe.tolist() == [5, 5]
    torch.testing.assert_close(found.x, coarse.sample(parts, e).x, rtol=1e-12, atol=1e-12)


def test_float32_state():
    e = torch.randn(2, 3, generator=rng())
    model = mixture(PATHS["linear"])
    double = UniPC(steps=8, time_grid=PowerGrid()).sample(model, e).x
    single = UniPC(steps=8, time_grid=PowerGrid(), double=False).sample(model, e).x
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4)


def test_phi_functions():
    for k in range(4):
        for z in (-3.0, -1.0, -0.999, -1e-6, 0.0, 0.5, 1.0, 3.0):
            series = math.fsum(z**j / math.factorial(j + k) for j in range(100))
            assert phi(k, z) == pytest.approx(series, rel=1e-13)
    assert phi(2, -30.0) == pytest.approx((math.expm1(-30.0) / -30.0 - 1.0) / -30.0, rel=1e-13)


def test_updates_are_linear_in_what_they_are_given():
    x, m = torch.ones(2, 3), [torch.full((2, 3), 2.0), torch.full((2, 3), 3.0)]
    assert Weights(0.5, (2.0,))(x, m).eq(4.5).all()
    assert x.eq(1.0).all()


@pytest.mark.parametrize("kind", [DPMSolver, UniPC])
def test_refuses_unknown_orders(kind):
    with pytest.raises(ValueError, match="order is 4; expected 1, 2 or 3"):
        kind(steps=3, time_grid=Uniform(), order=4)


def test_refuses_an_inner_node_outside_the_step():
    with pytest.raises(ValueError, match="r is 0"):
        SinglestepDPMSolver(steps=3, time_grid=Uniform(), r=0.0)
