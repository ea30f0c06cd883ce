"""Stable Diffusion's table: values, levels as times, and what lies between them."""

import pytest
import torch

from flowexp.parameterizations import NoisePrediction
from flowexp.paths import DiscreteVP

F64 = torch.float64


@pytest.mark.parametrize(("p", "first", "last"), [(1.0, 0.00085, 0.012), (2.0, 0.00085, 0.012)])
def test_the_table_is_the_product_of_the_rates(p, first, last):
    schedule = DiscreteVP(p=p)
    abar = schedule.alphas_cumprod
    beta = 1.0 - abar[1:] / abar[:-1]
    torch.testing.assert_close(1.0 - abar[0], torch.tensor(first, dtype=F64), rtol=1e-12, atol=0)
    torch.testing.assert_close(beta[-1], torch.tensor(last, dtype=F64), rtol=1e-9, atol=0)
    even = torch.diff(beta ** (1.0 / p))
    torch.testing.assert_close(even, even.mean().expand_as(even), rtol=1e-6, atol=0)


def test_networks_are_conditioned_on_the_level():
    schedule = DiscreteVP()
    k = torch.arange(1000)
    t = schedule.time_of(k)
    head = NoisePrediction(time_scale=1000.0)
    told = head.inputs(schedule, t, schedule.coefficients(t)).c_noise
    torch.testing.assert_close(told, k.double(), rtol=0, atol=1e-9)
    assert (told.float().round() == k).all()


def test_data_at_zero_and_monotone_between_levels():
    schedule = DiscreteVP()
    c = schedule.coefficients(torch.tensor([0.0, 1e-4], dtype=F64))
    assert c.alpha[0] == 1.0
    assert c.sigma[0] == 0.0
    fine = torch.linspace(0.0, 1.0, 4001, dtype=F64)
    assert (torch.diff(schedule.nsr(fine)) > 0).all()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"beta_start": 0.0}, "beta_start"),
        ({"beta_end": 1e-5}, "beta_end"),
        ({"p": 0.0}, "p is"),
        ({"time_steps": 1}, "time_steps is 1"),
        ({"t_max": 1.5}, "t_max is 1.5"),
        ({"t_min": 0.0}, "t_min"),
    ],
)
def test_bad_values_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        DiscreteVP(**values)
