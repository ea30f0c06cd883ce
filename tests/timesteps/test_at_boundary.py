"""A law with a share of its draws at one value."""

import pytest
import torch

from flowexp.paths import VE
from flowexp.seeding import generator
from flowexp.timesteps import AtBoundary, LogNormal, LogStudent, ShrinkingRatio

F64 = torch.float64


def test_the_value_has_its_exact_share_of_every_part_of_a_batch():
    law = AtBoundary(LogStudent(), value=1.0 + 1e-8, share=0.25)
    t = law.sample(64, schedule=VE(), rng=generator(0, "time"))
    at = t == 1.0 + 1e-8
    assert int(at.sum()) == 16
    assert int(at[:32].sum()) == 8
    assert (t[~at] > 1.0 + 1e-8).all()


def test_it_keeps_its_share_under_a_law_of_two_times():
    law = ShrinkingRatio(AtBoundary(LogStudent(), share=0.25), stage_kimg=1.0, floor=1e-6)
    times = law.sample(40, schedule=VE(), rng=generator(0, "time"))
    assert int((times[:, 0] == 1.0 + 1e-8).sum()) == 10


def test_quantile_and_cdf_are_those_of_the_mixture():
    law = AtBoundary(LogNormal(), value=1.0, share=0.4)
    u = torch.linspace(0.001, 0.999, 999, dtype=F64)
    value = law.quantile(u)
    assert (value.diff() >= 0).all()
    assert abs(float((value == 1.0).double().mean()) - 0.4) < 2e-3
    outside = value != 1.0
    torch.testing.assert_close(law.cdf(value)[outside], u[outside], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(law.pdf(value), 0.6 * LogNormal().pdf(value))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: AtBoundary(LogNormal(), share=1.0), "share"),
        (lambda: AtBoundary(LogNormal(), value=-1.0), "value"),
        (lambda: LogStudent(df=0.0), "df"),
        (lambda: LogStudent(scale=0.0), "scale"),
        (lambda: LogStudent(lower=2.0, upper=1.0), "lower"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
