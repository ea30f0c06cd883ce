"""The stages of successive frames as one batch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.models import Evaluation, Model
from flowexp.networks.base import NO_LABEL
from flowexp.pipeline import Pipeline
from flowexp.requirements import Part, Parts, Unmet, on_dropped_labels
from flowexp.seeding import generator

__all__ = [
    "FullNegative",
    "NoNegative",
    "OneTimeNegative",
    "ResidualGuidance",
    "SelfNegative",
    "StreamBatch",
    "lcm_scalings",
]


class ResidualGuidance(Part):
    """The negative side of a stream's guidance: ``e = e_neg + w (e_c - e_neg)``.

    e_c is the conditional noise prediction. The residual forms take for e_neg the virtual noise s,
    which leads from the state straight back to the frame, ``s = (x - alpha x_frame) / sigma``, and
    needs no network evaluation.

    Args:
        scale: w, finite; up to 1 the guidance is off, and the prediction is the conditional one.
        delta: Factor of the virtual noise, finite; smaller values soften.

    ``uses_virtual_noise`` says whether e_neg is ``delta s``; else it is the network's.

    Source: Kodaira et al., StreamDiffusion, 2023, arXiv 2312.12491, section 3.2.
    """

    uses_virtual_noise: bool = False

    def __init__(self, *, scale: float, delta: float = 1.0) -> None:
        for name, value in (("scale", scale), ("delta", delta)):
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; expected a finite number")
        self.scale = float(scale)
        self.delta = float(delta)

    @property
    def is_on(self) -> bool:
        """Whether there is anything to guide by."""
        return self.scale > 1.0

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that has learnt what it gives without label, if that is the negative side."""
        if self.negative_stages(1) > 0 and parts.network.label_dim > 0:
            name, off = type(self).__name__, "use residual_guidance=none or self"
            yield from on_dropped_labels(parts, name=name, key=".", remedy=off)

    def negative_stages(self, stages: int) -> int:
        """Number of stages, from the first on, with a second network evaluation."""
        return 0


class NoNegative(ResidualGuidance):
    """No guidance: n evaluations a frame."""

    def __init__(self) -> None:
        super().__init__(scale=1.0)


class FullNegative(ResidualGuidance):
    """Classifier-free guidance with a negative prediction at every stage: 2n evaluations."""

    def __init__(self, *, scale: float) -> None:
        super().__init__(scale=scale)

    def negative_stages(self, stages: int) -> int:
        return stages if self.is_on else 0


class SelfNegative(ResidualGuidance):
    """The virtual noise towards the frame itself: n evaluations a frame."""

    uses_virtual_noise = True


class OneTimeNegative(ResidualGuidance):
    """The virtual noise towards the negative prediction at the first stage: n + 1 evaluations."""

    uses_virtual_noise = True

    def negative_stages(self, stages: int) -> int:
        return 1 if self.is_on else 0


Conditions = Mapping[str, Tensor | None]


def lcm_scalings(
    labels: Sequence[float], *, sigma_data: float = 0.5, scaling: float = 10.0
) -> tuple[list[float], list[float]]:
    """``c_skip = sd^2/(u^2 + sd^2)`` and ``c_out = u/sqrt(u^2 + sd^2)`` with ``u = scaling T``.

    T are the discrete times of a latent consistency model, 0 to 999; sd is ``sigma_data``.

    Source: Luo et al., Latent Consistency Models, 2023, arXiv 2310.04378, with diffusers'
    scheduling_lcm.py.
    """
    u = [scaling * label for label in labels]
    variances = [value**2 + sigma_data**2 for value in u]
    skip = [sigma_data**2 / variance for variance in variances]
    return skip, [value / variance**0.5 for value, variance in zip(u, variances, strict=True)]


class StreamBatch:
    """Denoises a stream of frames in n stages, all stages of n successive frames in one call.

    Stage i, at time t_i with ``a = alpha(t_i)``, ``b = sigma(t_i)``, turns the state x into
    ``xhat = c_out D + c_skip x`` with the (guided) data prediction D, and goes on to
    ``a' xhat + b' n_{i+1}``; a frame enters as ``a_0 frame + b_0 n_0``. The noises n_i are drawn
    once and are the same for every frame, so that a frame's result depends on nothing but the
    frame: batched and one by one (:meth:`sequential`) are equal.

    Every call takes ``group`` new frames, advances those of the n - 1 calls before by a stage, and
    finishes the oldest. The first n - 1 calls finish nothing; :meth:`flush` finishes the rest.

    The virtual noise s of the residual guidance follows the recursion of the reference,
    ``s' = n' + (a'/b') (c_out (D + (b s - x)/a) + c_skip b s)``, which needs no frame to be kept;
    for c_skip = 0, c_out = 1 it equals ``(x' - a' frame) / b'``.

    Args:
        pipeline: Model, shape of a frame (C, H, W) and device; its sampler is not used.
        times: t_0 > t_1 > ..., within the model's range, where alpha is positive.
        guidance: The negative side; None = no guidance.
        seed: Decides the noises: n_i is drawn from (seed, "stream", i).
        noise: The noises themselves, (n, C, H, W), in place of the seed.
        group: Frames per call, >= 1.
        c_skip, c_out: One number per stage; None = 0 and 1.
        add_noise: Whether noise is added between the stages; without, the next state is a' xhat.
        conditions: One row each, for all frames, such as ``labels`` (1,).
        negative: The same for the negative side; None = without labels.
        dtype: Of the states.

    Source: Kodaira et al., StreamDiffusion, 2023, arXiv 2312.12491, section 3.1 and eq. 1 to 7;
    their code draws new noise where it does not batch, so that its two modes differ.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        times: Sequence[float],
        guidance: ResidualGuidance | None = None,
        seed: int = 0,
        noise: Tensor | None = None,
        group: int = 1,
        c_skip: Sequence[float] | None = None,
        c_out: Sequence[float] | None = None,
        add_noise: bool = True,
        conditions: Conditions | None = None,
        negative: Conditions | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model = pipeline.model
        self.guidance = NoNegative() if guidance is None else guidance
        self.times = _checked_times(model, times)
        self.stages = len(self.times)
        if group < 1:
            raise ValueError(f"group is {group}; expected at least 1")
        self.group = group
        self.add_noise = add_noise
        self.frame_shape = pipeline.shape
        self.dtype, self.device = dtype, torch.device(pipeline.device)
        if noise is None:
            rngs = [generator(seed, "stream", i) for i in range(self.stages)]
            shape = tuple(self.frame_shape)
            rows = [torch.randn(shape, dtype=torch.float64, generator=rng) for rng in rngs]
            noise = torch.stack(rows)
        if noise.shape != (self.stages, *self.frame_shape):
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}; expected {(self.stages, *self.frame_shape)}"
            )
        c = model.path.schedule.coefficients(torch.tensor(self.times, dtype=torch.float64))
        placed = noise.to(device=self.device, dtype=self.dtype)
        self._noise = placed.repeat_interleave(self.group, dim=0)
        self._alpha, self._sigma = self._per_stage(c.alpha), self._per_stage(c.sigma)
        self._c_skip = self._per_stage(self._listed("c_skip", c_skip, 0.0))
        self._c_out = self._per_stage(self._listed("c_out", c_out, 1.0))
        self._conditions = dict(conditions or {})
        self._negative = _without_labels(self._conditions) if negative is None else dict(negative)
        if {k for k, v in self._conditions.items() if v is not None} - {
            k for k, v in self._negative.items() if v is not None
        }:
            raise ValueError(
                f"negative has {sorted(self._negative)}; expected all of {sorted(self._conditions)}"
            )
        self._prepared: dict[tuple[int, int], Evaluation] = {}
        self.evaluations = 0
        self.reset()

    def reset(self) -> None:
        """Discard the frames in progress."""
        waiting = (self.stages - 1) * self.group
        self.states = torch.zeros(waiting, *self.frame_shape, dtype=self.dtype, device=self.device)
        self.virtual_noise = torch.zeros_like(self.states)
        self._in_flight = 0

    def push(self, frames: Tensor) -> Tensor | None:
        """Take the next frames, (group, C, H, W) in [-1, 1], and give a result of the same shape.

        It is that of the frames taken n - 1 calls before, None at the start.
        """
        self._in_flight += 1
        finished = self.step(frames)
        if self._in_flight < self.stages:
            return None
        self._in_flight -= 1
        return finished

    def flush(self) -> list[Tensor]:
        """The results of all frames in progress, oldest first; the stream may go on after it."""
        waiting, self._in_flight = self._in_flight, 0
        if waiting == 0:
            return []
        shape = (self.group, *self.frame_shape)
        blank = torch.zeros(shape, dtype=self.dtype, device=self.device)
        # In a short stream, the oldest frame has not reached the last stage yet.
        for _ in range(self.stages - 1 - waiting):
            self.step(blank)
        return [self.step(blank) for _ in range(waiting)]

    @torch.inference_mode()
    def step(self, frames: Tensor) -> Tensor:
        """One call: the output of the last stage, meaningless in the first n - 1 calls."""
        if tuple(frames.shape) != (self.group, *self.frame_shape):
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; expected "
                f"{(self.group, *self.frame_shape)}"
            )
        new, virtual = self._entered(frames)
        x = torch.cat([new, self.states])
        s = torch.cat([virtual, self.virtual_noise])
        result, data, s = self._denoised(x, s, 0, self.stages)
        within = slice(0, (self.stages - 1) * self.group)
        self.states, self.virtual_noise = self._advanced(
            x[within], result[within], data[within], s[within], 0, self.stages - 1
        )
        return result[within.stop :]

    @torch.inference_mode()
    def sequential(self, frames: Tensor) -> Tensor:
        """The results of frames as of :meth:`push` that pass alone: n calls, no frame waits."""
        x, s = self._entered(frames)
        for stage in range(self.stages):
            result, data, s = self._denoised(x, s, stage, stage + 1)
            if stage + 1 < self.stages:
                x, s = self._advanced(x, result, data, s, stage, stage + 1)
        return result

    def _entered(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """State and virtual noise of new frames at the first stage."""
        rows = slice(0, self.group)
        frames = frames.to(device=self.device, dtype=self.dtype)
        noise = self._noise[rows]
        return self._alpha[rows] * frames + self._sigma[rows] * noise, noise

    def _denoised(
        self, x: Tensor, s: Tensor, first: int, last: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``xhat``, the guided data prediction and the virtual noise of some stages, one call."""
        rows = slice(first * self.group, last * self.group)
        negatives = max(0, min(last, self.guidance.negative_stages(self.stages)) - first)
        extra = negatives * self.group
        batch = torch.cat([x, x[:extra]]) if extra else x
        self.evaluations += len(batch)
        prediction = self._evaluation(first, last)(batch, **self._conditions_of(len(x), extra))
        data = prediction.data[: len(x)]
        alpha, sigma = self._alpha[rows], self._sigma[rows]
        if self.guidance.is_on:
            if self.guidance.uses_virtual_noise:
                if extra:
                    s = torch.cat([prediction.noise[len(x) :], s[extra:]])
                negative = (x - sigma * (self.guidance.delta * s)) / alpha
            else:
                negative = prediction.data[len(x) :]
            data = torch.lerp(negative, data, self.guidance.scale)
        return self._c_out[rows] * data + self._c_skip[rows] * x, data, s

    def _advanced(
        self, x: Tensor, result: Tensor, data: Tensor, s: Tensor, first: int, last: int
    ) -> tuple[Tensor, Tensor]:
        """State and virtual noise at the stage after each of ``first .. last - 1``."""
        here = slice(first * self.group, last * self.group)
        ahead = slice(here.start + self.group, here.stop + self.group)
        alpha, sigma = self._alpha[here], self._sigma[here]
        alpha_next, sigma_next = self._alpha[ahead], self._sigma[ahead]
        state, virtual = alpha_next * result, s
        if self.guidance.uses_virtual_noise:
            scaled = sigma * s
            moved = self._c_out[here] * (data + (scaled - x) / alpha) + self._c_skip[here] * scaled
            virtual = (alpha_next / sigma_next) * moved
        if self.add_noise:
            noise = self._noise[ahead]
            state = state + sigma_next * noise
            virtual = virtual + noise if self.guidance.uses_virtual_noise else virtual
        return state, virtual

    def _evaluation(self, first: int, last: int) -> Evaluation:
        """The model at the times of these stages' rows, and of the negative ones."""
        if (first, last) not in self._prepared:
            negative = min(last, self.guidance.negative_stages(self.stages))
            stages = [*range(first, last), *range(first, negative)]
            times = [self.times[stage] for stage in stages for _ in range(self.group)]
            rows = torch.tensor([times], dtype=torch.float64, device=self.device)
            self._prepared[first, last] = self.model.at(rows)[0]
        return self._prepared[first, last]

    def _conditions_of(self, rows: int, negative: int) -> dict[str, Tensor | None]:
        """Every condition, once per row."""
        found: dict[str, Tensor | None] = dict.fromkeys(self._conditions)
        for name, own in self._conditions.items():
            other = self._negative.get(name)
            if own is not None and other is not None:
                parts = own.expand(rows, *own.shape[1:]), other.expand(negative, *other.shape[1:])
                found[name] = torch.cat(parts).to(self.device)
        return found

    def _per_stage(self, values: Tensor) -> Tensor:
        """One number per row, (n group, 1, ...)."""
        rows = values.to(self.dtype).repeat_interleave(self.group)
        return rows.reshape(-1, *([1] * len(self.frame_shape))).to(self.device)

    def _listed(self, name: str, values: Sequence[float] | None, default: float) -> Tensor:
        listed = [default] * self.stages if values is None else list(values)
        if len(listed) != self.stages:
            raise ValueError(f"{name} is {listed}; expected one number for each of {self.times}")
        return torch.tensor(listed, dtype=torch.float64)


def _checked_times(model: Model, times: Sequence[float]) -> list[float]:
    listed = [float(t) for t in times]
    low, high = model.time_range
    if not listed or any(b >= a for a, b in pairwise(listed)):
        raise ValueError(f"times is {listed}; expected one or more times that decrease")
    if listed[0] > high or listed[-1] < low or listed[-1] <= 0.0:
        raise ValueError(
            f"times is {listed}; expected times above 0 within [{low}, {high}], where the model is "
            f"defined"
        )
    first = torch.tensor(listed[0], dtype=torch.float64)
    if not float(model.path.schedule.coefficients(first).alpha) > 0.0:
        raise ValueError(
            f"times begins at {listed[0]}, where nothing is left of the frame; begin below it"
        )
    return listed


def _without_labels(conditions: Conditions) -> dict[str, Tensor | None]:
    """The same conditions with "no label" for labels: -1, or zeros for label vectors."""
    negative = dict(conditions)
    labels = negative.get("labels")
    if labels is not None:
        nothing = torch.zeros_like(labels)
        negative["labels"] = nothing if labels.is_floating_point() else nothing + NO_LABEL
    return negative
