"""Networks with two heads: the velocity, and the score of a bridge with noise of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from flowexp.parameterizations.direct import VelocityPrediction
from flowexp.paths import Coefficients, Conversion
from flowexp.paths.conversions import FromVelocity
from flowexp.requirements import Parts, Unmet, all_of

__all__ = ["FlowAndScore", "FromFlowAndScore"]


@dataclass(frozen=True)
class FromFlowAndScore(FromVelocity):
    """The first half of F's channels is the velocity, the second ``(scale^2 / 2) score``."""

    scale: float

    def read(self, output: Tensor, *, like: Tensor) -> Tensor:
        """The velocity."""
        return output[:, : like.shape[1]]

    def score(self, output: Tensor, *, like: Tensor) -> Tensor:
        """The score, (B, ...), of the network's second head."""
        return output[:, like.shape[1] :] * (2.0 / self.scale**2)


class FlowAndScore(VelocityPrediction):
    """F is ``(v, (s^2 / 2) grad log p_t)``: both drifts of a Schroedinger bridge, ``v +- F_2``.

    With the bridge's diffusion s the process from the source to the data is
    ``dx = (v - F_2) dt + s dW`` in decreasing time, and back ``dx = (v + F_2) dt + s dW``
    (sampler=sde, sampler/diffusion=brownian). Data and noise of its predictions have no meaning.

    Args:
        scale: Diffusion s of the bridge, > 0: that of the objective's noise.
        time_scale: See :class:`VelocityPrediction`.

    Source: Tong et al., Simulation-free Schroedinger bridges via score and flow matching, 2023,
    arXiv 2307.03672 ([SF]^2M).
    """

    score_head = True

    def __init__(self, *, scale: float, time_scale: float = 1.0) -> None:
        super().__init__(time_scale=time_scale)
        if not scale > 0.0:
            raise ValueError(f"scale is {scale}; expected a positive number")
        self.scale = float(scale)

    def output_channels(self, channels: int) -> tuple[int, ...]:
        return (2 * channels,)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """An objective that trains the score."""
        yield from all_of(super().needs(parts), self._trained(parts))

    def _trained(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.objective.trains_score:
            name = type(parts.objective).__name__
            problem = f"{type(self).__name__} predicts a score, which {name} does not train."
            yield Unmet("objective", problem, "Use objective=flow_and_score_matching.")

    def conversion(self, c: Coefficients) -> Conversion:
        return FromFlowAndScore(c, self.scale)
