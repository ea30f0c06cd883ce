"""Whether a claim holds: a stated test on numbers that were measured with the same seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

__all__ = ["Verdict", "verdict"]

_LEVEL = 0.05


class Verdict(NamedTuple):
    """The outcome of the test; ``missing`` if there is none.

    Attributes:
        statistic: Student's t of the paired differences, positive in the claimed direction; of
            several comparisons, that of the weakest; nan where there is none.
        p_value: Probability of such a t or a larger one if there were no effect.
    """

    word: Literal["holds", "does not hold", "undecided", "missing"] = "missing"
    statistic: float = math.nan
    p_value: float = math.nan


def verdict(arms: Sequence[Sequence[float]], *, direction: Literal["lower", "higher"]) -> Verdict:
    """Whether the last arm is better than every other one.

    The paired t test, one-sided at 5 %, on d_s = (other - last) in seed s (the sign turned where
    higher is better): t = mean(d) / (std(d) / sqrt(n)), n - 1 degrees of freedom. Significant in
    the claimed direction against every other arm: holds. Significant in the opposite direction
    against any: does not hold. Else undecided, as it is if a number is not finite. Holding against
    every arm needs no correction for several tests: all of them must be significant at the level of
    one.

    ``arms`` are at least two lists with a number for each of the same seeds; ``direction`` says
    which numbers are better.
    """
    if len(arms) < 2 or len({len(arm) for arm in arms}) != 1:
        raise ValueError(
            f"arms of lengths {[len(arm) for arm in arms]}; allowed: two or more alike"
        )
    if not all(math.isfinite(value) for arm in arms for value in arm):
        return Verdict("undecided")
    *others, last = arms
    sign = 1.0 if direction == "lower" else -1.0
    tests = [
        _paired([sign * (a - b) for a, b in zip(other, last, strict=True)]) for other in others
    ]
    statistic, p_value = max(tests, key=lambda found: found[1])
    if p_value < _LEVEL:
        return Verdict("holds", statistic, p_value)
    if 1.0 - p_value < _LEVEL:
        return Verdict("does not hold", statistic, p_value)
    return Verdict("undecided", statistic, p_value)


def _paired(differences: Sequence[float]) -> tuple[float, float]:
    """Student's t and its upper tail."""
    from scipy.stats import t as student

    count = len(differences)
    if count < 2:
        return math.nan, 0.5
    mean, spread = statistics.fmean(differences), statistics.stdev(differences)
    if spread == 0.0:
        # Seeds that agree to the last bit leave no doubt, except where nothing differs at all.
        return (math.nan, 0.5) if mean == 0.0 else (math.copysign(math.inf, mean), float(mean < 0))
    value = mean / (spread / math.sqrt(count))
    return value, float(student.sf(value, count - 1))
