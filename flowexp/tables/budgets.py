"""Budgets: the same recipe with less data, network and time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowexp.errors import UsageError
from flowexp.tree import leaves

__all__ = ["Budget"]

# The length is scaled on its own; all other spans are scaled with it.
_LENGTH = "trainer.max_kimg"
_BETWEEN_SNAPSHOTS = "trainer.snapshot_kimg"
_BETWEEN_CHECKPOINTS = 0.1
# As in EDM's ramp-up: the half-life is at most a twentieth of the images seen.
_HALF_LIFE = 0.05


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How recipes are made affordable, for all tables; see ``conf/budget``.

    Args:
        name: Option of the group ``budget``.
        seeds: Training seeds; every training runs once for each.
        kimg_factor: Share of a training's own length.
        max_kimg: Most thousands of images of a training; None = no limit. Everything else that is
            measured in kimg keeps its share of the length; half-lives of averages are at most a
            twentieth of it.
        num_samples: Samples of an evaluation; None = as published.
        repeats: Disjoint ranges of seeds an evaluation takes; None = as published.
        selection: Which weights of a training are scored, an option of the group ``selection``;
            None = as published. With ``last`` trainings keep no snapshots.
        max_pairs: Most pairs of a pair set; None = no limit.
        metric: Metric of the publication -> the metric measured in its place.
        train: Overrides of every training.
        eval: Overrides of every evaluation.
        when: ``group=option|option`` -> overrides of trainings that chose one of the options;
            taken in order, so that later entries see what earlier ones chose.

    Raises:
        UsageError: A value is out of range.
    """

    name: str
    seeds: Sequence[int] = (0,)
    kimg_factor: float = 1.0
    max_kimg: float | None = None
    num_samples: int | None = None
    repeats: int | None = None
    selection: str | None = None
    max_pairs: int | None = None
    metric: Mapping[str, str] = field(default_factory=dict)
    train: Sequence[str] = ()
    eval: Sequence[str] = ()
    when: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UsageError("there is no seed.", key="budget.seeds", remedy="Give one: [0].")
        for name in ("kimg_factor", "max_kimg", "num_samples", "repeats", "max_pairs"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(
                    f"{value} is not positive.", key=f"budget.{name}", remedy="Or give null."
                )

    def of_training(self, choices: Mapping[str, str], config: Mapping[str, Any]) -> tuple[str, ...]:
        """Overrides, to follow its own, that make a training of these options affordable."""
        chosen = dict(choices)
        overrides: list[str] = []
        for condition, wanted in (("", self.train), *self.when.items()):
            group, _, options = condition.partition("=")
            if condition and chosen.get(group) not in options.split("|"):
                continue
            overrides += wanted
            for text in wanted:
                selected, _, option = text.partition("=")
                if selected.strip() in chosen:
                    chosen[selected.strip()] = option
        return (*overrides, *self._lengths(config), *self._snapshots(config))

    def pairs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Overrides that make a pair set affordable."""
        num = config.get("num")
        if self.max_pairs is None or not isinstance(num, int) or num <= self.max_pairs:
            return ()
        return (f"num={self.max_pairs}",)

    def _snapshots(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """None, where nothing will select from them."""
        kept = (config.get("trainer") or {}).get("snapshot_kimg") is not None
        return (f"{_BETWEEN_SNAPSHOTS}=null",) if kept and self.selection == "last" else ()

    def _lengths(self, config: Mapping[str, Any]) -> Iterator[str]:
        """The length, and with it everything else that is counted in kimg."""
        length = float((config.get("trainer") or {}).get("max_kimg") or 0.0)
        wanted = min(length * self.kimg_factor, self.max_kimg or math.inf)
        if length <= 0.0 or wanted >= length:
            return
        yield f"{_LENGTH}={wanted!r}"
        for key, value in leaves(config):
            if key == _LENGTH or (key == _BETWEEN_SNAPSHOTS and self.selection == "last"):
                continue
            if key.endswith("_kimg") and isinstance(value, int | float):
                yield f"{key}={_shortened(key, float(value), length=length, wanted=wanted)!r}"


def _shortened(key: str, value: float, *, length: float, wanted: float) -> float:
    """A span of a training of ``length`` kimg in one of ``wanted`` kimg."""
    if key.endswith("half_life_kimg"):
        # In proportion, averages of short trainings would be shorter than a batch.
        return min(value, _HALF_LIFE * wanted)
    if key == "trainer.checkpoint_kimg":
        return min(value, _BETWEEN_CHECKPOINTS * wanted)
    return value * wanted / length
