"""Inversion: from data to the source draws that a sampler would turn into them."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.samplers.adaptive import integrate
from flowexp.samplers.base import ROUNDING, CountedModel, Samples, StepObserver, known_times
from flowexp.samplers.dormand_prince import DormandPrince, velocity_of
from flowexp.samplers.field import Field, Interval
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["Inversion"]


class Inversion:
    """The ODE of a sampler, walked from the data end to the source end.

    The state starts at ``alpha(t_s) x + noise_scale sigma(t_s) eps`` and follows dx/dt = v over the
    sampler's own time grid in reverse (an adaptive sampler: with its own tolerances) up to the time
    t_0 at which the sampler starts. The source draw is then ``e = x_{t_0} / sigma(t_0)``, so that
    sampling from e leads back to x up to the errors of both walks.

    A flow map is inverted with an ODE sampler, which follows its velocity u(x, t, t): its jumps are
    trained towards the data only.

    Args:
        sampler: A deterministic and invertible sampler: its rule, its time grid, its variable.
        start_time: t_s >= 0, where the inversion starts; None = the smallest time of the model (0
            for paths and networks that are defined there). Grid times below it are dropped.
        noise_scale: Amount of fresh noise at the start, >= 0: 0 = none, 1 = a draw of the path.
        final_euler: Whether the step that reaches the source is Euler's, which needs no evaluation
            at its end; samplers of fixed steps only.

    Source: Song et al., DDIM, 2020, arXiv 2010.02502, section 5.4; Lee et al., RF++, 2024, arXiv
    2405.20320, whose code has start_time = 1e-3, noise_scale = 1, and final_euler with Heun's
    method.
    """

    def __init__(
        self,
        sampler: FixedStepSampler | DormandPrince,
        *,
        start_time: float | None = None,
        noise_scale: float = 0.0,
        final_euler: bool = False,
    ) -> None:
        _require_invertible(sampler)
        if start_time is not None and not start_time >= 0.0:
            raise ValueError(f"start_time is {start_time}; expected a time >= 0 or null")
        if not noise_scale >= 0.0:
            raise ValueError(f"noise_scale is {noise_scale}; expected a number >= 0")
        if final_euler and isinstance(sampler, DormandPrince):
            raise ValueError("final_euler is true, but DormandPrince chooses its steps itself")
        self.sampler = sampler
        self.start_time = None if start_time is None else float(start_time)
        self.noise_scale = float(noise_scale)
        self.final_euler = final_euler

    def check(self, model: Model) -> None:
        """Refuse a model on which the sampler or the start is not defined, by a ValueError."""
        self.sampler.check(model)
        start = self._start_time(model)
        if isinstance(self.sampler, FixedStepSampler):
            _ReverseWalk(self.sampler, model, start, {}, torch.device("cpu"))

    @torch.inference_mode()
    def invert(
        self,
        model: Model,
        x: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Samples whose ``x`` is the source draws e of data, in the dtype of the data.

        Args:
            model: The model that is inverted.
            x: Data, (B, ...).
            noise: Normal noise; step 0 is used at the start if ``noise_scale`` is not 0.
            on_step: Called with (t, x_t) at the start and after every step; see the sampler.
            conditions: (B, ...) tensors for the model, such as ``labels``.

        Raises:
            ValueError: start_time lies outside the model's range, the sampler does not fit the
                model, or noise is missing.
            IntegrationError: An adaptive sampler did not reach the source.
        """
        start = torch.full((), self._start_time(model), dtype=torch.float64, device=x.device)
        c = model.path.schedule.coefficients(start)
        data = x.to(self.sampler.dtype)
        state = expand_as(c.alpha, data) * data
        if self.noise_scale > 0.0:
            if noise is None:
                raise ValueError(f"noise_scale is {self.noise_scale}, but noise is None")
            state = state + expand_as(self.noise_scale * c.sigma, data) * noise(0, data)
        if isinstance(self.sampler, DormandPrince):
            state, nfe = integrate(
                velocity_of(model, conditions, batch=x.shape[0]),
                state,
                start=float(start),
                end=self.sampler.start_of(model),
                control=self.sampler.control,
                observe=on_step,
            )
            nfe = nfe * model.evaluations_per_call
            last = self.sampler.scale_time(model)
        else:
            walk = _ReverseWalk(self.sampler, model, float(start), conditions, x.device)
            states = walk.states(state, final_euler=self.final_euler)
            for node, state in zip(walk.nodes, states, strict=True):
                if on_step is not None:
                    on_step(node.t, state)
            nfe = torch.full((x.shape[0],), walk.model.evaluations, dtype=torch.int64)
            last = walk.nodes[-1].time
        end = torch.full((), last, dtype=torch.float64, device=x.device)
        sigma = model.path.schedule.coefficients(end).sigma
        return Samples((state / expand_as(sigma, state)).to(x.dtype), nfe)

    def _start_time(self, model: Model) -> float:
        low, high = model.time_range
        if self.start_time is None:
            return low
        if not low * (1.0 - ROUNDING) <= self.start_time < high:
            raise ValueError(
                f"start_time is {self.start_time}, but the model is defined on [{low}, {high}]"
            )
        return self.start_time


class _ReverseWalk:
    """The walk over the times of a sampler of fixed steps in reverse, from ``start`` on."""

    def __init__(
        self,
        sampler: FixedStepSampler,
        model: Model,
        start: float,
        conditions: Mapping[str, Tensor | None],
        device: torch.device,
    ) -> None:
        times = sampler.times(model)
        upper = times[times > start * (1.0 + ROUNDING)].flip(0)
        if upper.numel() == 0:
            raise ValueError(f"start_time is {start}, at or above every time of the sampler's grid")
        first = known_times(model, upper.new_full((1,), start))
        self.sampler, self.model = sampler, CountedModel(model)
        self.field = Field(
            self.model, variable=sampler.variable, conditions=conditions, device=device
        )
        self.nodes = self.field.nodes(torch.cat([first, upper]))

    def states(self, x: Tensor, *, final_euler: bool) -> Iterator[Tensor]:
        """The states at the nodes, from the given one on."""
        yield x
        count = len(self.nodes) - 1
        steps = [Interval(a, b, i, count) for i, (a, b) in enumerate(pairwise(self.nodes))]
        z = self.field.enter(x, self.nodes[0])
        whole = steps[:-1] if final_euler else steps
        if whole:
            states = self.sampler.states(self.field, z, whole, None)
            for step, z in zip(whole, states, strict=True):
                yield self.field.leave(z, step.end)
        if final_euler:
            slope = self.field.slope(z, steps[-1].start)
            z = torch.add(z, slope, alpha=steps[-1].length)
            yield self.field.leave(z, steps[-1].end)


def _require_invertible(sampler: object) -> None:
    if not isinstance(sampler, FixedStepSampler | DormandPrince):
        raise ValueError(
            f"sampler is {type(sampler).__name__}, which cannot be walked the other way; use one "
            f"of fixed steps, or dopri5"
        )
    if sampler.jumps:
        raise ValueError(
            f"sampler is {type(sampler).__name__}, but a flow map jumps towards the data only; "
            f"invert its velocity with an ODE sampler such as sampler=heun"
        )
    if sampler.adds_noise:
        raise ValueError(
            f"sampler {type(sampler).__name__} adds noise between its steps; only a deterministic "
            f"sampler can be walked the other way"
        )
    if isinstance(sampler, FixedStepSampler) and not sampler.invertible:
        raise ValueError(
            f"sampler {type(sampler).__name__} uses the source draw after its start and cannot be "
            f"walked the other way"
        )
