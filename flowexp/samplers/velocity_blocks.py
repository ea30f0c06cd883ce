"""Heun steps that reuse a velocity, and steps in which a small network corrects it."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise, repeat
from typing import NamedTuple

import torch
from torch import Tensor

from flowexp.models import Evaluation, Model
from flowexp.samplers.base import CountedModel, TimeGrid
from flowexp.samplers.field import Field, Interval, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["VelocityBlocks", "parse_blocks"]

Velocity = Callable[[Tensor], Tensor]
Refined = Callable[[Tensor, Tensor], Tensor]
Block = Callable[[Tensor, Tensor | None, "_Ends"], tuple[Tensor, Tensor]]
Graph = Callable[..., tuple[Tensor, Tensor]]


def parse_blocks(text: str) -> str:
    """One letter per step, in any order: ``H1P2R1`` is ``HPPR``; other text is a ValueError."""
    pieces = re.findall(r"([HPR])(\d+)", text)
    letters = "".join(letter * int(count) for letter, count in pieces)
    if "".join(letter + count for letter, count in pieces) != text or not letters:
        raise ValueError(
            f"blocks is {text!r}; expected letters H, P, R with numbers of steps, such as H1P5R3"
        )
    return letters


class _Ends(NamedTuple):
    """Velocities at the ends of a step (the model's, the refiner's) and the step's length."""

    start: Velocity
    end: Velocity
    refined: tuple[Refined, Refined] | None
    h: float | Tensor


class VelocityBlocks(FixedStepSampler):
    """Heun steps (H), pseudo-corrector steps (P) and refiner steps (R), in any order.

    Each block returns the state and a velocity c:

    - H, two model calls: ``d = v(x, t)``, ``d' = v(x + h d, t')``, ``x + h (d + d')/2``, c = d'.
    - P, one call: as H with ``d = c`` (a call where there is no c yet).
    - R, no model call, two of the refiner r: ``d = c + r(x, c, t)``, ``y = x + h d``,
      ``d' = d + r(y, d, t')``, ``x + h (d + d')/2``, c = d'. With ``stale_refinement`` the second
      call is given c instead of d, and d is passed on.

    A step that reaches t = 0 with a model that is not defined there is Euler's, with the first
    velocity of its block; with ``final_euler`` it is for every model. At t = 0, where no noise is
    left, a model of images predicts the velocity ``-x``; its average with the previous velocity
    would leave half of the last step's noise in the image.

    Args:
        blocks: Kinds and numbers of steps, such as ``H1P5R3``; their sum is the number of steps.
        refiner: Model whose :meth:`~flowexp.models.Model.predict` takes the condition ``velocity``
            and predicts the corrected one; needed for R.
        stale_refinement: The authors' assembled sampler instead of the paper's form.
        final_euler: Whether the step that reaches t = 0 is Euler's; None = only where it must be.
        compile_backend: torch.compile backend (``inductor``) of each kind of block, network and
            update in one graph, so that numbers and order of blocks stay free; None = not compiled.

    Source: Zhao et al., FlowTurbo, 2024, arXiv 2409.18128, section 3 and appendix B. The
    refiner step above is our reading of the paper, the newest velocity in and out; their repository
    has two versions of it, of which ``models_assemble.py``, used for the published numbers, is
    ``stale_refinement``.
    """

    def __init__(
        self,
        *,
        blocks: str,
        time_grid: TimeGrid,
        refiner: Model | None = None,
        stale_refinement: bool = False,
        final_euler: bool | None = None,
        compile_backend: str | None = None,
        double: bool = True,
    ) -> None:
        self.blocks = blocks
        self.kinds = parse_blocks(blocks)
        super().__init__(steps=len(self.kinds), time_grid=time_grid, double=double)
        if "R" in self.kinds and refiner is None:
            raise ValueError(f"blocks={blocks} has refiner steps, but refiner is null")
        self.refiner = refiner if "R" in self.kinds else None
        self.stale_refinement = stale_refinement
        self.final_euler = final_euler
        self.compile_backend = compile_backend
        self._graphs: tuple[Model, dict[str, Graph]] | None = None

    def check(self, model: Model) -> None:
        """Refuse what :meth:`FixedStepSampler.check` does, and a refiner of another path."""
        super().check(model)
        if self.refiner is not None and self.refiner.path.identity() != model.path.identity():
            raise ValueError(
                f"the refiner was trained on {self.refiner.path!r}, but the model's path is "
                f"{model.path!r}"
            )

    def describe(self) -> str:
        return f"{super().describe()}, blocks {self.blocks}"

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        counted = field.model
        refiner = None if self.refiner is None else counted.alongside(self.refiner)
        velocity: Tensor | None = None
        steps = self._steps(field, intervals, refiner)
        compiled = self._compiled(field, refiner)
        # An inversion may have a step fewer or more, without the last kind or with one more of it.
        kinds = self.kinds.ljust(len(intervals), self.kinds[-1])
        for kind, interval, step in zip(kinds, intervals, steps, strict=False):
            if interval.reaches_data and self.ends_in_euler(
                field, [interval.end], final_euler=self.final_euler
            ):
                z = z + interval.length * self._first_velocity(kind, z, velocity, step)
            elif compiled is None:
                z, velocity = self._block(kind)(z, velocity, step)
            else:
                z, velocity = compiled(kind, z, velocity, interval)
            yield z

    def _steps(self, field: Field, intervals: Intervals, refiner: Model | None) -> list[_Ends]:
        nodes = [intervals[0].start, *(interval.end for interval in intervals)]
        slopes = pairwise([partial(field.slope, node=node) for node in nodes])
        refined: Iterable[tuple[Refined, Refined] | None] = repeat(None)
        if refiner is not None:
            times = torch.stack([node.t for node in nodes])
            refined = pairwise([_refined(at, field.conditions) for at in refiner.at(times)])
        rows = zip(slopes, refined, intervals, strict=False)
        return [_Ends(*ends, both, interval.length) for ends, both, interval in rows]

    def _block(self, kind: str) -> Block:
        blocks: dict[str, Block] = {"H": _heun, "P": _pseudo_corrector, "R": self._refiner_block}
        return blocks[kind]

    def _first_velocity(self, kind: str, z: Tensor, velocity: Tensor | None, step: _Ends) -> Tensor:
        if kind == "H" or velocity is None:
            return step.start(z)
        if kind == "P" or step.refined is None:
            return velocity
        return step.refined[0](z, velocity)

    def _refiner_block(self, x: Tensor, c: Tensor | None, step: _Ends) -> tuple[Tensor, Tensor]:
        if step.refined is None:
            raise ValueError("a refiner block needs a refiner")
        at_start, at_end = step.refined
        if c is None:
            c = step.start(x)
        d = at_start(x, c)
        y = x + step.h * d
        second = d - c + at_end(y, c) if self.stale_refinement else at_end(y, d)
        return x + step.h * (0.5 * (d + second)), d if self.stale_refinement else second

    def _compiled(
        self, field: Field, refiner: Model | None
    ) -> Callable[[str, Tensor, Tensor | None, Interval], tuple[Tensor, Tensor]] | None:
        """One graph per kind of block, with times as tensors so that it works for every step."""
        backend = self.compile_backend
        if backend is None:
            return None
        counted = field.model
        model = counted.model if isinstance(counted, CountedModel) else counted
        if self._graphs is None or self._graphs[0] is not model:
            self._graphs = model, {}
        graphs = self._graphs[1]

        def run(
            kind: str, x: Tensor, c: Tensor | None, interval: Interval
        ) -> tuple[Tensor, Tensor]:
            if kind not in graphs:
                graphs[kind] = torch.compile(self._graph(kind, model, refiner), backend=backend)
            if isinstance(counted, CountedModel):
                counted.calls += {"H": 2, "P": 1, "R": 0}[kind] + (c is None and kind != "H")
            h = torch.tensor(interval.length, dtype=x.dtype, device=x.device)
            return graphs[kind](x, c, interval.start.t, interval.end.t, h, dict(field.conditions))

        return run

    def _graph(self, kind: str, model: Model, refiner: Model | None) -> Graph:
        block = self._block(kind)

        def graph(
            x: Tensor,
            c: Tensor | None,
            start: Tensor,
            end: Tensor,
            h: Tensor,
            conditions: dict[str, Tensor | None],
        ) -> tuple[Tensor, Tensor]:
            first, last = (_velocity_at(model, t, conditions) for t in (start, end))
            if refiner is None:
                return block(x, c, _Ends(first, last, None, h))
            refined = (
                _refined_at(refiner, start, conditions),
                _refined_at(refiner, end, conditions),
            )
            return block(x, c, _Ends(first, last, refined, h))

        return graph


# Closures of a graph are made here: annotations inside a compiled function would break it.
def _velocity_at(model: Model, t: Tensor, conditions: Mapping[str, Tensor | None]) -> Velocity:
    return lambda x: model.velocity(x, t, **conditions)


def _refined_at(refiner: Model, t: Tensor, conditions: Mapping[str, Tensor | None]) -> Refined:
    return lambda x, v: refiner.velocity(x, t, velocity=v, **conditions)


def _refined(evaluate: Evaluation, conditions: Mapping[str, Tensor | None]) -> Refined:
    return lambda z, v: evaluate(z, velocity=v, **conditions).velocity


def _heun(x: Tensor, c: Tensor | None, step: _Ends) -> tuple[Tensor, Tensor]:
    return _pseudo_corrector(x, step.start(x), step)


def _pseudo_corrector(x: Tensor, c: Tensor | None, step: _Ends) -> tuple[Tensor, Tensor]:
    first = step.start(x) if c is None else c
    second = step.end(x + step.h * first)
    return x + step.h * (0.5 * (first + second)), second
