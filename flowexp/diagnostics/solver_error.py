"""How far a sampler ends from where the model's trajectories end."""

from typing import Any

import torch
from torch import Tensor

from flowexp.diagnostics.base import ModelMetric, Setting, records_of
from flowexp.errors import UsageError
from flowexp.metrics.protocol import MetricRecord
from flowexp.models import Model
from flowexp.samplers.dormand_prince import DormandPrince

__all__ = ["SolverError"]


class SolverError(ModelMetric):
    """``|x - x*| / sqrt(N)``: the distance of a sample from the exact one of its source draw.

    x is the evaluation's sample of a source draw, x* the solution of the same model's ODE from that
    draw, by Dormand-Prince 5(4) to a tolerance. The number is the mean over source draws, in units
    of the data. A Frechet distance compares sets and can be lower for a sampler that stops short of
    the model's own distribution; this compares pairs, and only the solver can lower it.
    ``extra["size"]`` is the size of the exact samples, ``|x*| / sqrt(N)``.

    Args:
        reference: The model whose ODE gives x*; None = the evaluated one. For a network trained to
            be sampled in few steps it is its teacher.
        rtol: Relative tolerance, > 0.
        atol: Absolute tolerance, > 0.

    Raises:
        ValueError: A tolerance is not positive.

    Source: the mean squared error of Zheng et al., DPM-Solver-v3, 2023, arXiv 2310.13268, section
    4.2, which compares latents with those of many steps; here without the square.
    """

    name = "solver_error"

    def __init__(
        self, *, reference: Model | None = None, rtol: float = 1e-4, atol: float = 1e-4
    ) -> None:
        self.reference = reference
        self.exact = DormandPrince(rtol=rtol, atol=atol)

    def check_setting(self, model: Model, *, setting: Setting) -> None:
        sampler = setting.pipeline.sampler
        if sampler.adds_noise:
            raise UsageError(
                f"{type(sampler).__name__} adds noise between its steps, so that no sample "
                f"is the exact one of its source draw.",
                key="metric",
                remedy="Choose a deterministic sampler, or metric=fd_efflite0.",
            )
        if self.reference is not None and self.reference.path.identity() != model.path.identity():
            raise UsageError(
                f"the reference is on the path {self.reference.path!r}, but the evaluated model on "
                f"{model.path!r}.",
                key="metric.solver_error.reference.run",
                remedy="Name a run on the same path.",
            )

    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        known = model if self.reference is None else model.alongside(self.reference)

        def values(seeds: list[int]) -> dict[str, Tensor]:
            start = setting.pipeline.start(seeds)
            conditions: dict[str, Any] = dict(start.conditions)
            found = setting.pipeline.sampler.sample(model, start.e, noise=start.noise, **conditions)
            exact = self.exact.sample(known, start.e, **conditions)
            return {"value": _size(found.x - exact.x), "size": _size(exact.x)}

        ode = "its own ODE" if self.reference is None else f"the ODE of {_named(self.reference)}"
        return records_of(
            self.name,
            setting.per_item(
                list(setting.seeds), values, names=("value", "size"), what=f"{self.name} of"
            ),
            metric="RMS distance from the exact sample",
            how=f"{ode}, rtol={self.exact.control.rtol:g}, atol={self.exact.control.atol:g}",
            data=setting.reference,
        )


def _named(model: Model) -> str:
    origin = model.origin
    return repr(model) if origin is None else f"{origin.weights} {origin.weights_sha256[:12]}"


def _size(x: Tensor) -> Tensor:
    """Root mean square per sample, (B,), float64."""
    return x.to(torch.float64).flatten(1).square().mean(1).sqrt()
