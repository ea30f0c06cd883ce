"""Statistics against closed forms, exact Jacobians and finite differences."""

import pytest
import torch

from flowexp.calibration.statistics_pass import (
    StatisticsDraws,
    grid_points,
    mean_sensitivity,
    measure,
    slope_moments,
    slopes,
)
from flowexp.models import FlowModel
from flowexp.networks import DhariwalUNet, DiT, SongUNet, UNet
from flowexp.parameterizations import EDMPreconditioning
from flowexp.paths import VE, VP, Linear, Path
from flowexp.progress.task import counted, telling
from flowexp.samplers import RK4, Given
from tests.networks.tiny import perturb
from tests.progress.test_task import Heard
from tests.samplers.closed_forms import GaussianModel, MixtureModel

PATHS = {"ve": Path(VE(t_min=0.002, t_max=80.0)), "vp": Path(VP()), "linear": Path(Linear())}
LAM = torch.linspace(-3.0, 4.0, 15, dtype=torch.float64)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mixture(path):
    m = torch.tensor([[1.0, 0.5, -0.5], [-1.0, 0.25, 0.75]])
    return MixtureModel(path, [0.4, 0.6], m, [[0.3, 0.5, 0.2], [0.4, 0.3, 0.6]])


def drawn(count=12, *, probes=None, batch_size=64):
    return StatisticsDraws(
        normal(count, 3, seed=1), normal(count, 3, seed=2), probes, {}, batch_size, "cpu"
    )


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("probes", [None, 1])
def test_gaussian_data_have_a_known_l_for_any_number_of_data(path, probes):
    """``l = sigma^2 / (alpha^2 c^2 + sigma^2)``, also by one probe, as the Jacobian is diagonal."""
    c = 0.6
    model = GaussianModel(path, mean=torch.tensor([0.5, -1.0, 0.2]).double(), std=c)
    signs = None if probes is None else torch.tensor([[[1, -1, 1], [-1, -1, 1]]])
    found = measure(model, LAM, x=normal(2, 3), e=normal(2, 3, seed=1), probes=signs)
    expected = 1.0 / (c**2 * torch.exp(2.0 * LAM) + 1.0)
    torch.testing.assert_close(found.l, expected[:, None].expand(-1, 3), rtol=1e-9, atol=1e-12)
    # f is constant over x, so that only b can be told: the whole of its derivative
    assert torch.equal(found.s, torch.zeros_like(found.s))
    assert bool(torch.isfinite(found.b).all())


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_mixture_against_the_exact_jacobian(path):
    model, draws = mixture(path), drawn(6)
    for point in grid_points(model, LAM[::5], device="cpu"):
        x_t = point.alpha * draws.x + point.sigma * draws.e
        rows = [
            torch.autograd.functional.jacobian(
                lambda x, t=point.t: model.noise(x[None], t)[0], x
            ).diag()
            for x in x_t
        ]
        expected = point.sigma * torch.stack(rows).mean(0)
        torch.testing.assert_close(mean_sensitivity(model, point, draws), expected)


def test_probes_are_unbiased():
    """Mean over all 2^3 sign patterns is the exact diagonal."""
    model, point = (
        mixture(PATHS["vp"]),
        grid_points(mixture(PATHS["vp"]), LAM[7:8], device="cpu")[0],
    )
    signs = torch.cartesian_prod(*[torch.tensor([-1, 1])] * 3)
    probes = signs[:, None, :].expand(8, 12, 3)
    torch.testing.assert_close(
        mean_sensitivity(model, point, drawn(probes=probes)),
        mean_sensitivity(model, point, drawn()),
    )


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_slope_of_f_against_a_finite_difference_along_the_flow(path):
    """f at lambda +- h on the trajectory through x, l moving with its slope."""
    model, h = mixture(path), 2e-3
    weight, dl = torch.tensor([0.3, 0.5, 0.7]).double(), torch.tensor([-0.2, 0.1, 0.3]).double()
    point = grid_points(model, LAM[6:7], device="cpu")[0]
    draws = drawn(1)
    x = point.alpha * draws.x + point.sigma * draws.e

    def f_at(offset):
        lam = torch.tensor(float(LAM[6]) + offset, dtype=torch.float64)
        t = path.schedule.time_at_nsr(torch.exp(-lam))
        state = flow(model, x, float(point.t), float(t))
        c = path.schedule.coefficients(t)
        return (c.sigma * model.noise(state, t) - (weight + dl * offset) * state) / c.alpha

    difference = (f_at(h) - f_at(-h)) / (2.0 * h)
    found = slope_moments(model, point, draws, l=weight, dl=dl)
    torch.testing.assert_close(found.f, f_at(0.0)[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.d, difference[0], rtol=1e-5, atol=1e-6)


def flow(model, x, start, end):
    """Classical Runge-Kutta along the ODE, either way."""
    steps = 8
    h = (end - start) / steps
    for i in range(steps):
        t = torch.tensor(start + i * h, dtype=torch.float64)
        a = model.velocity(x, t)
        b = model.velocity(x + 0.5 * h * a, t + 0.5 * h)
        c = model.velocity(x + 0.5 * h * b, t + 0.5 * h)
        d = model.velocity(x + h * c, t + h)
        x = x + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
    return x


def test_batches_do_not_matter():
    model = mixture(PATHS["vp"])
    point = grid_points(model, LAM[7:8], device="cpu")[0]
    line = {"l": torch.full((3,), 0.5).double(), "dl": torch.zeros(3).double()}
    wholes, pieces = drawn(), drawn(batch_size=5)
    torch.testing.assert_close(
        mean_sensitivity(model, point, wholes), mean_sensitivity(model, point, pieces)
    )
    whole = slope_moments(model, point, wholes, **line)
    piece = slope_moments(model, point, pieces, **line)
    assert (whole.count, piece.count) == (12, 12)
    for name in ("f", "d", "ff", "fd"):
        torch.testing.assert_close(getattr(whole, name), getattr(piece, name))


def test_slopes_are_central_inside_and_one_sided_at_the_ends():
    lam = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    rates = slopes((lam**2)[:, None], lam)[:, 0]
    torch.testing.assert_close(rates[1:-1], 2.0 * lam[1:-1])
    torch.testing.assert_close(rates[[0, -1]], torch.tensor([0.1, 1.9], dtype=torch.float64))


NETWORKS = {
    "unet": lambda: UNet(**SIZES, model_channels=8, pixel_unshuffle=1, **ATTENTION),
    "ddpmpp": lambda: SongUNet(
        **SIZES, model_channels=8, num_blocks=1, channel_mult=(1, 2), attn_resolutions=(4,)
    ),
    "adm": lambda: DhariwalUNet(
        **SIZES, model_channels=8, num_blocks=1, channel_mult=(1, 2), attn_resolutions=(4,)
    ),
    "dit": lambda: DiT(**SIZES, hidden_size=16, depth=2, num_heads=2),
}
ATTENTION = {"attn_resolutions": (4,), "head_dim": 8}
SIZES = {"img_resolution": 8, "in_channels": 1, "out_channels": 1, "label_dim": 3}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_networks_with_labels_and_attention(make):
    """Derivatives go through the whole of a network in x and t: against central differences."""
    network = perturb(make()).eval()
    model = FlowModel(
        PATHS["ve"], network=network, parameterization=EDMPreconditioning(sigma_data=0.5)
    )
    given = {"labels": torch.tensor([0, 2])}
    x, e = normal(2, 1, 8, 8, seed=1), normal(2, 1, 8, 8, seed=2)
    signs = (normal(1, 2, 1, 8, 8, seed=3) > 0) * 2 - 1
    draws = StatisticsDraws(x, e, signs, given, 2, "cpu")
    point = grid_points(model, torch.tensor([0.3], dtype=torch.float64), device="cpu")[0]
    x_t, v, h = point.alpha * x + point.sigma * e, signs[0].double(), 3e-3

    def noise(state, t=point.t):
        with torch.no_grad():
            return model.noise(state, t, **given)

    expected = (point.sigma * (noise(x_t + h * v) - noise(x_t - h * v)) / (2.0 * h) * v).mean(0)
    found = mean_sensitivity(model, point, draws)
    assert float((found - expected).abs().max()) < 5e-3 * float(expected.abs().max())

    zero = torch.zeros(1, 8, 8, dtype=torch.float64)
    rate = model.velocity(x_t, point.t, **given).detach() * point.time_rate
    up = noise(x_t + h * rate, point.t + h * point.time_rate)
    down = noise(x_t - h * rate, point.t - h * point.time_rate)
    slope = point.sigma * ((up - down) / (2.0 * h) - noise(x_t))
    moments = slope_moments(model, point, draws, l=zero, dl=zero)
    assert float((moments.d - slope.mean(0)).abs().max()) < 5e-3 * float(slope.abs().max())


def test_runge_kutta_helper_agrees_with_the_sampler():
    model = mixture(PATHS["ve"])
    e = normal(2, 3)
    grid = Given(values=torch.linspace(1.0, 0.5, 9, dtype=torch.float64).tolist())
    torch.testing.assert_close(
        flow(model, e, 1.0, 0.5), RK4(steps=8, time_grid=grid).sample(model, e).x
    )


def test_progress_within_a_level_is_said_batch_by_batch():
    draws = drawn(12, batch_size=3)
    with telling(Heard()), counted("statistic l for", total=5, unit="times") as task:
        point = grid_points(mixture(PATHS["vp"]), LAM[7:8], device="cpu")[0]
        said = [task.so_far for _ in draws.states(point)]
    assert said == [0.0, 0.25, 0.5, 0.75]
