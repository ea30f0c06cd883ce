"""Quantiles of Student's t by interpolation against scipy's."""

import pytest
import torch
from scipy import special

from flowexp.timesteps import LogStudent
from flowexp.timesteps.quantile_tables import QuantileTable

F64 = torch.float64


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mean": -0.5, "scale": 0.8, "df": 4.0, "lower": 0.002},
        {"mean": 0.3, "scale": 1.5, "df": 1.0, "lower": 0.01},
        {"df": 300.0, "scale": 1.0, "lower": 0.05, "upper": 20.0},
    ],
)
def test_interpolated_quantiles_are_those_of_scipy(options):
    law = LogStudent(**options)
    rng = torch.Generator().manual_seed(0)
    u = torch.cat(
        [torch.rand(4000, generator=rng, dtype=F64), torch.logspace(-12, -1, 200).to(F64)]
    )
    mean, scale, df = law.law.mean, law.law.scale, law.law.df
    ends = torch.tensor([law.lower, law.upper], dtype=F64)
    low, high = special.stdtr(df, ((ends.log() - mean) / scale).numpy())
    z = special.stdtrit(df, low + (high - low) * u.numpy())
    expected = torch.exp(mean + scale * torch.as_tensor(z))
    torch.testing.assert_close(law.quantile(u), expected, rtol=1e-10, atol=0.0)


def test_a_law_from_zero_on_needs_no_table():
    law = LogStudent(lower=0.0, df=4.0)
    u = torch.tensor([1e-6, 0.5, 0.9], dtype=F64)
    torch.testing.assert_close(law.cdf(law.quantile(u)), u, rtol=1e-9, atol=0.0)


def test_times_of_several_columns_keep_their_shape():
    u = torch.rand(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    law = LogStudent()
    assert law.quantile(u).equal(torch.stack([law.quantile(c) for c in u.unbind(1)], dim=1))


def test_nodes_of_equal_probability_are_left_out():
    p = torch.tensor([0.0, 0.5, 0.5, 1.0, 1.0], dtype=F64)
    value = torch.tensor([0.0, 1.0, 1.5, 2.0, 3.0], dtype=F64)
    table = QuantileTable(p, value=value, density=torch.full((5,), 0.5, dtype=F64))
    u = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    torch.testing.assert_close(table(u), 2.0 * u)
