"""Laws and paths that do not go together are refused in one sentence."""

import pytest

from flowexp.paths import VE, VP, Cosine, Linear, Polynomial, Trigonometric
from flowexp.timesteps import (
    Beta,
    CosMap,
    LogitNormal,
    LogNormal,
    Mode,
    Stratified,
    Uniform,
    check_compatible,
)

UNIT_PATHS = [Linear(), VP(), Cosine(), Polynomial(), Trigonometric()]
UNIT_LAWS = [LogitNormal(), Mode(), CosMap(), Beta(), Uniform(low=0.2, high=0.8)]


@pytest.mark.parametrize("law", [*UNIT_LAWS, Stratified(Mode())], ids=repr)
def test_laws_of_unit_time_are_refused_on_ve_and_accepted_elsewhere(law):
    for schedule in UNIT_PATHS:
        check_compatible(law, schedule)
    with pytest.raises(ValueError, match=r"VE\(.*0\.002 to 80.*lognormal") as refusal:
        check_compatible(law, VE())
    assert repr(law) in str(refusal.value)


@pytest.mark.parametrize("law", [LogNormal(), Stratified(LogNormal())])
def test_laws_of_the_noise_to_signal_ratio_suit_every_path(law):
    for schedule in [*UNIT_PATHS, VE()]:
        check_compatible(law, schedule)


def test_uniform_noise_levels_belong_to_the_path_that_has_them():
    law = Uniform(low=0.002, high=80.0)
    check_compatible(law, VE())
    with pytest.raises(ValueError, match="up to 80"):
        check_compatible(law, Linear())
