"""Averages of the weights over training.

After every step each average moves towards the weights, ``w_ema <- beta w_ema + (1 - beta) w``,
where beta depends on the images seen so far.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn

from flowexp.power_averages import gamma_of_std
from flowexp.timesteps import Curriculum

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = [
    "EMA",
    "ConstantEMA",
    "CurriculumEMA",
    "EMAWeights",
    "HalfLifeEMA",
    "PowerEMA",
    "gamma_of_std",
]


class EMA(Protocol):
    """An average of the weights: how much of it survives a step."""

    def beta(self, images_seen_before: int, batch_size: int) -> float:
        """Weight of the old average in a step of ``batch_size`` images, in [0, 1]."""


@dataclass(kw_only=True, eq=False)
class HalfLifeEMA(EMA):
    """Exponential average with a half-life in images: ``beta = 2^(-batch / half_life)``.

    Args:
        half_life_kimg: Thousands of images after which a weight has lost half of its share.
        ramp_up_ratio: The half-life is at most this share of the images seen so far, so that the
            initial weights are forgotten; None = no ramp.

    Raises:
        ValueError: A number is not positive.

    Source: Karras et al. 2022, arXiv 2206.00364, and their code (half-life 500 kimg, ratio 0.05).
    """

    half_life_kimg: float
    ramp_up_ratio: float | None = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.half_life_kimg < math.inf:
            raise ValueError(
                f"half_life_kimg is {self.half_life_kimg}; allowed: finite positive numbers"
            )
        ratio = self.ramp_up_ratio
        if ratio is not None and not ratio > 0:
            raise ValueError(f"ramp_up_ratio is {ratio}; allowed: positive numbers or None")

    def beta(self, images_seen_before: int, batch_size: int) -> float:
        """See :meth:`EMA.beta`; 0 in the first step of a ramp."""
        half_life = self.half_life_kimg * 1000.0
        if self.ramp_up_ratio is not None:
            half_life = min(half_life, images_seen_before * self.ramp_up_ratio)
        return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0


class PowerEMA(EMA):
    """Power-function average: the share of the weights at image n is proportional to ``n^gamma``.

    ``beta = (1 - batch / images_seen_after)^(gamma + 1)``; the profile keeps its shape relative to
    the length of the training, and the initial weights have no share.

    Args:
        gamma: Exponent, > -1; or None when ``std`` is given.
        std: Relative width of the profile (EDM2's sigma_rel), in (0, 0.2886...); or None.

    Raises:
        ValueError: Not exactly one of the two is given, or it is out of range.

    Source: Karras et al. 2024, arXiv 2312.02696, equations 3 and 123-127 and their code.
    """

    def __init__(self, *, gamma: float | None = None, std: float | None = None) -> None:
        if (gamma is None) == (std is None):
            raise ValueError(f"give one of gamma and std; got gamma={gamma}, std={std}")
        self.gamma = gamma_of_std(std) if std is not None else float(gamma or 0.0)
        if not self.gamma > -1.0:
            raise ValueError(f"gamma is {gamma}; allowed: numbers > -1")

    def beta(self, images_seen_before: int, batch_size: int) -> float:
        """See :meth:`EMA.beta`; 0 in the first step."""
        share = images_seen_before / (images_seen_before + batch_size)
        return float(share ** (self.gamma + 1.0))


class ConstantEMA(EMA):
    """Exponential average with a constant factor per step.

    Args:
        decay: beta, in [0, 1).
        warmup: Whether ``beta = min(decay, (1 + n) / (10 + n))`` in step n = 1, 2, ..

    Raises:
        ValueError: decay is out of range.

    Source: Song et al., 2021, arXiv 2011.13456, and Liu et al., 2022, arXiv 2209.03003, both in
    their models/ema.py, which counts an update before it computes beta.
    """

    def __init__(self, *, decay: float, warmup: bool = False) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is {decay}; allowed: [0, 1)")
        self.decay = decay
        self.warmup = warmup

    def beta(self, images_seen_before: int, batch_size: int) -> float:
        """See :meth:`EMA.beta`."""
        if not self.warmup:
            return self.decay
        n = images_seen_before / batch_size + 1.0
        return min(self.decay, (1.0 + n) / (10.0 + n))


class CurriculumEMA(EMA):
    """EMA whose decay follows a curriculum: ``beta = start^(s0 / (N - 1))`` per step.

    N is the number of noise levels of the grid, s0 the curriculum's ``start``. It is the target
    network of consistency training.

    Args:
        curriculum: The curriculum of the time distribution.
        start: Decay while N - 1 = s0, in (0, 1).

    Raises:
        ValueError: start is out of range.

    Source: Song et al., Consistency models, 2023, arXiv 2303.01469, appendix C (0.9 on CIFAR-10,
    0.95 on ImageNet-64).
    """

    def __init__(self, *, curriculum: Curriculum, start: float = 0.9) -> None:
        if not 0.0 < start < 1.0:
            raise ValueError(f"start is {start}; allowed: (0, 1)")
        self.curriculum = curriculum
        self.start = start

    def beta(self, images_seen_before: int, batch_size: int) -> float:
        """See :meth:`EMA.beta`."""
        steps = self.curriculum.points(images_seen_before) - 1
        return math.exp(math.log(self.start) * self.curriculum.start / steps)


class EMAWeights(Callback):
    """Averages of the network's parameters, several at once, updated after every step.

    Only parameters are averaged; buffers (counters, fixed frequencies) are the network's own.
    """

    def __init__(self, emas: Mapping[str, EMA]) -> None:
        self.emas = dict(emas)
        self._names: list[str] = []
        self._live: list[Tensor] = []
        self._averages: dict[str, list[Tensor]] = {}

    def start(self, network: nn.Module) -> None:
        """Begin with the network's weights; it must be on its device already."""
        named = dict(network.named_parameters())
        self._names = list(named)
        self._live = [parameter.detach() for parameter in named.values()]
        self._averages = {name: [p.clone() for p in self._live] for name in self.emas}

    def on_fit_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        self.start(pl_module.network)

    def on_train_batch_end(self, trainer: Trainer, pl_module: "FlowModule", *_: object) -> None:
        batch_size = pl_module.settings.batch_size
        self.update(images_seen_before=pl_module.images - batch_size, batch_size=batch_size)

    def update(self, *, images_seen_before: int, batch_size: int) -> None:
        """Move every average towards the weights after one step."""
        for name, ema in self.emas.items():
            weight = 1.0 - ema.beta(images_seen_before, batch_size)
            torch._foreach_lerp_(self._averages[name], self._live, weight)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The averages by name, each by the names of the parameters."""
        return {
            name: dict(zip(self._names, tensors, strict=True))
            for name, tensors in self._averages.items()
        }

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Replace the averages by stored ones.

        Raises:
            KeyError: An average or a parameter is missing.
        """
        for name, tensors in self._averages.items():
            torch._foreach_copy_(tensors, [state[name][key] for key in self._names])

    def network(self, name: str, network: nn.Module) -> nn.Module:
        """A copy of the network whose parameters share the memory of the average ``name``.

        It follows every update of the average. It has no gradient; its buffers are copies.

        Raises:
            KeyError: There is no such average.
        """
        average = copy.deepcopy(network)
        average._compiled_call_impl = None  # it would call the other network
        for parameter, values in zip(average.parameters(), self._averages[name], strict=True):
            parameter.data = values
        return average.requires_grad_(False)

    @contextmanager
    def applied(self, name: str) -> Iterator[None]:
        """The network with the weights of average ``name`` while the context lasts.

        Raises:
            KeyError: There is no such average.
        """
        average = self._averages[name]
        kept = [parameter.clone() for parameter in self._live]
        torch._foreach_copy_(self._live, average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._live, kept)
