import pytest
import torch

from flowexp.errors import UsageError
from flowexp.guidance import ClassifierFree, DynamicThresholding
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import VE, Linear, Path
from flowexp.requirements import NetworkFacts, Parts, require
from flowexp.samplers import DDIM, DPMSolver, EDMGrid, Heun, Uniform, UniPC
from tests.guidance.test_classifier_free import LABELS, models
from tests.samplers.closed_forms import DenoiserModel, mixture_denoiser


class Constant:
    """A denoiser that always says the same."""

    def __init__(self, data):
        self.data = data

    def __call__(self, x, sigma):
        return self.data.to(x.dtype)


def state(*shape, seed=0, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("schedule", [VE(), Linear()], ids=["ve", "linear"])
def test_data_are_clipped_and_divided_within_each_sample(schedule, quantile):
    data = state(3, 2, 5, 5) * torch.tensor([0.1, 1.0, 3.0]).reshape(3, 1, 1, 1)
    model = DynamicThresholding(quantile=quantile).wrap(
        DenoiserModel(Path(schedule), Constant(data))
    )
    s = torch.quantile(data.abs().flatten(1), quantile, dim=1).clamp(min=1.0).reshape(3, 1, 1, 1)
    expected = data.clamp(-s, s) / s
    assert torch.equal(expected[0], data[0])
    x, t = state(3, 2, 5, 5, seed=1), torch.tensor(0.4, dtype=torch.float64)
    c = schedule.coefficients(t)
    for found in (model.predict(x, t), model.at(t[None])[0](x)):
        torch.testing.assert_close(found.data, expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(
            found.noise, (x - c.alpha * expected) / c.sigma, rtol=0, atol=1e-13
        )


@pytest.mark.parametrize("method", [DPMSolver, UniPC, DDIM])
def test_nothing_happens_to_data_that_stay_inside(method):
    plain = DenoiserModel(
        Path(VE()), mixture_denoiser([0.4, 0.6], [[0.5, -0.4], [-0.6, 0.2]], [0.02, 0.03])
    )
    sampler = method(steps=7, time_grid=EDMGrid(to_zero=False))
    thresholded = sampler.sample(DynamicThresholding().wrap(plain), state(5, 2))
    usual = sampler.sample(plain, state(5, 2))
    torch.testing.assert_close(thresholded.x, usual.x, rtol=0, atol=1e-12)
    assert torch.equal(thresholded.nfe, usual.nfe)


@pytest.mark.parametrize("method", [DPMSolver, UniPC])
def test_samples_do_not_leave_the_range(method):
    """Two far modes: the mean of what the solver remembers would lie outside."""
    plain = DenoiserModel(
        Path(VE()), mixture_denoiser([0.5, 0.5], [[1.8, -1.5], [-1.7, 1.4]], [0.1, 0.1])
    )
    sampler = method(steps=8, time_grid=EDMGrid(to_zero=True))
    assert float(sampler.sample(plain, state(6, 2)).x.abs().max()) > 1.5
    found = sampler.sample(DynamicThresholding(quantile=1.0).wrap(plain), state(6, 2)).x
    assert float(found.abs().max()) <= 1.0


def test_a_full_step_to_0_does_not_evaluate_where_the_noise_is_gone():
    model = DynamicThresholding().wrap(
        DenoiserModel(Path(Linear()), Constant(state(2, 3, scale=4.0)))
    )
    assert model.time_range == (pytest.approx(1e-3, rel=1e-2), 1.0)
    found = Heun(steps=4, time_grid=Uniform(), final_euler=None).sample(model, state(2, 3))
    assert torch.isfinite(found.x).all()
    assert found.nfe.tolist() == [7, 7]


def test_after_classifier_free_guidance():
    inner = ClassifierFree(scale=4.0)
    model, guided, _ = models(VelocityPrediction(), Linear(), 4.0)
    both = DynamicThresholding(guidance=inner).wrap(model)
    x, t = state(3, 4), torch.tensor(0.6, dtype=torch.float64)
    data = guided.denoise(x, t, labels=LABELS)
    s = torch.quantile(data.abs(), 0.995, dim=1, keepdim=True).clamp(min=1.0)
    assert float(s.max()) > 1.1
    torch.testing.assert_close(both.denoise(x, t, labels=LABELS), data.clamp(-s, s) / s)
    assert both.evaluations_per_call == 2
    assert both.asks_without_label
    model.labels_dropped = False
    assert DynamicThresholding(guidance=inner).wrap(model).labels_dropped is False
    assert not DynamicThresholding().wrap(model).asks_without_label
    # Another model gets the guidance of this one, as in a metric that compares with a teacher.
    torch.testing.assert_close(
        both.alongside(model).denoise(x, t, labels=LABELS), both.denoise(x, t, labels=LABELS)
    )


def test_needs_of_the_inner_guidance():
    facts = NetworkFacts(0, 0, False, 1, 1, None)
    rule = DynamicThresholding(guidance=ClassifierFree(scale=2.0))
    with pytest.raises(UsageError, match=r"guidance\.guidance.*takes no labels"):
        require(rule.needs(Parts(network=facts)), group="guidance")


@pytest.mark.parametrize("quantile", [0.0, -0.5, 1.5])
def test_quantile_out_of_range(quantile):
    with pytest.raises(ValueError, match=f"quantile is {quantile}"):
        DynamicThresholding(quantile=quantile)
