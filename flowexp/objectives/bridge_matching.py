"""Flow matching on bridges: conditional paths with additional noise."""

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import weighted
from flowexp.objectives.weightings import Weighting
from flowexp.paths import BridgeNoise, bridge_point

__all__ = ["BridgeMatching"]


class BridgeMatching(Objective):
    """``weight(t) premetric(velocity - v)`` with state and v on a bridge over the model's path.

    With constant noise this is I-CFM at sigma > 0; with Brownian noise and pairs from the entropic
    plan it is SB-CFM. Only the model's velocity is meaningful on a bridge.

    Source: Tong et al., Improving and generalizing flow-based generative models, 2023, arXiv
    2302.00482.
    """

    needs_unit_time = True

    def __init__(self, noise: BridgeNoise, *, weighting: Weighting, premetric: Premetric) -> None:
        self.noise = noise
        self.weighting = weighting
        self.premetric = premetric

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One network call; the bridge's normal draws come from ``rng``."""
        x, e = pairs.x.to(torch.float64), pairs.e.to(torch.float64)
        eps = torch.randn(x.shape, dtype=x.dtype, generator=rng, device=rng.device).to(x.device)
        point = bridge_point(model.path, self.noise, x=x, e=e, t=t.to(x.device), eps=eps)
        velocity = model.velocity(point.x_t, point.t, **pairs.conditions)
        weight = self.weighting(model.path.schedule.coefficients(point.t))
        difference = velocity - point.velocity
        return Loss(weighted(self.premetric(difference), weight=weight, pairs=pairs))
