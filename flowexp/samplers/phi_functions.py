"""The functions behind exponential integrators."""

import math

__all__ = ["phi"]

_SERIES_BELOW = 1.0
_TERMS = 20


def phi(k: int, z: float) -> float:
    """``phi_k(z) = sum_j z^j / (j + k)!``: ``phi_0 = exp``, ``phi_{k+1} = (phi_k - 1/k!) / z``.

    ``int_0^1 exp((1 - u) z) u^k / k! du = phi_{k+1}(z)``, which is the weight of a k-th derivative
    in a step. Near 0 the recursion cancels, so the series is summed there.

    Args:
        k: Order, >= 0.
        z: Argument; minus infinity is allowed.

    Source: Hochbruck & Ostermann, Exponential integrators, 2010, eq. 2.10 and 2.11.
    """
    if abs(z) < _SERIES_BELOW:
        return math.fsum(z**j / math.factorial(j + k) for j in range(_TERMS))
    value = math.exp(z)
    for j in range(k):
        value = (value - 1.0 / math.factorial(j)) / z
    return value
