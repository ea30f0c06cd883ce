"""Power-function averages of weights: their profiles, and averages made from stored ones.

The average that ends at time n (in images) gives the weights of time t the share
``p(t) = (gamma + 1) t^gamma / n^(gamma + 1)``, t in [0, n]. All computations are float64.

Source: Karras et al., EDM2, 2024, arXiv 2312.02696, section 3 and appendix C.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float64]

__all__ = ["gamma_of_std", "gammas_of", "inner_products", "post_hoc_shares", "std_of_gamma"]


def gamma_of_std(std: float) -> float:
    """The exponent whose profile has the relative standard deviation ``std``.

    ``std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))``, whose largest real root is the exponent;
    std is in (0, 1/sqrt(12)]: the flat profile, gamma = 0, has 0.2886.

    Raises:
        ValueError: std is out of range.
    """
    if not 0.0 < std <= 1.0 / math.sqrt(12.0) + 1e-9:
        raise ValueError(f"std is {std}; allowed: (0, 0.2886...]")
    import numpy as np

    square = std**-2
    roots = np.roots([1.0, 7.0, 16.0 - square, 12.0 - square])
    return float(roots.real.max())


def std_of_gamma(gamma: float) -> float:
    """The relative standard deviation of the profile with exponent ``gamma`` > -1."""
    return math.sqrt((gamma + 1.0) / ((gamma + 2.0) ** 2 * (gamma + 3.0)))


def gammas_of(stds: Sequence[float]) -> "Vector":
    """The exponents of several widths."""
    import numpy as np

    return np.array([gamma_of_std(float(std)) for std in stds], dtype=np.float64)


def inner_products(
    times: "Vector", gammas: "Vector", other_times: "Vector", other_gammas: "Vector"
) -> "Vector":
    """The integrals of the products of two profiles each, (len(times), len(other_times)).

    Of profiles that end at a and b with exponents g and h:
    ``(g + 1)(h + 1) / ((g + h + 1) max(a, b))  (min(a, b) / max(a, b))^(exponent of the later)``.
    """
    import numpy as np

    a, g = times[:, None], gammas[:, None]
    b, h = other_times[None, :], other_gammas[None, :]
    ratio = np.minimum(a, b) / np.maximum(a, b)
    overlap = ratio ** np.where(a < b, h, g)
    return (g + 1.0) * (h + 1.0) * overlap / ((g + h + 1.0) * np.maximum(a, b))


def post_hoc_shares(
    times: Sequence[float],
    stds: Sequence[float],
    *,
    wanted_times: Sequence[float],
    wanted_stds: Sequence[float],
) -> "Vector":
    """Shares of stored averages in the averages that come closest to wanted profiles.

    Least squares over the profiles, then scaled to sum 1; (stored, wanted). Stored averages may end
    at any times, of one or several widths. Times are in images or any other unit.

    Args:
        times: Where the stored averages end, > 0.
        stds: Their relative widths.
        wanted_times: Where the wanted averages end, > 0.
        wanted_stds: Their relative widths.

    Raises:
        ValueError: Lengths differ, nothing is stored, a time is not positive, a width is out of
            range, or two stored averages are the same.
    """
    import numpy as np

    if len(times) != len(stds) or len(wanted_times) != len(wanted_stds):
        raise ValueError("every average needs a time and a width")
    if not len(times) or min(*times, *wanted_times) <= 0.0:
        raise ValueError("expected at least one stored average, and times > 0")
    stored = np.array(times, dtype=np.float64), gammas_of(stds)
    wanted = np.array(wanted_times, dtype=np.float64), gammas_of(wanted_stds)
    if len(set(zip(*stored, strict=True))) < len(times):
        raise ValueError("two stored averages have the same time and width")
    shares = np.linalg.solve(inner_products(*stored, *stored), inner_products(*stored, *wanted))
    scaled: Vector = shares / shares.sum(axis=0)
    return scaled
