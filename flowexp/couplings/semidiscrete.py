"""Semidiscrete optimal transport: every source draw chooses its item of the whole data set."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowexp.couplings.base import Coupling, Items, Pairs
from flowexp.couplings.transport import within_classes
from flowexp.errors import UsageError
from flowexp.files import write_json, write_npz
from flowexp.locks import locked
from flowexp.parameterizations import Conditions
from flowexp.paths import Source
from flowexp.progress import Task, counted
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.seeding import generator

__all__ = ["Potential", "SemidiscreteOT", "best_items", "fit_potential", "marginal_error"]

_ITEMS_AT_ONCE = 4096
_DRAWS_AT_ONCE = 1000
_DECAY = 0.5
_MEASURED = 32
_CHECKED = 20
_COARSE = 8
_SMALLEST = 64
_EXTENDED = 2
_SMOOTHING = 0.9


def best_items(e: Tensor, items: Items, rows: Tensor, offsets: Tensor, *, k: int = 1) -> Any:  # noqa: ANN401
    """The k largest ``2 <e, x_j> + offsets_j`` of each draw: values and positions in ``rows``.

    ``e`` (B, ...) is float32, ``rows`` (n,) int64 are positions of items, ``offsets`` (n,) float32,
    on the device of e. Both results are (B, k), the largest first.
    """
    flat = e.flatten(1)
    found: tuple[Tensor, Tensor] | None = None
    for start in range(0, len(rows), _ITEMS_AT_ONCE):
        part = slice(start, start + _ITEMS_AT_ONCE)
        data = items.data(rows[part]).flatten(1).to(flat)
        scores = torch.addmm(offsets[part], flat, data.T, alpha=2.0)
        values, index = _largest(scores, k)
        index = index + start
        if found is not None:
            values = torch.cat([found[0], values], dim=1)
            index = torch.cat([found[1], index], dim=1)
            values, order = _largest(values, k)
            index = index.gather(1, order)
        found = values, index
    assert found is not None
    return found


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if k == 1:  # much faster than topk
        return scores.max(dim=1, keepdim=True)
    return scores.topk(min(k, scores.shape[1]), dim=1)


def fit_potential(
    draw: Callable[[int, int], Tensor],
    items: Items,
    rows: Tensor,
    *,
    draws: int,
    device: torch.device,
    task: Task | None = None,
) -> Tensor:
    """Offsets ``h_j = g_j - |x_j|^2``, (n,) float32, that maximise the semi-dual.

    ``E_e min_j (|e - x_j|^2 - g_j) + mean_j g_j`` has the gradient ``1/n - P(j is the minimum)``.
    Stochastic ascent with steps that fall like ``s (1 + t/n)^-0.5`` after t draws, s the mean gap
    between the best and the second best item, the scale on which an offset matters; the result is
    the mean of all iterates with weights that grow like ``t^2`` (Polyak-Ruppert). Many items start
    from the result for an eighth of them. ``draw(number, count)`` gives source draws, (count, ...).

    Source: Genevay et al., Stochastic Optimization for Large-scale Optimal Transport, 2016, arXiv
    1605.08527, algorithm 2.
    """
    n = len(rows)
    offsets = torch.zeros(n, device=device)
    if n == 1:
        return offsets
    if n >= 2 * _COARSE * _SMALLEST:
        offsets = _from_coarse(draw, items, rows, draws=draws, device=device)
    mean, total, gap, done, number = offsets.clone(), 0.0, None, 0, 0
    while done < draws:
        count = min(_DRAWS_AT_ONCE, draws - done, max(16, n // 8))
        e = draw(number, count)
        first, second = best_items(e[:_MEASURED], items, rows, offsets, k=2)[0].unbind(1)
        apart = (first - second).mean()
        gap = apart if gap is None else _SMOOTHING * gap + (1.0 - _SMOOTHING) * apart
        step = gap * (1.0 + done / n) ** -_DECAY
        winners = best_items(e, items, rows, offsets)[1][:, 0]
        won = torch.bincount(winners, minlength=n).to(offsets)
        offsets = offsets - step * (won - count / n)
        done, number = done + count, number + 1
        weight = count * (done / draws) ** 2
        total += weight
        mean = mean + (offsets - mean) * (weight / total)
        if task is not None:
            task.advance(count)
    return mean


def _from_coarse(
    draw: Callable[[int, int], Tensor],
    items: Items,
    rows: Tensor,
    *,
    draws: int,
    device: torch.device,
) -> Tensor:
    """Offsets to start from: those of every eighth item, extended to all by the c-transform.

    ``h_j = min_e (max_i (2 <e, x_i> + h_i) - 2 <e, x_j>)`` over some draws: every item wins one.
    """
    part = rows[::_COARSE]
    share = math.ceil(draws / _COARSE)
    known = fit_potential(draw, items, part, draws=share, device=device)
    extended = torch.full((len(rows),), torch.inf, device=device)
    for number in range(math.ceil(_EXTENDED * len(rows) / _DRAWS_AT_ONCE)):
        e = draw(number, _DRAWS_AT_ONCE)
        best = best_items(e, items, part, known)[0][:, 0]
        for start in range(0, len(rows), _ITEMS_AT_ONCE):
            piece = slice(start, start + _ITEMS_AT_ONCE)
            data = items.data(rows[piece]).flatten(1).to(e)
            least = (best - 2.0 * data @ e.flatten(1).T).amin(dim=1)
            extended[piece] = torch.minimum(extended[piece], least)
    return extended


def marginal_error(won: Tensor) -> float:
    """``n sum_j (p_j - 1/n)^2`` from how many draws each of n items has won, (n,); unbiased.

    It is the chi-square distance of the items' shares p from uniform ones: 0.01 means that shares
    differ from 1/n by 10 % (root mean square). It may be slightly negative.
    """
    won = won.to(torch.float64)
    draws = won.sum()
    return float(len(won) * (won * (won - 1.0)).sum() / (draws * (draws - 1.0)) - 1.0)


@dataclass(frozen=True)
class Potential:
    """A fitted potential and what is known of it.

    Attributes:
        offsets: ``g_j - |x_j|^2`` by item, (n,), float32.
        record: Its identity, and what was measured when it was made.
    """

    offsets: Tensor
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _Prepared:
    items: Items
    groups: list[Tensor]
    potential: Potential

    def __deepcopy__(self, memo: object) -> "_Prepared":
        return self  # nothing here changes


class SemidiscreteOT(Coupling):
    """Optimal transport from the source to the whole data set: e goes to ``argmin |e-x|^2 - g(x)``.

    Minibatch plans are biased towards the independent coupling; this is the plan itself, and costs
    one product of the batch with the data a step. Its potential g, one number per item, is learned
    once per data set and source, on first use, and stored. Every e of a batch chooses its x, with
    its label; the order of the data plays no part. Mirrored images are items of their own.

    Args:
        directory: Folder of stored potentials; each is in a folder named by data, source and
            arguments.
        draws_per_item: Source draws, per item, by which g is learned, > 0. The error of the items'
            shares falls with it, see :func:`marginal_error`, which is stored and recorded.
        per_class: A potential per class, and a choice among the items of the class: for
            class-conditional networks.
        seed: Seed of the draws.

    Source: Genevay et al., 2016, arXiv 1605.08527 (the semi-dual and its stochastic ascent);
    Mousavi-Hosseini et al., Flow Matching with Semidiscrete Couplings, 2025, arXiv 2509.25519 (its
    use in flow matching). Step sizes are ours.
    """

    chooses_items = True
    keeps_rows = False

    def __init__(
        self,
        *,
        directory: str,
        draws_per_item: float = 100.0,
        per_class: bool = False,
        seed: int = 0,
    ) -> None:
        if not draws_per_item > 0.0:
            raise ValueError(f"draws_per_item is {draws_per_item}; expected a positive number")
        self.directory = FilePath(directory)
        self.draws_per_item = float(draws_per_item)
        self.per_class = per_class
        self.seed = int(seed)
        self._prepared: _Prepared | None = None

    @property
    def scope(self) -> str:
        """The whole data set."""
        return "the whole data set"

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images as they were stored, labels for pairs within classes, and no captions."""
        name = type(self).__name__
        yield from all_of(
            super().needs(parts),
            within_classes(parts, name=name, per_class=self.per_class),
            self._captions(parts),
        )

    def _captions(self, parts: Parts) -> Iterator[Unmet]:
        if parts.network.takes_tokens and not self.per_class:
            problem = f"{type(self).__name__} chooses images, but cannot choose their captions."
            yield Unmet(".per_class", problem, "Use another coupling.")

    def prepare(
        self, items: Items, source: Source, *, source_identity: str, device: torch.device
    ) -> None:
        """Read the potential of this data and source, or learn and store it.

        Raises:
            UsageError: The stored one is of other data, or labels are missing or no classes.
        """
        if self._prepared is not None and self._prepared.items.fingerprint == items.fingerprint:
            return
        groups = self._groups(items)
        identity = self._identity(items, source_identity)
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        folder = self.directory / digest[:16]
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            potential = _stored(folder, identity)
            if potential is None:
                potential = self._learned(items, groups, source, identity, device=device)
                offsets = potential.offsets.numpy()
                write_npz(folder / "potential.npz", {"offsets": offsets})
                write_json(folder / "potential.json", potential.record)
        self._prepared = _Prepared(items, groups, potential)

    def _identity(self, items: Items, source_identity: str) -> dict[str, Any]:
        return {
            "data": items.fingerprint,
            "items": len(items),
            "source": source_identity,
            "draws_per_item": self.draws_per_item,
            "per_class": self.per_class,
            "seed": self.seed,
        }

    def _groups(self, items: Items) -> list[Tensor]:
        """The positions of the items among which a choice is made: of each class, or of all."""
        if not self.per_class:
            return [torch.arange(len(items))]
        labels = items.labels
        if labels is None or labels.ndim != 1:
            problem = "per_class is true, but the data have no class numbers."
            remedy = "Set coupling.per_class=false."
            raise UsageError(problem, key="coupling.per_class", remedy=remedy)
        return [torch.nonzero(labels == k).flatten() for k in range(int(labels.max()) + 1)]

    def _learned(
        self,
        items: Items,
        groups: list[Tensor],
        source: Source,
        identity: Mapping[str, Any],
        *,
        device: torch.device,
    ) -> Potential:
        started = time.perf_counter()
        shape = items.data(torch.zeros(1, dtype=torch.int64)).shape[1:]
        offsets, won = torch.zeros(len(items)), torch.zeros(len(items))
        sizes = [round(self.draws_per_item * len(rows)) for rows in groups]
        checked = [max(1000, size // _CHECKED) if size else 0 for size in sizes]
        title = "learned the semidiscrete transport:"
        with counted(title, total=sum(sizes) + sum(checked), unit="draws") as task:
            for k, rows in enumerate(groups):

                def draw(number: int, count: int, stream: str = f"semidiscrete {k}") -> Tensor:
                    rng = generator(self.seed, stream, number, device=device)
                    return source.sample((count, *shape), rng=rng)

                if len(rows) == 0:
                    continue
                rows = rows.to(device)
                found = fit_potential(draw, items, rows, draws=sizes[k], device=device, task=task)
                wins = torch.zeros(len(rows), device=device)
                for number, start in enumerate(range(0, checked[k], _DRAWS_AT_ONCE)):
                    count = min(_DRAWS_AT_ONCE, checked[k] - start)
                    e = draw(number, count, f"semidiscrete check {k}")
                    index = best_items(e, items, rows, found)[1][:, 0]
                    wins += torch.bincount(index, minlength=len(rows))
                    task.advance(count)
                offsets[rows.cpu()], won[rows.cpu()] = found.cpu(), wins.cpu()
        errors = [marginal_error(won[rows]) for rows in groups if len(rows) > 1]
        return Potential(
            offsets,
            {
                "identity": dict(identity),
                "marginal_error": max(errors, default=0.0),
                "seconds": round(time.perf_counter() - started, 1),
            },
        )

    def record(self) -> dict[str, Any]:
        found = {} if self._prepared is None else dict(self._prepared.potential.record)
        return {**super().record(), **({"potential": found} if found else {})}

    def pair(
        self, x: Tensor, e: Tensor, conditions: Conditions, *, rng: torch.Generator, **_: object
    ) -> Pairs:
        """Every e, in its order, with the item that it chooses and the item's label.

        Within classes, row i chooses among the items of its own class, and conditions stay.

        Raises:
            ValueError: :meth:`prepare` was not called.
            UsageError: There are conditions besides class numbers that an item would need.
        """
        ready = self._prepared
        if ready is None:
            raise ValueError("SemidiscreteOT has no potential yet; call prepare")
        items, offsets = ready.items, ready.potential.offsets.to(e.device)
        chosen = torch.empty(len(e), dtype=torch.int64, device=e.device)
        for own, rows in self._choices(ready.groups, conditions, len(e)):
            rows, own = rows.to(e.device), own.to(e.device)
            chosen[own] = rows[best_items(e[own], items, rows, offsets[rows])[1][:, 0]]
        data = items.data(chosen).to(device=x.device, dtype=x.dtype)
        moved = conditions if self.per_class else _conditions_of(items, chosen, conditions)
        return Pairs(x=data, e=e, conditions=moved)

    def _choices(
        self, groups: list[Tensor], conditions: Conditions, count: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of the batch, and the items among which they choose."""
        if not self.per_class:
            yield torch.arange(count), groups[0]
            return
        labels = conditions.get("labels")
        if labels is None or labels.ndim != 1:
            raise ValueError("per_class is true, but the batch has no class numbers")
        for k in torch.unique(labels).tolist():
            yield torch.nonzero(labels == k).flatten(), groups[k]


def _conditions_of(items: Items, chosen: Tensor, given: Conditions) -> Conditions:
    """The conditions of chosen items, where these have the ones that were given."""
    moved = dict(given)
    for name, own in given.items():
        if own is None:
            continue
        if name != "labels" or items.labels is None or own.shape[1:] != items.labels.shape[1:]:
            problem = f"SemidiscreteOT chooses images, but does not know their {name}."
            remedy = "Use coupling=minibatch_ot."
            raise UsageError(problem, key="coupling", remedy=remedy)
        moved[name] = items.labels[chosen.to(items.labels.device)].to(own)
    return moved


def _stored(folder: FilePath, identity: Mapping[str, Any]) -> Potential | None:
    """The potential in a folder, or None; a ``UsageError`` if it is of something else."""
    manifest = folder / "potential.json"
    if not manifest.is_file():
        return None
    record = json.loads(manifest.read_text(encoding="utf-8"))
    if record.get("identity") != dict(identity):
        raise UsageError(
            f"the potential in {folder} belongs to other data or another source.",
            key="coupling.directory",
            remedy=f"Delete {folder}, or choose another coupling.directory.",
        )
    with np.load(folder / "potential.npz") as stored:
        return Potential(torch.from_numpy(stored["offsets"]), record)
