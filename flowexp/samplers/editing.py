"""Editing: invert a sample under one condition, and sample it again under another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from flowexp.models import Model, WrappedModel
from flowexp.networks.attention_features import SharedValues
from flowexp.paths import Prediction
from flowexp.samplers.base import ROUNDING
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.samplers.inversion import Inversion

__all__ = ["Edited", "Editing", "FeatureKey"]

Conditions = Mapping[str, Tensor | None]


@dataclass(frozen=True)
class FeatureKey:
    """The call ``stage`` in the interval with the later time ``upper``, in both directions."""

    upper: float
    stage: int


@dataclass(frozen=True)
class Edited:
    """The result of an edit.

    Attributes:
        x: The edited samples, (B, ...).
        e: The source draws that the inversion found, (B, ...).
        nfe: Network evaluations per sample, (B,), int64, of inversion and sampling together.
        shared: The calls whose attention values were shared, in the order of sampling.
    """

    x: Tensor
    e: Tensor
    nfe: Tensor
    shared: tuple[FeatureKey, ...]


class Editing:
    """RF-Edit: inversion, then sampling whose first steps take its attention values.

    The first ``inject`` steps of sampling, at the noisy end, take the values V of the network's
    attention layers from the same calls (interval and stage) of the inversion, where the data are
    described by the source conditions. The longer values are shared, the more of the structure of
    the data is kept. A call that the inversion did not make receives nothing.

    Args:
        sampler: Invertible, of fixed steps; walked both ways on the same times.
        inject: Number of sampling steps that receive values, 0 to the sampler's steps.
        first_layer: Number of the first attention layer that shares, >= 0.
        store: Device that keeps the values, e.g. ``cpu``; None = where they were computed.

    Source: Wang et al., Taming Rectified Flow for Inversion and Editing, 2024, arXiv 2411.04746,
    section 3.3. The published settings share 2 to 8 steps, in the later half of the layers, and
    sample with stronger guidance than they invert with.
    """

    def __init__(
        self,
        sampler: FixedStepSampler,
        *,
        inject: int,
        first_layer: int = 0,
        store: str | None = None,
    ) -> None:
        if not 0 <= inject <= sampler.steps:
            raise ValueError(f"inject is {inject}; expected 0 to the sampler's {sampler.steps}")
        if first_layer < 0:
            raise ValueError(f"first_layer is {first_layer}; expected a number >= 0")
        self.sampler = sampler
        self.inject = inject
        self.first_layer = first_layer
        self.store = store
        self.inversion = Inversion(sampler)

    def edit(
        self,
        source: Model,
        target: Model,
        x: Tensor,
        *,
        network: nn.Module,
        source_conditions: Conditions,
        target_conditions: Conditions,
    ) -> Edited:
        """Edited samples.

        Args:
            source: The model that inverts, usually without guidance.
            target: The model that samples, usually guided; it has the same network.
            x: Data, (B, ...).
            network: The network behind both models, whose attention layers share.
            source_conditions: Description of the data, e.g. their labels.
            target_conditions: Description of the edited samples.

        Raises:
            ValueError: The network has no attention layer to share, or the models do not fit the
                sampler.
        """
        values = None
        if self.inject:
            values = SharedValues(network, first_layer=self.first_layer, device=self.store)
        # The later times of the inversion's intervals, decreasing.
        low, _ = source.time_range
        times = self.sampler.times(source).tolist()
        uppers = [t for t in times[:-1] if t > low * (1.0 + ROUNDING)]
        sharing = [upper if i < self.inject else None for i, upper in enumerate(uppers)]
        rising = _SharingModel(source, sharing[::-1], values, record=True)
        inverted = self.inversion.invert(
            rising, x, noise=None, on_step=rising.entered, **source_conditions
        )
        falling = _SharingModel(target, sharing, values, record=False)
        sampled = self.sampler.sample(
            falling, inverted.x, noise=None, on_step=falling.entered, **target_conditions
        )
        nfe = inverted.nfe + sampled.nfe
        return Edited(sampled.x, inverted.x, nfe, tuple(falling.shared))


class _SharingModel(WrappedModel):
    """A model that shares attention values in those steps of a walk whose upper times are given.

    It counts the stages of its calls in a step; the sampler calls :meth:`entered` before each step.
    """

    def __init__(
        self,
        model: Model,
        uppers: Sequence[float | None],
        values: SharedValues | None,
        *,
        record: bool,
    ) -> None:
        super().__init__(model)
        self.shared: list[FeatureKey] = []
        self._uppers = iter(uppers)
        self._upper: float | None = None
        self._stage = 0
        self._values, self._record = values, record

    def entered(self, t: Tensor, x: Tensor) -> None:
        """A step begins (after the last one, none)."""
        # Below the inversion's first time there is a step of sampling only, which shares nothing.
        self._upper = next(self._uppers, None)
        self._stage = 0

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        """One call, with its attention values recorded or replaced where they are shared."""
        key = None if self._upper is None else FeatureKey(self._upper, self._stage)
        self._stage += 1
        values = self._values
        if values is None or key is None or not (self._record or key in values.keys):
            return self.model.predict(x_t, t, **conditions)
        self.shared.append(key)
        with values.recorded(key) if self._record else values.replaced(key):
            return self.model.predict(x_t, t, **conditions)
