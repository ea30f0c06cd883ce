"""The noise-level distributions of EDM's VP and VE losses; see also test_distributions.py."""

import math

import pytest
import torch

from flowexp.paths import VP, Linear
from flowexp.timesteps import LogUniform, Uniform, VPUniform, check_compatible

F64 = torch.float64
U = torch.tensor([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6], dtype=F64)


def test_vp_uniform_is_the_uniform_law_on_the_vp_path():
    t = VP().time_at_nsr(VPUniform().quantile(U))
    torch.testing.assert_close(t, Uniform(low=1e-5, high=1.0).quantile(U), rtol=1e-9, atol=0)


def test_vp_uniform_ends_where_the_vp_path_does():
    low, high = VPUniform().support
    assert low == pytest.approx(1.0005e-3, rel=1e-4)
    assert high == pytest.approx(152.16697, rel=1e-7)


def test_log_uniform_is_geometric():
    law = LogUniform(sigma_min=0.02, sigma_max=100.0)
    torch.testing.assert_close(law.quantile(U), 0.02 * (100.0 / 0.02) ** U)
    assert float(law.quantile(torch.tensor(0.5))) == pytest.approx(math.sqrt(2.0))


@pytest.mark.parametrize("law", [VPUniform(), LogUniform()])
def test_both_suit_every_path(law):
    check_compatible(law, Linear())


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: VPUniform(eps_t=0.0), "t_min is 0"),
        (lambda: VPUniform(eps_t=1.5), "t_min=1.5"),
        (lambda: VPUniform(beta_max=0.01), "beta_max=0.01"),
        (lambda: LogUniform(sigma_min=0.0), "sigma_min=0.0"),
        (lambda: LogUniform(sigma_max=math.inf), "sigma_max=inf"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
