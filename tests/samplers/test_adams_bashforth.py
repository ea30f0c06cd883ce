import pytest
import torch

from flowexp.paths import VE, Path
from flowexp.samplers import AdamsBashforth, EDMGrid, Euler, Natural
from flowexp.samplers.adams_bashforth import adams_weights
from tests.samplers.closed_forms import GaussianModel

CONSTANTS = {
    1: [1.0],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
}


@pytest.mark.parametrize("order", CONSTANTS)
@pytest.mark.parametrize("h", [-0.125, 0.3])
def test_uniform_grid_gives_the_constants(order, h):
    weights = adams_weights([0.5 - j * h for j in range(order)], 0.5 + h)
    assert weights == pytest.approx([h * w for w in CONSTANTS[order]], rel=1e-13)


@pytest.mark.parametrize("order", CONSTANTS)
def test_exact_for_polynomials_on_any_grid(order):
    nodes, end = [0.6, 0.75, 1.0, 1.9][:order], 0.37
    for power in range(order):
        integral = (end ** (power + 1) - nodes[0] ** (power + 1)) / (power + 1)
        rule = sum(w * u**power for w, u in zip(adams_weights(nodes, end), nodes, strict=True))
        assert rule == pytest.approx(integral, abs=1e-13)


def test_first_order_is_euler():
    model = GaussianModel(Path(VE()), mean=torch.zeros(1, 2, dtype=torch.float64), std=0.5)
    e = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    ab = AdamsBashforth(steps=6, time_grid=EDMGrid(), order=1).sample(model, e).x
    torch.testing.assert_close(
        ab, Euler(steps=6, time_grid=EDMGrid()).sample(model, e).x, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("order", [0, 5])
def test_order_out_of_range(order):
    with pytest.raises(ValueError, match=f"order is {order}"):
        AdamsBashforth(steps=6, time_grid=Natural(), order=order)
