"""The adaptive Dormand-Prince 5(4) sampler."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.samplers.adaptive import (
    Predict,
    Slope,
    SlopesAt,
    StepControl,
    integrate,
    predictions_of,
)
from flowexp.samplers.base import Sampler, Samples, StepObserver
from flowexp.seeding import Noise

__all__ = ["DormandPrince", "velocity_of"]


class DormandPrince(Sampler):
    """Dormand-Prince 5(4) with scipy's step-size control, over the whole of the model's time range.

    A step is accepted if ``rms(h E / (atol + rtol max(|x|, |x_new|))) < 1``; its size then changes
    by ``0.9 err^(-1/5)`` within [0.2, 10], and does not grow right after a rejection. The start
    costs 2 evaluations, each attempt 6. Where the model's range does not reach t = 0, the last
    stretch is one DDIM step, ``alpha(0) D + sigma(0) e``, which costs 1.

    Args:
        rtol: Relative tolerance, > 0.
        atol: Absolute tolerance, > 0.
        per_sample: Each sample has its own step size, error norm and NFE, so that a sample does not
            depend on the batch it is in; finished samples leave the batch. Else the norm runs over
            the flattened batch and all samples share the steps, as in scipy, torchdiffeq and the
            published numbers.
        denoise_at_end: Take the last step to t = 0 when the model's range ends above it.
        start_time: Where the integration starts, with the state that belongs to the path's last
            time; null = the last time at which the model may be asked, with the state there.
        max_steps: Attempts allowed per sample.
        double: Keep the state in float64, else float32.

    Raises:
        ValueError: A tolerance, start_time or max_steps is not positive.

    Source: Dormand & Prince, 1980; control and initial step of scipy.integrate.RK45. Rectified
    flow's code (Liu et al., 2022, arXiv 2209.03003) has rtol = atol = 1e-5, per_sample = false and
    start_time = 0.999: it puts e itself there.
    """

    def __init__(
        self,
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        per_sample: bool = True,
        denoise_at_end: bool = True,
        start_time: float | None = None,
        max_steps: int = 1000,
        double: bool = True,
    ) -> None:
        if start_time is not None and not start_time > 0.0:
            raise ValueError(f"start_time is {start_time}; expected a positive time or null")
        self.control = StepControl(float(rtol), float(atol), per_sample, max_steps)
        self.denoise_at_end = denoise_at_end
        self.start_time = None if start_time is None else float(start_time)
        self.dtype = torch.float64 if double else torch.float32

    @torch.inference_mode()
    def sample(
        self,
        model: Model,
        e: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Integrate from the scaled source draws; ``noise`` is not used.

        ``on_step`` gets t as () after each accepted step (shared steps) or as (B,) after each round
        of attempts (per-sample steps), and t = 0 after the last step.

        Raises:
            ValueError: start_time is not within the model's range.
            IntegrationError: A sample needed more than max_steps attempts, its step size fell below
                the spacing of float64 times, or its state is not finite.
        """
        low, start = model.time_range[0], self.start_of(model)
        slopes = velocity_of(model, conditions, batch=e.shape[0])
        scaled_at = torch.full((), self.scale_time(model), dtype=torch.float64, device=e.device)
        x = model.path.start(e.to(self.dtype), scaled_at)
        x, nfe = integrate(slopes, x, start=start, end=low, control=self.control, observe=on_step)
        if low > 0.0 and self.denoise_at_end:
            x, nfe = _denoised(model, x, low, conditions), nfe + 1
            if on_step is not None:
                on_step(torch.zeros_like(scaled_at), x)
        return Samples(x.to(e.dtype), nfe * model.evaluations_per_call)

    def check(self, model: Model) -> None:
        self.check_source(model)
        self.start_of(model)

    def describe(self) -> str:
        return f"{super().describe()}, rtol {self.control.rtol}"

    def start_of(self, model: Model) -> float:
        """The time at which the integration starts.

        Raises:
            ValueError: start_time is not within the model's range.
        """
        low, high = model.time_range
        if self.start_time is None:
            return high
        if not low < self.start_time <= high:
            raise ValueError(
                f"start_time is {self.start_time}, but the model is defined on [{low}, {high}]"
            )
        return self.start_time

    def scale_time(self, model: Model) -> float:
        """The time whose sigma the source draws are multiplied by at the start."""
        return model.time_range[1] if self.start_time is None else model.path.schedule.t_max


def velocity_of(model: Model, conditions: Mapping[str, Tensor | None], *, batch: int) -> SlopesAt:
    """A model's velocity as the slope that :func:`integrate` takes.

    Args:
        model: What predicts.
        conditions: (B, ...) tensors such as ``labels``.
        batch: B.
    """
    at = predictions_of(model, conditions, batch=batch)

    def slopes(times: Tensor, rows: Tensor) -> list[Slope]:
        return [partial(_velocity, predict) for predict in at(times, rows)]

    return slopes


def _velocity(predict: Predict, x: Tensor) -> Tensor:
    return predict(x).velocity


def _denoised(model: Model, x: Tensor, low: float, conditions: dict[str, Tensor | None]) -> Tensor:
    """One DDIM step from ``low`` to t = 0."""
    t = torch.full((), low, dtype=torch.float64, device=x.device)
    prediction = model.predict(x, t, **conditions)
    c = model.path.schedule.coefficients(torch.zeros_like(t))
    return expand_as(c.alpha, x) * prediction.data + expand_as(c.sigma, x) * prediction.noise
