"""The coupling made by a trained flow: each sample with the draw it came from."""

from torch import Tensor

from flowexp.couplings.base import Coupling, Pairs
from flowexp.parameterizations import Conditions

__all__ = ["StoredPairs", "require_partner"]


class StoredPairs(Coupling):
    """Each x with the e that is stored beside it: the pairs of reflow, or of two data sets.

    ``(x', e)`` with ``x'`` the end of a teacher's ODE that starts at e is a deterministic coupling
    with the data's marginals (up to the teacher's error) and a transport cost no larger than that
    of the coupling the teacher learned. Repeating it gives k-rectified flows. The pairs must stay
    together: re-pairing one side would give the independent coupling.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, section 2.2.
    """

    needs_partner = True

    def pair(
        self,
        x: Tensor,
        e: Tensor,
        conditions: Conditions,
        *,
        partner: Tensor | None = None,
        **_: object,
    ) -> Pairs:
        return Pairs(x=x, e=require_partner(x, partner), conditions=conditions)


def require_partner(x: Tensor, partner: Tensor | None) -> Tensor:
    """The partner in the dtype of x; ``ValueError`` if there is none, or its shape is another."""
    if partner is None:
        raise ValueError("this coupling needs the source draws stored with the data; set pairs=DIR")
    if partner.shape != x.shape:
        raise ValueError(
            f"partners have shape {tuple(partner.shape)}, but data {tuple(x.shape)}; expected the "
            f"same"
        )
    return partner.to(x.dtype)
