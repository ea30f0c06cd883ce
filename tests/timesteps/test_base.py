"""Laws and paths that do not go together are refused in one sentence."""

import re

import pytest

from flowexp.paths import VE, VP, Cosine, Linear, Path, Polynomial, Trigonometric
from flowexp.timesteps import (
    Beta,
    CosMap,
    LogitNormal,
    LogNormal,
    Mode,
    Stratified,
    Uniform,
)
from tests.refusals import refusal_of

UNIT_PATHS = [Linear(), VP(), Cosine(), Polynomial(), Trigonometric()]
UNIT_LAWS = [LogitNormal(), Mode(), CosMap(), Beta(), Uniform(low=0.2, high=0.8)]


@pytest.mark.parametrize("law", [*UNIT_LAWS, Stratified(Mode())], ids=repr)
def test_laws_of_unit_time_are_refused_on_ve_and_accepted_elsewhere(law):
    for schedule in UNIT_PATHS:
        assert refusal_of(law, path=Path(schedule)) is None
    refusal = refusal_of(law, path=Path(VE()))
    assert re.search(r"VE path.*0\.002 to 80.*lognormal", refusal)
    assert type(getattr(law, "law", law)).__name__ in refusal


@pytest.mark.parametrize("law", [LogNormal(), Stratified(LogNormal())])
def test_laws_of_the_noise_to_signal_ratio_suit_every_path(law):
    for schedule in [*UNIT_PATHS, VE()]:
        assert refusal_of(law, path=Path(schedule)) is None


def test_uniform_noise_levels_belong_to_the_path_that_has_them():
    law = Uniform(low=0.002, high=80.0)
    assert refusal_of(law, path=Path(VE())) is None
    assert "up to 80" in refusal_of(law, path=Path(Linear()))
