"""Sampling with a memory: every step of a solver continues the sequence of the steps before it."""

from collections.abc import Iterator

from torch import Tensor

from flowexp.models import Model
from flowexp.networks.memory import Memory
from flowexp.requirements import ModelFacts, Parts, Unmet, all_of, require, within
from flowexp.samplers.base import Sampler, Samples, StepObserver
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["ARFlowSampler"]


class ARFlowSampler(Sampler):
    """A solver around a model that remembers the earlier, noisier states of each trajectory.

    All evaluations read the memory. The first one of each step extends it by the state that is
    evaluated; further stages of the step do not, so that a step counts once for every solver. (Of
    a solver that evaluates the end of a step and begins the next one with it, UniPC, the end of the
    first step is thus not remembered.) The memory is empty at the start of each call. With
    classifier-free guidance the predictions with and without label have memories of their own.

    Training shows sequences of a few images, sampling one of as many states as there are steps.

    Args:
        solver: The sampler whose steps are remembered: one with fixed steps.

    Source: Hui et al., ARFlow, 2025, arXiv 2501.16085, and the authors' code, which has the
    Euler-Maruyama method only, with one evaluation per step.
    """

    def __init__(self, solver: Sampler) -> None:
        self.solver = solver
        self.needs_gaussian = solver.needs_gaussian
        self.jumps = solver.jumps

    @property
    def steps(self) -> int | None:
        """Number of steps of the solver, if it is known."""
        return getattr(self.solver, "steps", None)

    @property
    def adds_noise(self) -> bool:
        return self.solver.adds_noise

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network with a memory, and what the solver needs."""
        yield from all_of(
            self._memory(parts),
            self._fixed_steps(),
            within("solver", self.solver.needs(parts)),
        )

    def _memory(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.network.remembers:
            yield self._no_memory()

    def _no_memory(self) -> Unmet:
        problem = f"{type(self).__name__} needs a network with a memory, which this one has not."
        return Unmet(".", problem, "Use a run of network=arflow, or another sampler.")

    def _fixed_steps(self) -> Iterator[Unmet]:
        if not isinstance(self.solver, FixedStepSampler):
            name = type(self.solver).__name__
            problem = f"{name} tries steps that it then rejects, which a memory would keep."
            remedy = "Take a solver with fixed steps: sampler@sampler.solver=heun."
            yield Unmet(".solver", problem, remedy)

    def fits(self, model: ModelFacts) -> Iterator[Unmet]:
        yield from within("solver", self.solver.fits(model))

    def noise_needs(self, parts: Parts) -> Iterator[Unmet]:
        yield from within("solver", self.solver.noise_needs(parts))

    def sample(
        self,
        model: Model,
        e: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Samples of the solver; the memory begins empty."""
        memory = Memory()

        def begin(t: Tensor, x: Tensor) -> None:
            memory.begin_step()
            if on_step is not None:
                on_step(t, x)

        remembering = model.remembering(memory)
        return self.solver.sample(remembering, e, noise=noise, on_step=begin, **conditions)

    def check(self, model: Model) -> None:
        if not model.remembers:
            require([self._no_memory()], group="sampler")
        require(self._fixed_steps(), group="sampler")
        self.solver.check(model)

    def describe(self) -> str:
        return f"{self.solver.describe()}, with memory"
