"""From data back to the source: every deterministic sampler, walked the other way."""

from itertools import pairwise

import pytest
import torch

from flowexp.models import FlowModel
from flowexp.parameterizations import EDMPreconditioning
from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import (
    DDIM,
    RK4,
    AdamsBashforth,
    DormandPrince,
    EDMGrid,
    EDMHeun,
    Euler,
    Given,
    Heun,
    InsetUniform,
    Inversion,
    LogDormandPrince,
    Midpoint,
    Natural,
    Reinterpolation,
    StateNoise,
    Uniform,
    VelocityBlocks,
)
from tests.samplers.closed_forms import GaussianModel, MixtureModel

W, M, C = [0.3, 0.7], [[0.5, -0.4, 0.1], [-0.6, 0.2, 0.9]], [[0.2, 0.1, 0.3], [0.05, 0.3, 0.2]]


def mixture(schedule, **kwargs):
    return MixtureModel(Path(schedule), W, M, C, **kwargs)


def draws(n=4, seed=0):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(schedule):
    return GaussianModel(
        Path(schedule), mean=torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), std=0.7
    )


GRID = {"time_grid": Natural()}
SAMPLERS = {
    "euler": (lambda n: Euler(steps=n, **GRID), 1),
    "heun": (lambda n: Heun(steps=n, **GRID), 2),
    "midpoint": (lambda n: Midpoint(steps=n, **GRID), 2),
    "rk4": (lambda n: RK4(steps=n, **GRID), 4),
    "ddim": (lambda n: DDIM(steps=n, **GRID), 1),
    "ab2": (lambda n: AdamsBashforth(steps=n, order=2, **GRID), 2),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_converges_to_the_exact_flow_with_the_order_of_the_method(name):
    """Of a Gaussian the source draw of x is ``(x - mean)/std``, on the linear path."""
    build, order = SAMPLERS[name]
    model, x = gaussian(Linear()), draws()
    exact = (x - model.mean) / model.std
    errors = [
        float((Inversion(build(n)).invert(model, x).x - exact).abs().max()) for n in (20, 40, 80)
    ]
    for coarse, fine in pairwise(errors):
        assert coarse / fine > 0.75 * 2**order


@pytest.mark.parametrize("schedule", [Linear(), VE(t_max=20.0), VP(t_min=1e-3)])
def test_adaptive_walk_there_and_back(schedule):
    sampler = DormandPrince(rtol=1e-9, atol=1e-9, denoise_at_end=False)
    model, e = mixture(schedule), draws()
    x = sampler.sample(model, e).x
    low = torch.tensor(model.time_range[0], dtype=torch.float64)
    # the data stand at the lowest time, where the state is alpha x
    back = Inversion(sampler).invert(model, x / schedule.coefficients(low).alpha)
    torch.testing.assert_close(back.x, e, rtol=0, atol=1e-6)
    assert (back.nfe > 10).all()


def test_published_start_of_the_adaptive_sampler_is_undone():
    sampler = DormandPrince(rtol=1e-9, atol=1e-9, per_sample=False, start_time=0.999)
    model, e = mixture(Linear()), draws()
    back = Inversion(sampler).invert(model, sampler.sample(model, e).x)
    torch.testing.assert_close(back.x, e, rtol=0, atol=1e-6)


def test_counts_and_observes_its_steps():
    model, x, seen = mixture(Linear()), draws(), []
    grid = InsetUniform()
    inversion = Inversion(Heun(steps=4, time_grid=grid), start_time=1e-3, final_euler=True)
    samples = inversion.invert(model, x, on_step=lambda t, z: seen.append((float(t), z)))
    assert [t for t, _ in seen] == pytest.approx([1e-3, 0.25, 0.5, 0.75, 1.0 - 1e-5])
    assert samples.nfe.tolist() == [7] * 4
    assert float(max(t for t in model.times)) == 0.75
    torch.testing.assert_close(seen[0][1], 0.999 * x)
    torch.testing.assert_close(seen[-1][1] / (1.0 - 1e-5), samples.x)
    whole = Inversion(Heun(steps=4, time_grid=grid)).invert(mixture(Linear()), x)
    assert whole.nfe.tolist() == [8] * 4


def steps_of_blocks(text, **options):
    return VelocityBlocks(blocks=text, final_euler=True, **options)


def test_blocks_are_walked_from_a_model_that_starts_above_the_data():
    """The step to t = 0 of sampling has no counterpart, so the last kind of block is left out."""
    model, x = mixture(VE(t_max=20.0)), draws()
    grid = EDMGrid(sigma_max=20.0)
    heun = Inversion(Heun(steps=8, time_grid=grid)).invert(model, x)
    assert heun.nfe.tolist() == [14] * 4
    ours = Inversion(steps_of_blocks("H8", time_grid=grid)).invert(model, x)
    assert torch.equal(ours.nfe, heun.nfe)
    torch.testing.assert_close(ours.x, heun.x, rtol=0, atol=1e-12)
    mixed = Inversion(steps_of_blocks("H1P7", time_grid=grid)).invert(model, x)
    assert mixed.nfe.tolist() == [8] * 4


def test_blocks_are_walked_on_a_grid_that_ends_above_the_start():
    model, x, grid = mixture(Linear()), draws(), Uniform(t_end=0.1)
    ours = Inversion(steps_of_blocks("H4", time_grid=grid)).invert(model, x)
    heun = Inversion(Heun(steps=4, time_grid=grid)).invert(model, x)
    assert torch.equal(ours.nfe, heun.nfe)
    torch.testing.assert_close(ours.x, heun.x, rtol=0, atol=1e-12)


def test_the_last_step_of_an_inversion_by_blocks_may_be_eulers():
    model, x, grid = mixture(Linear()), draws(), Uniform()
    ours = Inversion(steps_of_blocks("H4", time_grid=grid), final_euler=True).invert(model, x)
    heun = Inversion(Heun(steps=4, time_grid=grid), final_euler=True).invert(model, x)
    assert torch.equal(ours.nfe, heun.nfe)
    torch.testing.assert_close(ours.x, heun.x, rtol=0, atol=1e-12)


def test_start_with_noise():
    model, x, seen = mixture(Linear()), draws(), []
    eps = draws(seed=3)
    sampler = Euler(steps=3, time_grid=Uniform())
    inversion = Inversion(sampler, start_time=1e-3, noise_scale=1.0)
    inversion.invert(
        model, x, noise=lambda step, like: eps.to(like), on_step=lambda t, z: seen.append(z)
    )
    torch.testing.assert_close(seen[0], 0.999 * x + 1e-3 * eps)
    with pytest.raises(ValueError, match="noise is None"):
        inversion.invert(model, x)


def test_a_network_that_is_not_defined_at_the_data_starts_at_its_lowest_level():
    evaluated = []

    class Network(torch.nn.Module):
        def forward(self, x, c_noise):
            evaluated.append(float(torch.exp(4 * c_noise[0])))
            return torch.tanh(x)

    model = FlowModel(Path(VE()), network=Network(), parameterization=EDMPreconditioning())
    sampler = EDMHeun(steps=4, time_grid=EDMGrid())
    samples = Inversion(sampler).invert(model, draws().float())
    assert min(evaluated) == pytest.approx(0.002, rel=1e-5)
    # three intervals between four levels, two calls each
    assert samples.nfe.tolist() == [6] * 4
    assert samples.x.dtype == torch.float32
    assert torch.isfinite(samples.x).all()


def test_conditions_reach_the_model():
    class Labelled(MixtureModel):
        def predict(self, x_t, t, **conditions):
            assert conditions["labels"].tolist() == [1, 2, 3, 4]
            return super().predict(x_t, t)

    labels = torch.tensor([1, 2, 3, 4])
    model = Labelled(Path(Linear()), W, M, C)
    for sampler in (Euler(steps=2, **GRID), DormandPrince(per_sample=False)):
        Inversion(sampler).invert(model, draws(), labels=labels)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Inversion(LogDormandPrince()), "LogDormandPrince"),
        (lambda: Inversion(DDIM(steps=2, eta=1.0, **GRID)), "adds noise"),
        (
            lambda: Inversion(Euler(steps=2, perturbation=StateNoise(scale=0.1), **GRID)),
            "adds noise",
        ),
        (lambda: Inversion(Reinterpolation(steps=2, **GRID)), "source draw"),
        (lambda: Inversion(Euler(steps=2, **GRID), start_time=-0.1), "start_time is -0.1"),
        (lambda: Inversion(Euler(steps=2, **GRID), noise_scale=-1.0), "noise_scale is -1"),
        (lambda: Inversion(DormandPrince(), final_euler=True), "final_euler"),
    ],
)
def test_impossible_inversions_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()


def test_a_start_outside_the_model_or_the_grid_is_named():
    model = mixture(Linear(), time_range=(0.01, 1.0))
    sampler = Euler(steps=2, **GRID)
    with pytest.raises(ValueError, match=r"start_time is 0.001.*0.01"):
        Inversion(sampler, start_time=1e-3).check(model)
    coarse = Euler(steps=1, time_grid=Given(values=[0.5, 0.0]))
    with pytest.raises(ValueError, match="at or above"):
        Inversion(coarse, start_time=0.6).check(model)
    Inversion(sampler, start_time=0.02).check(model)
