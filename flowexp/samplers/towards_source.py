"""The SDE from the data to the source: the other drift of a bridge."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.samplers.base import CountedModel, Samples, StepObserver
from flowexp.samplers.field import Field, Time
from flowexp.samplers.sde import SDE
from flowexp.seeding import Noise

__all__ = ["TowardsSource"]


class TowardsSource:
    """Euler-Maruyama steps of ``dx = (v + w s) dt + sqrt(2 w) dW`` up the time grid of a sampler.

    Together with ``dx = (v - w s) dt + sqrt(2 w) dW`` down the grid, which :class:`SDE` follows, it
    has the marginals of the path. For a Schroedinger bridge with diffusion c and ``w = c^2/2`` both
    have the same law of whole paths: ``v + w s`` and ``v - w s`` are its two drifts.

    Args:
        sampler: Its number of steps, time grid and diffusion; its last step is not used, so that
            the walk begins where the grid ends.

    Source: Tong et al., Simulation-free Schroedinger bridges via score and flow matching, 2023,
    arXiv 2307.03672, eq. 5 and 6.
    """

    def __init__(self, sampler: SDE) -> None:
        self.sampler = sampler

    @torch.inference_mode()
    def sample(
        self,
        model: Model,
        x: Tensor,
        *,
        noise: Noise,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Source draws from states (B, ...) at the grid's smallest time, in the dtype of x.

        Arguments are those of :meth:`flowexp.samplers.Sampler.sample`; one evaluation per step.

        Raises:
            ValueError: A time lies outside the model's range, or the diffusion is infinite there.
            UsageError: The model has no score.
        """
        self.sampler.check(model)
        counted = CountedModel(model)
        field = Field(counted, variable=Time(), conditions=conditions, device=x.device)
        times = self.sampler.times(model).flip(0)
        if self.sampler.last_step is not None:
            times = times[1:]
        schedule = model.path.schedule
        w = self.sampler.diffusion(schedule, times[:-1])
        pull = w / schedule.coefficients(times[:-1]).sigma
        nodes = field.nodes(times)
        state = x.to(self.sampler.dtype)
        if on_step is not None:
            on_step(nodes[0].t, state)
        steps = zip(pairwise(nodes), w.tolist(), pull.tolist(), strict=True)
        for i, ((start, end), rate, factor) in enumerate(steps):
            h = end.time - start.time
            prediction = field.predict(state, start)
            # v + w s: the drift towards the data with the sign of the velocity turned
            drift = prediction.towards_data(w=rate, pull=factor) + 2.0 * prediction.velocity
            state = torch.add(state, drift, alpha=h)
            state = state.add_(noise(i, state), alpha=math.sqrt(2.0 * rate * h))
            if on_step is not None:
                on_step(end.t, state)
        nfe = torch.full((len(x),), counted.evaluations, dtype=torch.int64)
        sigma = schedule.coefficients(nodes[-1].t).sigma
        return Samples((state / expand_as(sigma, state)).to(x.dtype), nfe)
