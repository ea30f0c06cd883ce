"""The adaptive Dormand-Prince 5(4) samplers, in the path's time and in the log noise level."""

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from flowexp.broadcast import expand_as, factors, scaled
from flowexp.models import Model
from flowexp.samplers.adaptive import (
    Predict,
    Slope,
    SlopesAt,
    StepControl,
    TorchdiffeqControl,
    integrate,
    predictions_of,
)
from flowexp.samplers.base import Sampler, Samples, StepObserver
from flowexp.seeding import Noise

__all__ = ["DormandPrince", "velocity_of", "LogDormandPrince"]


_CONTROLS = {"scipy": StepControl, "torchdiffeq": TorchdiffeqControl}


class DormandPrince(Sampler):
    """Dormand-Prince 5(4) with scipy's step-size control, over the whole of the model's time range.

    A step is accepted if ``rms(h E / (atol + rtol max(|x|, |x_new|))) < 1``; its size then changes
    by ``0.9 err^(-1/5)`` within [0.2, 10], and does not grow right after a rejection. The start
    costs 2 evaluations, each attempt 6. Where the model's range does not reach t = 0, the last
    stretch is one DDIM step, ``alpha(0) D + sigma(0) e``, which costs 1.

    Args:
        rtol, atol: Relative and absolute tolerance, > 0.
        per_sample: Each sample has its own step size, error norm and NFE, so that a sample does not
            depend on the batch it is in; finished samples leave the batch. Else the norm runs over
            the flattened batch and all samples share the steps, as in scipy, torchdiffeq and the
            published numbers. A sample then depends on the others of its batch, which are those of
            its neighbouring seeds: ``batch_size`` changes the samples and belongs to the protocol,
            which states it; the number of processes does not.
        control: ``scipy``, or ``torchdiffeq`` for what torchdiffeq's dopri5 does with shared steps,
            see :class:`~flowexp.samplers.adaptive.TorchdiffeqControl`. Its last step evaluates the
            model beyond t = 0, which must be defined there.
        denoise_at_end: Take the last step to t = 0 when the model's range ends above it.
        start_time: Start of the integration, > 0, with the state that belongs to the path's last
            time; null = the last time at which the model may be evaluated, with the state there.
        max_steps: Attempts allowed per sample, >= 1.
        double: Keep the state in float64, else float32.

    Source: Dormand & Prince, 1980; control and initial step of scipy.integrate.RK45. Rectified
    flow's code (Liu et al., 2022, arXiv 2209.03003) has rtol = atol = 1e-5, per_sample = false and
    start_time = 0.999: it puts e itself there. Torchcfm (Tong et al., 2023, arXiv 2302.00482) has
    torchdiffeq's control, tolerances 1e-5, float32 states and batches of 1024 (per_sample = false,
    control = torchdiffeq, double = false).
    """

    later_options: ClassVar[Mapping[str, object]] = {"control": "scipy"}

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
        control: Literal["scipy", "torchdiffeq"] = "scipy",
    ) -> None:
        if start_time is not None and not start_time > 0.0:
            raise ValueError(f"start_time is {start_time}; expected a positive time or null")
        if control == "torchdiffeq" and per_sample:
            raise ValueError("per_sample is true; expected false with control=torchdiffeq")
        if control not in _CONTROLS:
            raise ValueError(f"control is {control!r}; expected one of {', '.join(_CONTROLS)}")
        self.control = _CONTROLS[control](
            rtol=float(rtol), atol=float(atol), per_sample=per_sample, max_steps=max_steps
        )
        self.shares_steps = not per_sample
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
            prediction = model.predict(x, torch.full_like(scaled_at, low), **conditions)
            end = torch.zeros_like(scaled_at)
            c, nfe = model.path.schedule.coefficients(end), nfe + 1
            x = expand_as(c.alpha, x) * prediction.data + expand_as(c.sigma, x) * prediction.noise
            if on_step is not None:
                on_step(end, x)
        return Samples(x.to(e.dtype), nfe * model.evaluations_per_call)

    def check(self, model: Model) -> None:
        self.start_of(model)
        low = model.time_range[0]
        if low > 0.0 and not self.control.stops_at_end:
            raise ValueError(
                f"control is torchdiffeq, whose last step goes beyond t = 0, but the model is "
                f"defined from t = {low:g} on; expected control=scipy"
            )

    def describe(self) -> str:
        law = "" if self.control.stops_at_end else ", torchdiffeq's control"
        return f"{super().describe()}, rtol {self.control.rtol}{law}"

    def start_of(self, model: Model) -> float:
        """The time at which the integration starts; a ValueError outside of the model's range."""
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
    """A model's velocity as the slope of :func:`integrate`; arguments of :func:`predictions_of`."""
    at = predictions_of(model, conditions, batch=batch)

    def slopes(times: Tensor, rows: Tensor) -> list[Slope]:
        return [partial(_velocity, predict) for predict in at(times, rows)]

    return slopes


def _velocity(predict: Predict, x: Tensor) -> Tensor:
    return predict(x).velocity


class LogDormandPrince(Sampler):
    """Dormand-Prince 5(4) in ``u = ln(sigma/alpha)`` with state ``x_t/alpha``: ``dz/du = n e``.

    PFGM's sampler: on the VE path z = sigma is the anchor, ``z = exp(u)``, and the field is
    followed from ln z_max to ln z_min. It runs on every path and with every source. Control of
    steps and counting are those of :class:`~flowexp.samplers.DormandPrince`. PFGM's samplers of
    fixed steps, Euler and improved Euler with exact steps in z, are ``sampler=euler`` and
    ``sampler=heun`` on ``sampler/time_grid=log_snr``.

    Args:
        sigma_min: Noise-to-signal ratio at which it ends, > 0, raised to the model's smallest.
        sigma_max: Where it begins, > sigma_min, lowered to the model's largest (40 with
            ``path=pfgm_original``).
        rtol, atol: Tolerances, > 0 (1e-4 as published, about 100 to 120 NFE on CIFAR-10).
        per_sample: A step size, an error norm and an NFE for each sample; else one for the batch,
            as published.
        denoise_at_end: Return the denoised state of the last noise level, which costs one more
            evaluation; PFGM returns the state itself.
        max_steps, double: See :class:`~flowexp.samplers.DormandPrince`.

    Source: Xu et al., PFGM, 2022, arXiv 2209.11178, section 3.3 and appendix B.2.3.
    """

    def __init__(
        self,
        *,
        sigma_min: float = 1e-3,
        sigma_max: float = 80.0,
        rtol: float = 1e-4,
        atol: float = 1e-4,
        per_sample: bool = True,
        denoise_at_end: bool = False,
        max_steps: int = 1000,
        double: bool = True,
    ) -> None:
        if not 0.0 < sigma_min < sigma_max:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)
        self.shares_steps = not per_sample
        self.control = StepControl(float(rtol), float(atol), per_sample, max_steps)
        self.denoise_at_end = denoise_at_end
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
        """Integrate from ``sigma_max e`` to sigma_min, both within the model's time range.

        Raises:
            ValueError: The model has no noise level between sigma_min and sigma_max.
            IntegrationError: See :meth:`DormandPrince.sample`.
        """
        schedule = model.path.schedule
        low, high = self._range(model)
        at = predictions_of(model, conditions, batch=e.shape[0])

        def levels(u: Tensor) -> tuple[Tensor, Tensor]:
            t = schedule.time_at_nsr(torch.exp(u)).clamp(*model.time_range)
            return schedule.coefficients(t).alpha, t

        def slopes(u: Tensor, rows: Tensor) -> list[Slope]:
            alphas, times = levels(u)
            at_levels = zip(at(times, rows), factors(alphas), factors(torch.exp(u)), strict=True)
            return [partial(_slope, *level) for level in at_levels]

        def place(z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            alpha, t = levels(u)
            return t, scaled(z, alpha)

        z = math.exp(high) * e.to(self.dtype)
        observe = None if on_step is None else lambda u, z: on_step(*place(z, u))
        z, nfe = integrate(slopes, z, start=high, end=low, control=self.control, observe=observe)
        t, x = place(z, torch.full((), low, dtype=torch.float64, device=e.device))
        if self.denoise_at_end:
            x, nfe = model.denoise(x, t, **conditions), nfe + 1
            if on_step is not None:
                on_step(torch.zeros_like(t), x)
        return Samples(x.to(e.dtype), nfe * model.evaluations_per_call)

    def check(self, model: Model) -> None:
        self._range(model)

    def describe(self) -> str:
        return f"{super().describe()}, rtol {self.control.rtol}"

    def _range(self, model: Model) -> tuple[float, float]:
        """The logarithms of the smallest and the largest noise level."""
        times = torch.tensor(model.time_range, dtype=torch.float64)
        lowest, highest = model.path.schedule.nsr(times).tolist()
        low, high = max(self.sigma_min, lowest), min(self.sigma_max, highest)
        if not low < high:
            raise ValueError(
                f"LogDormandPrince runs from sigma/alpha={self.sigma_max} to {self.sigma_min}, but "
                f"the model covers only [{lowest}, {highest}]"
            )
        return math.log(low), math.log(high)


def _slope(predict: Predict, alpha: Tensor | float, nsr: Tensor | float, z: Tensor) -> Tensor:
    return scaled(predict(scaled(z, alpha)).noise, nsr)
