"""Guidance inside the target: a driver mixed with the model's own velocities."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.objectives.flow_map.drivers import Driver, OwnVelocity
from flowexp.objectives.flow_map.leaps import Leap, partition
from flowexp.requirements import Part, Parts, Unmet, all_of, on_labels, within

__all__ = ["ConstantMix", "DecayingMix", "Guided", "GuidanceScaleMix", "VelocityMix"]


_ROUNDING = 1e-12


class VelocityMix(Part, ABC):
    """The weights of the velocities in a guided one: omega and kappa of every row.

    Attributes:
        reads: Names of the guidance inputs of the network that it reads.
    """

    reads: tuple[str, ...] = ()

    @abstractmethod
    def weights(self, leap: Leap) -> tuple[Tensor, Tensor]:
        """Omega and kappa, (B,) float64; 1 and 0 where there is no guidance."""


class ConstantMix(VelocityMix):
    """The same omega and kappa for all t in a window.

    Args:
        omega: Weight of the driver.
        kappa: Weight of the model's prediction with label; the scale is ``omega/(1 - kappa)``.
        start: Least t of the window.
        end: Largest t of it, > start.
        closed: Whether the window includes its ends: True for MeanFlow, False for alpha-Flow.

    Raises:
        ValueError: kappa >= 1, or the window is empty.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, eq. 19-21 and appendix (kappa);
    Zhang et al., alpha-Flow, 2025, arXiv 2510.20771, the authors' code.
    """

    def __init__(
        self,
        *,
        omega: float = 1.0,
        kappa: float = 0.5,
        start: float = 0.0,
        end: float = 1.0,
        closed: bool = True,
    ) -> None:
        if not kappa < 1.0:
            raise ValueError(f"kappa is {kappa}; expected a number below 1")
        if not start < end:
            raise ValueError(f"start is {start}; expected a number below end={end}")
        self.omega = float(omega)
        self.kappa = float(kappa)
        self.start = float(start)
        self.end = float(end)
        self.closed = closed

    def weights(self, leap: Leap) -> tuple[Tensor, Tensor]:
        t = leap.t
        inside = (t > self.start) & (t < self.end)
        if self.closed:
            inside = inside | (t == self.start) | (t == self.end)
        omega = torch.ones_like(t).masked_fill(inside, self.omega)
        return omega, torch.zeros_like(t).masked_fill(inside, self.kappa)


class DecayingMix(VelocityMix):
    """``m [d + g(t) (scale - 1)(d - v_u)] + (1 - m) v_c``, where g decays from 1 to 0 at high t.

    ``g = 1 - exp(-k y/(1 - y))`` with ``y = (1 - t)/(1 - decay_time)``, and 1 below decay_time.

    Args:
        scale: Guidance scale, >= 1; 1 = d alone, without any mixing.
        mix: m, in [0, 1]: the share of the guided driver; the rest is the model's prediction.
        decay_time: Time at which the decay starts, > 0; no decay if it is 1 or more.
        rate: k, > 0.

    Raises:
        ValueError: A number is out of range.

    Source: Luo et al., SoFlow, 2025, arXiv 2512.15657: ``get_cfg_decay_scale`` and
    ``get_consistency_loss`` of the authors' code.
    """

    def __init__(
        self,
        *,
        scale: float = 2.5,
        mix: float = 0.25,
        decay_time: float = 0.75,
        rate: float = 0.025,
    ) -> None:
        if not scale >= 1.0:
            raise ValueError(f"scale is {scale}; expected a number >= 1")
        if not 0.0 <= mix <= 1.0:
            raise ValueError(f"mix is {mix}; expected a number in [0, 1]")
        if not (decay_time > 0.0 and rate > 0.0):
            raise ValueError(
                f"need decay_time > 0 and rate > 0, got decay_time={decay_time}, rate={rate}"
            )
        self.scale = float(scale)
        self.mix = float(mix)
        self.decay_time = float(decay_time)
        self.rate = float(rate)

    def decay(self, t: Tensor) -> Tensor:
        """g(t), in [0, 1]."""
        if self.decay_time >= 1.0:
            return torch.ones_like(t)
        y = ((1.0 - t) / (1.0 - self.decay_time)).clamp(min=0.0, max=1.0 - 1e-6)
        return torch.where(t > self.decay_time, -torch.expm1(-self.rate * y / (1.0 - y)), 1.0)

    def weights(self, leap: Leap) -> tuple[Tensor, Tensor]:
        if self.scale == 1.0:
            return torch.ones_like(leap.t), torch.zeros_like(leap.t)
        omega = self.mix * (1.0 + self.decay(leap.t) * (self.scale - 1.0))
        return omega, torch.full_like(leap.t, 1.0 - self.mix)


class GuidanceScaleMix(VelocityMix):
    """``d + (1 - 1/w)(v_c - v_u)``, where w is the scale that the network receives for the row.

    Outside the row's interval of guidance w is 1.

    Source: Geng et al., improved MeanFlow, 2025, arXiv 2512.02012: ``guidance_fn`` of the authors'
    code.
    """

    reads = ("guidance_scale",)

    def weights(self, leap: Leap) -> tuple[Tensor, Tensor]:
        scale = leap.instant().conditions["guidance_scale"]
        assert scale is not None
        return torch.ones_like(scale), 1.0 - 1.0 / scale


class Guided(Driver):
    """``omega d + kappa v_c + (1 - omega - kappa) v_u``: a driver d guided by the model itself.

    v_c and v_u are the model's velocities at (x_t, t) with and without label. Rows whose label is
    dropped use d alone. The trained model gives guided samples with one evaluation per step: do not
    guide it again when sampling.

    Args:
        of: The driver d.
        mix: Omega and kappa.
        predicted: The model's prediction used as v_c and v_u; None = ``u(x_t, t, t)``.
        guides_dropped: Whether rows whose label is dropped are guided too, with ``v_c = v_u``,
            as in alpha-Flow's code.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, section 4.2; see the mixes.
    """

    def __init__(
        self,
        *,
        of: Driver,
        mix: VelocityMix,
        predicted: Driver | None = None,
        guides_dropped: bool = False,
    ) -> None:
        self.of = of
        self.mix = mix
        self.predicted = predicted or OwnVelocity()
        self.guides_dropped = guides_dropped
        self.knows_diagonal = of.knows_diagonal
        self.guides = True
        self.averages = (*of.averages, *self.predicted.averages)
        self.reads = (*of.reads, *mix.reads, *self.predicted.reads)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A class-conditional network, and the requirements of its parts."""
        yield from all_of(
            on_labels(parts, name=type(self).__name__, remedy="objective/driver=data"),
            within("of", self.of.needs(parts)),
            within("mix", self.mix.needs(parts)),
            within("predicted", self.predicted.needs(parts)),
        )

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        """One call for rows with omega + kappa != 1, and one for those with kappa != 0."""
        d = self.of.velocity(model, leap, s)
        omega, kappa = self.mix.weights(leap)
        if leap.dropped is not None and not self.guides_dropped:
            omega = torch.where(leap.dropped, 1.0, omega)
            kappa = torch.where(leap.dropped, 0.0, kappa)
        rest = 1.0 - omega - kappa
        guided = expand_as(omega, d) * d
        guided = guided + self._part(model, leap, kappa)
        return guided + self._part(model, leap.unlabelled(), rest)

    def _part(self, model: Model, leap: Leap, weight: Tensor) -> Tensor:
        """The predicted velocity times its weight, evaluated only where that is not 0."""
        part = torch.zeros_like(leap.x_t)
        rows, others = partition(weight.abs() > _ROUNDING)
        if len(rows) > 0:
            chosen = leap.rows(rows) if len(others) > 0 else leap
            velocity = self.predicted.velocity(model, chosen, chosen.t).to(part.dtype)
            part[rows] = expand_as(weight[rows], velocity) * velocity
        return part
