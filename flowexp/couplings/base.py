"""The protocol of couplings: which source draw goes with which data point."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from flowexp.parameterizations import Conditions, rows_of
from flowexp.paths import Source
from flowexp.requirements import Part, Parts, Unmet, all_of, on_gaussian_noise

__all__ = ["BatchCoupling", "Coupling", "Items", "Pairs", "Independent", "WholeBatch"]


@dataclass(frozen=True)
class WholeBatch:
    """What all rows of a step's batch, over all devices, have drawn.

    Attributes:
        t: Times, (N,) or (N, k), float64.
        uniforms: Uniform numbers for the objective, (N, k), float64, or None.
    """

    t: Tensor
    uniforms: Tensor | None


@dataclass(frozen=True)
class Pairs:
    """A batch of coupled pairs.

    Attributes:
        x: Data, (B, ...).
        e: Source, (B, ...).
        conditions: Conditions of the rows of x.
        weight: Loss weight of each pair, (B,), or None for 1.
        t: Times of the pairs, (B,), float64, where the coupling sets them; None = the timestep
            distribution draws them.
        images_seen: Training images before this batch, over all devices.
        uniforms: Uniform numbers in (0, 1) for the objective, (B, k), float64, which do not depend
            on the number of devices or micro-batches; None = the objective draws its own.
        whole: The batch of which these pairs are a part; None = they are a whole batch.
        positions: Positions of the pairs in ``whole``, (B,), int64; None without it.
        metrics: Scalars that describe the coupled batch, to be logged; detached, by name.
    """

    x: Tensor
    e: Tensor
    conditions: Conditions
    weight: Tensor | None = None
    t: Tensor | None = None
    images_seen: int = 0
    uniforms: Tensor | None = None
    whole: WholeBatch | None = None
    positions: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(self, rows: Tensor | slice) -> "Pairs":
        """Some of the pairs, with what belongs to them."""
        weight, t, uniforms, positions = (
            None if column is None else column[rows]
            for column in (self.weight, self.t, self.uniforms, self.positions)
        )
        return replace(
            self,
            x=self.x[rows],
            e=self.e[rows],
            conditions=rows_of(self.conditions, rows),
            weight=weight,
            t=t,
            uniforms=uniforms,
            positions=positions,
        )

    def with_uniforms(self, start: int, count: int) -> "Pairs":
        """The same pairs with ``count`` columns of ``uniforms`` from ``start`` on."""
        if self.uniforms is None:
            return self
        columns, whole = slice(start, start + count), self.whole
        if whole is not None and whole.uniforms is not None:
            whole = replace(whole, uniforms=whole.uniforms[:, columns])
        return replace(self, uniforms=self.uniforms[:, columns], whole=whole)


class Items(Protocol):
    """The items of a training's data, for a coupling that chooses among them."""

    @property
    def fingerprint(self) -> str:
        """Digest of their content."""

    @property
    def labels(self) -> Tensor | None:
        """Their labels, (n, ...), or None."""

    def __len__(self) -> int: ...

    def data(self, rows: Tensor) -> Tensor:
        """The data x of the items at ``rows``, (k, ...), float32, on the device of ``rows``."""


class Coupling(Part, ABC):
    """The joint distribution of (x, e) within a batch.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.

    Attributes:
        needs_partner: Whether it couples x to the source draw stored with it, so that the data must
            be pairs.
        needs_gaussian: Whether it adds draws of e, which is right for a Gaussian source only.
        gives_times: Whether it has images and times of its own, so that it uses neither those of
            the data nor the timestep distribution's.
        chooses_items: Whether it chooses x among all items of the data, instead of using those of
            the batch, and so has to be prepared.
        across_devices: Whether ``pair`` is given the batch of all devices, not one's share.
        scope: What the pairs of a step are chosen among.
        keeps_rows: Whether row i of the pairs has the image, and the time, of row i of the batch.
    """

    needs_partner: bool = False
    needs_gaussian: bool = False
    gives_times: bool = False
    keeps_rows: bool = True
    chooses_items: bool = False
    across_devices: bool = False

    def prepare(
        self, items: Items, source: Source, *, source_identity: str, device: torch.device
    ) -> None:
        """Do once, before a training, what depends on all its data; by default nothing.

        ``source_identity`` tells sources apart, ``device`` is where long computations may run.
        Called again with the same data it returns at once.
        """

    def record(self) -> dict[str, Any]:
        """What the manifest of a run tells of the coupling."""
        return {"within": self.scope}

    @property
    def scope(self) -> str:
        """Each pair stands alone, unless the coupling looks at its batch."""
        return "single pairs"

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A Gaussian source, stored pairs, and images as they were stored."""
        yield from all_of(
            self._gaussian_draws(parts), self._stored_draws(parts), self._unchanged_images(parts)
        )

    def _gaussian_draws(self, parts: Parts) -> Iterator[Unmet]:
        if self.needs_gaussian:
            what = f"{type(self).__name__} adds fresh noise to stored noise, which assumes"
            yield from on_gaussian_noise(parts, what=what, remedy="Use coupling=pairs")

    def _stored_draws(self, parts: Parts) -> Iterator[Unmet]:
        name = type(self).__name__
        if not self.needs_partner:
            if parts.pairs is not None:
                problem = f"the noise stored there is not used by {name}."
                yield Unmet("pairs", problem, "Set coupling=pairs, or leave pairs out.")
        elif parts.pairs is None and not parts.dataset.has_partners:
            remedy = "Make some with flowexp pairs run=DIR, then set pairs=DIR/pairs."
            yield Unmet("pairs", f"{name} needs noise-data pairs, but none are given.", remedy)

    def _unchanged_images(self, parts: Parts) -> Iterator[Unmet]:
        own = self.gives_times or self.chooses_items
        if not (self.needs_partner or own) or not parts.augmentation.changes_images:
            return
        changing, name = type(parts.augmentation).__name__, type(self).__name__
        if self.needs_partner:
            problem = f"{changing} changes images, but not the noise that {name} couples them to."
            yield Unmet("augmentation", problem, "Use augmentation=none; dataset.hflip flips both.")
        else:
            problem = f"{changing} changes images that {name} does not use."
            yield Unmet("augmentation", problem, "Use augmentation=none.")

    @abstractmethod
    def pair(
        self,
        x: Tensor,
        e: Tensor,
        conditions: Conditions,
        *,
        rng: torch.Generator,
        partner: Tensor | None = None,
        images_seen: int = 0,
    ) -> Pairs:
        """Couple data x (B, ...) and independent source draws e (B, ...).

        Conditions are reordered with the rows of x. ``partner`` is the source draw stored with each
        row of x, (B, ...), ``images_seen`` what training has seen before, over all devices.

        Raises:
            ValueError: Partners or labels are needed but missing, or the shapes differ.
        """


class Independent(Coupling):
    """Each x with an independent e: the batch unchanged."""

    def pair(self, x: Tensor, e: Tensor, conditions: Conditions, **_: object) -> Pairs:
        return Pairs(x=x, e=e, conditions=conditions)


class BatchCoupling(Coupling):
    """A coupling that depends on the batch as a whole.

    Args:
        across_devices: Couple the batch of all devices: every one gathers it, finds the same pairs
            and trains on its share, so that the result does not depend on their number. Otherwise
            each couples its own share, and more devices at the same batch size mean smaller plans.
    """

    later_options: ClassVar[Mapping[str, object]] = {"across_devices": False}

    def __init__(self, *, across_devices: bool = False) -> None:
        self.across_devices = across_devices

    @property
    def scope(self) -> str:
        return "the batch of all devices" if self.across_devices else "the share of one device"
