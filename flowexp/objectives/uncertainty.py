"""Regression whose weight over noise levels is learned together with the network."""

import torch
from torch import Tensor, nn

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.networks.magnitude_preserving import MPConv, MPFourier
from flowexp.objectives.base import Loss
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import PredictionKind, Regression, point_of, weighted
from flowexp.objectives.weightings import Weighting
from flowexp.paths import Coefficients

__all__ = ["LogVariance", "UncertaintyRegression"]

_WIDEST = 20.0


class LogVariance(nn.Module):
    """The log-variance u of a noise level: ``u = MPConv(MPFourier(ln(sigma/alpha)/4))``.

    Levels beyond e^-20 and e^20, pure data and pure source among them, have the u of these.
    Its weights are drawn at random, so that u is of the order of 1 at first, as in the authors'
    code, and normalised before every step like those of the network.

    Args:
        channels: Number of Fourier features, >= 1; u stays within ``-+ sqrt(2 channels)``.
        bandwidth: Standard deviation of their frequencies, > 0.

    Raises:
        ValueError: An argument is out of range.

    Source: Karras et al., EDM2, 2024, arXiv 2312.02696, section 2.2 and appendix B.6, and the
    authors' networks_edm2.py.
    """

    def __init__(self, *, channels: int = 128, bandwidth: float = 1.0) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels is {channels}; expected an integer >= 1")
        self.fourier = MPFourier(channels, bandwidth=bandwidth)
        self.linear = MPConv(channels, 1, kernel=0)

    def forward(self, c: Coefficients) -> Tensor:
        """u, of the shape of t, (B,)."""
        log_nsr = torch.log(c.sigma) - torch.log(c.alpha)
        u: Tensor = self.linear(self.fourier(0.25 * log_nsr.clamp(-_WIDEST, _WIDEST)))
        return u[:, 0]


class UncertaintyRegression(Regression):
    """``weight(t) e^{-u(t)} premetric(prediction - truth) + u(t)`` with a learned log-variance u.

    At its optimum ``e^u`` is the mean of the weighted error at t, so that all noise levels
    contribute equally, whatever the weight. With u = 0 it is :class:`Regression`. u is trained by
    the network's optimizer and stored in checkpoints, but it is not part of the network and has no
    average; ``init`` starts it anew. The loss can become negative: monitor the metric ``error``,
    the mean weighted error.

    Args:
        target: As in :class:`Regression`.
        weighting: As in :class:`Regression`.
        premetric: As in :class:`Regression`.
        log_variance: The module u.

    Source: Karras et al., EDM2, 2024, arXiv 2312.02696, equations 14 to 21. Their code
    backpropagates the sum over pixels over the batch size; of a mean over pixels
    (``objective/premetric=l2``) all gradients are smaller by one factor, to which Adam is
    invariant.
    """

    def __init__(
        self,
        target: PredictionKind,
        *,
        weighting: Weighting,
        premetric: Premetric,
        log_variance: LogVariance,
    ) -> None:
        super().__init__(target, weighting=weighting, premetric=premetric)
        self.log_variance = log_variance

    @property
    def learned(self) -> nn.Module:
        """The log-variance."""
        return self.log_variance

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        value, error = self.losses(model, pairs, t)
        return Loss(weighted(value, pairs=pairs), {"error": error.detach().mean().float()})

    def losses(self, model: Model, pairs: Pairs, t: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of the rows and their weighted errors, (B,), float64; no weights of pairs."""
        point = point_of(pairs, model.path, t)
        prediction = model.predict(point.x_t, point.t, **pairs.conditions)
        difference = getattr(prediction, self.target) - getattr(point, self.target)
        c = model.path.schedule.coefficients(point.t)
        error = self.weighting(c) * self.premetric(difference)
        u = self.log_variance(c).to(error.dtype)
        return error * torch.exp(-u) + u, error
