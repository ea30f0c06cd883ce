import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from flowexp.models import Model
from flowexp.paths import VE, VP, Linear, Path, Prediction
from flowexp.samplers import DormandPrince, IntegrationError
from tests.samplers.closed_forms import DenoiserModel, MixtureModel, mixture_denoiser

W, M, C = [0.3, 0.7], [[0.5, -0.4, 0.1], [-0.6, 0.2, 0.9]], [[0.2, 0.1, 0.3], [0.05, 0.3, 0.2]]


def mixture(schedule, **kwargs):
    return MixtureModel(Path(schedule), W, M, C, **kwargs)


def draws(n, seed=0):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_scipy(model, e, tolerance):
    low, high = model.time_range
    shape = e.shape

    def f(t, y):
        x = torch.from_numpy(np.ascontiguousarray(y)).reshape(shape)
        return model.velocity(x, torch.tensor(t, dtype=torch.float64)).reshape(-1).numpy()

    x = model.path.start(e, torch.tensor(high, dtype=torch.float64))
    out = solve_ivp(f, (high, low), x.reshape(-1).numpy(), rtol=tolerance, atol=tolerance)
    return torch.from_numpy(out.y[:, -1]).reshape(shape), out.nfev


SETTINGS = {
    "linear": (Linear(), None),
    "ve": (VE(t_min=0.01, t_max=20.0), None),
    "vp": (VP(t_min=1e-3), None),
}


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
@pytest.mark.parametrize("path", SETTINGS)
def test_per_sample_equals_scipy_sample_by_sample(path, tolerance):
    model, e = mixture(SETTINGS[path][0]), draws(5)
    sampler = DormandPrince(rtol=tolerance, atol=tolerance, denoise_at_end=False)
    samples = sampler.sample(model, e)
    for i in range(5):
        x, nfev = by_scipy(model, e[i : i + 1], tolerance)
        torch.testing.assert_close(samples.x[i : i + 1], x, rtol=0, atol=1e-9)
        assert int(samples.nfe[i]) == nfev
    assert samples.nfe.unique().numel() > 1


@pytest.mark.parametrize("path", SETTINGS)
def test_shared_steps_equal_scipy_on_the_flattened_batch(path):
    model, e = mixture(SETTINGS[path][0]), draws(5)
    sampler = DormandPrince(rtol=1e-5, atol=1e-5, per_sample=False, denoise_at_end=False)
    samples = sampler.sample(model, e)
    x, nfev = by_scipy(model, e, 1e-5)
    torch.testing.assert_close(samples.x, x, rtol=0, atol=1e-9)
    assert samples.nfe.tolist() == [nfev] * 5


def test_per_sample_results_do_not_depend_on_the_batch():
    model, e, sampler = mixture(Linear()), draws(7), DormandPrince(rtol=1e-4, atol=1e-4)
    together = sampler.sample(model, e)
    for i in range(7):
        alone = sampler.sample(model, e[i : i + 1])
        torch.testing.assert_close(together.x[i : i + 1], alone.x, rtol=0, atol=1e-12)
        assert int(together.nfe[i]) == int(alone.nfe)


def test_conditions_follow_their_samples():
    class Scaled(Model):
        """v = k x: samples need different numbers of steps, so that some leave early."""

        def __init__(self):
            self.path, self.time_range = Path(Linear()), (0.0, 1.0)

        def predict(self, x_t, t, **conditions):
            assert conditions["nothing"] is None
            velocity = conditions["k"][:, None] * x_t
            return Prediction.of_velocity(self.path, x_t, t, velocity)

    k = torch.tensor([0.1, 8.0, 2.0], dtype=torch.float64)
    e = torch.ones(3, 2, dtype=torch.float64)
    samples = DormandPrince(rtol=1e-8, atol=1e-10).sample(Scaled(), e, k=k, nothing=None)
    torch.testing.assert_close(samples.x, torch.exp(-k)[:, None].expand(3, 2), rtol=1e-6, atol=0)
    assert samples.nfe[1] > samples.nfe[2] > samples.nfe[0]


@pytest.mark.parametrize("per_sample", [True, False])
def test_last_step_denoises(per_sample):
    schedule = VE(t_min=0.05, t_max=20.0)
    model = DenoiserModel(Path(schedule), mixture_denoiser([1.0], [[0.2, 0.1, 0.0]], [0.3]))
    open_end = DormandPrince(per_sample=per_sample, denoise_at_end=False).sample(model, draws(3))
    closed = DormandPrince(per_sample=per_sample).sample(model, draws(3))
    expected = model.denoise(open_end.x, torch.tensor(0.05, dtype=torch.float64))
    torch.testing.assert_close(closed.x, expected, rtol=0, atol=1e-14)
    assert torch.equal(closed.nfe, open_end.nfe + 1)


@pytest.mark.parametrize("per_sample", [True, False])
def test_observer(per_sample):
    seen = []
    sampler = DormandPrince(per_sample=per_sample)
    samples = sampler.sample(mixture(Linear()), draws(3), on_step=lambda t, x: seen.append((t, x)))
    shape = (3,) if per_sample else ()
    assert all(t.shape == shape and x.shape == (3, 3) for t, x in seen)
    assert (seen[0][0] == 1.0).all()
    assert (seen[-1][0] == 0.0).all()
    assert torch.equal(seen[-1][1], samples.x)


def test_counts_the_cost_of_a_call():
    model = mixture(Linear())
    once = DormandPrince().sample(model, draws(2)).nfe
    model.evaluations_per_call = 2
    assert torch.equal(DormandPrince().sample(model, draws(2)).nfe, 2 * once)


def test_counted_evaluations_are_the_calls_made():
    model = mixture(Linear())
    nfe = DormandPrince().sample(model, draws(1)).nfe
    assert len(model.times) == int(nfe)


def test_errors():
    with pytest.raises(IntegrationError, match="max_steps=3"):
        DormandPrince(rtol=1e-8, atol=1e-8, max_steps=3).sample(mixture(Linear()), draws(2))
    with pytest.raises(IntegrationError, match="not finite"):
        DormandPrince().sample(mixture(Linear()), draws(2) * torch.nan)
    with pytest.raises(ValueError, match="rtol is 0"):
        DormandPrince(rtol=0.0)
    with pytest.raises(ValueError, match="max_steps is 0"):
        DormandPrince(max_steps=0)


def test_torchdiffeqs_control_gives_all_rows_the_same_evaluations():
    model, e = mixture(Linear()), draws(6)
    sampler = DormandPrince(rtol=1e-4, atol=1e-4, per_sample=False, control="torchdiffeq")
    together, alone = sampler.sample(model, e), sampler.sample(model, e[:1])
    assert together.nfe.unique().numel() == 1
    assert int(together.nfe[0]) % 6 == 2
    exact = DormandPrince(rtol=1e-10, atol=1e-10).sample(model, e).x
    torch.testing.assert_close(together.x, exact, rtol=0, atol=1e-2)
    assert not torch.equal(together.x[:1], alone.x)  # a sample depends on its batch
    assert sampler.shares_steps
    assert "torchdiffeq" in sampler.describe()


def test_torchdiffeqs_control_is_refused_where_it_is_not_defined():
    with pytest.raises(ValueError, match="per_sample is true"):
        DormandPrince(control="torchdiffeq")
    with pytest.raises(ValueError, match="control is 'tsit5'"):
        DormandPrince(control="tsit5", per_sample=False)
    sampler = DormandPrince(control="torchdiffeq", per_sample=False)
    with pytest.raises(ValueError, match="beyond t = 0"):
        sampler.check(mixture(VE(t_min=0.01, t_max=20.0)))
