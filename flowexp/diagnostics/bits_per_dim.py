"""Likelihood of real images in bits per dimension, by the probability-flow ODE."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from flowexp.data import ImageArrays
from flowexp.diagnostics.base import ModelMetric, Setting, records_of
from flowexp.errors import UsageError
from flowexp.likelihood import Divergence, ExactTrace, Hutchinson, log_likelihood
from flowexp.metrics.protocol import MetricRecord
from flowexp.models import Model
from flowexp.requirements import Parts, Unmet, all_of, on_pixels, source_of
from flowexp.seeding import generator

__all__ = ["BitsPerDim", "dequantized"]

_IMAGE_OFFSET = 7.0


def dequantized(images: Tensor, u: Tensor) -> Tensor:
    """``x = 2 (y + u)/256 - 1``, float64: uint8 levels y spread over their cells by u ~ U[0, 1)."""
    return (images.to(torch.float64) + u.to(torch.float64)) / 128.0 - 1.0


class BitsPerDim(ModelMetric):
    """``-log p(x) / (N ln 2) + offset``, the mean over real images, with its standard error.

    Images are dequantised uniformly, ``x = 2 (y + u)/256 - 1`` with u ~ U[0, 1), which makes the
    number an upper bound of the bits of the levels; points are used as they are, and the number is
    then that of a density, which may be negative. A class-conditional model gets the image's own
    class. The images, u and the probes are functions of (first seed of the evaluation, image,
    repetition): the same for every batch size and number of processes, and different for the seed
    ranges of ``repeats``.

    Args:
        num_images: How many images, drawn without replacement; at most all there are, null = all.
        repetitions: Draws of u and of the probes per image, averaged.
        training_images: Whether to score images of the training split instead of held-out ones.
        exact_trace: Whether to compute the divergence with N backward passes per step, for small N
            only, instead of Hutchinson's estimate with Rademacher signs.
        rtol: Relative tolerance of Dormand-Prince 5(4), with a step size per image.
        atol: Absolute tolerance.
        max_steps: Attempts allowed per image.
        offset: log2 of the levels per unit of data; null = 7 for images, 0 for points.

    Raises:
        ValueError: A count is below 1, or a tolerance is not positive.

    Source: Song et al., Score-Based Generative Modeling through SDEs, 2021, arXiv 2011.13456, D.2;
    there with one step size per batch.
    """

    name = "bits_per_dim"

    def __init__(
        self,
        *,
        num_images: int | None = 1000,
        repetitions: int = 1,
        training_images: bool = False,
        exact_trace: bool = False,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_steps: int = 1000,
        offset: float | None = None,
    ) -> None:
        counts = {"num_images": num_images, "repetitions": repetitions, "max_steps": max_steps}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}; allowed: integers >= 1")
        if not (rtol > 0.0 and atol > 0.0):
            raise ValueError(f"need rtol > 0 and atol > 0, got rtol={rtol}, atol={atol}")
        self.num_images = num_images
        self.repetitions = repetitions
        self.training_images = training_images
        self.exact_trace = exact_trace
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps
        self.offset = offset

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A source whose density is known, and a flow on the images themselves."""
        yield from all_of(
            self._known_density(parts),
            on_pixels(parts, name="bits_per_dim is that of images", remedy="Leave it out."),
        )

    def _known_density(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.path.source.has_density:
            source = source_of(parts.path)
            problem = f"bits_per_dim needs the density of the source, but {source} has none."
            yield Unmet(".", problem, "Leave it out, or set path.source=null.")

    def check_setting(self, model: Model, *, setting: Setting) -> None:
        self._images(setting)
        conditions = setting.pipeline.start(setting.seeds[:1]).conditions
        unknown = sorted(conditions.keys() - {"labels"})
        if unknown:
            raise UsageError(
                f"bits_per_dim scores images by themselves or by class, but the task conditions "
                f"the model on {', '.join(unknown)}.",
                key="metric.bits_per_dim",
                remedy="Take task=generation, or leave bits_per_dim out.",
            )

    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        arrays = self._images(setting)
        seed = setting.seeds[0]
        order = torch.randperm(len(arrays), generator=generator(seed, "likelihood images"))
        rows = order[: self.num_images].tolist()
        items = [(row, k) for row in rows for k in range(self.repetitions)]
        values = partial(self._values, model, arrays, seed=seed, setting=setting)
        what = f"{self.name} of"
        found = setting.per_item(items, values, names=("bits", "nfe"), what=what)
        if found is None:
            return ()
        bits = found["bits"].reshape(len(rows), self.repetitions).mean(1)
        trace = "exact trace" if self.exact_trace else "Hutchinson, Rademacher"
        draws = f", {self.repetitions} draws" if self.repetitions > 1 else ""
        return records_of(
            self.name,
            {"value": bits, "nfe": found["nfe"]},
            metric="bits/dim",
            how=f"{trace}{draws}, tolerance {max(self.rtol, self.atol):g}",
            data=arrays,
            quantization=self._quantization(arrays),
            sampler=f"DormandPrince per image, rtol {self.rtol:g}, atol {self.atol:g}",
            nfe=float(found["nfe"].mean()),
        )

    def _values(
        self,
        model: Model,
        arrays: ImageArrays,
        batch: list[tuple[int, int]],
        *,
        seed: int,
        setting: Setting,
    ) -> dict[str, Tensor]:
        """Bits per dimension and network evaluations, (B,) each, of (image, repetition) pairs."""
        rows = np.array([row for row, _ in batch])
        images = torch.from_numpy(np.array(arrays.images[rows]))
        if _are_images(arrays):
            images = dequantized(images, _uniform(batch, images, seed=seed))
        x = images.to(setting.pipeline.device, torch.float64)
        conditions: dict[str, Tensor | None] = {}
        if setting.pipeline.task.num_classes > 0 and arrays.labels is not None:
            conditions["labels"] = torch.from_numpy(np.array(arrays.labels[rows])).to(x.device)
        result = log_likelihood(
            model,
            x,
            divergence=self._divergence(batch, images, seed=seed),
            rtol=self.rtol,
            atol=self.atol,
            per_sample=True,
            max_steps=self.max_steps,
            **conditions,
        )
        return {"bits": result.bits_per_dim(offset=self._offset(arrays)), "nfe": result.nfe}

    def _divergence(self, batch: list[tuple[int, int]], like: Tensor, *, seed: int) -> Divergence:
        if self.exact_trace:
            return ExactTrace()
        rngs = [generator(seed, "probes", row, k) for row, k in batch]
        signs = torch.stack([torch.randint(2, like.shape[1:], generator=rng) for rng in rngs])
        return Hutchinson(2.0 * signs - 1.0)

    def _images(self, setting: Setting) -> ImageArrays:
        if self.training_images:
            return setting.reference
        if setting.heldout is None:
            raise UsageError(
                f"bits_per_dim scores held-out images, but {setting.reference.name} has no "
                f"held-out split.",
                key="metric.bits_per_dim.training_images",
                remedy="Set metric.bits_per_dim.training_images=true to score training images.",
            )
        return setting.heldout

    def _offset(self, arrays: ImageArrays) -> float:
        if self.offset is not None:
            return self.offset
        return _IMAGE_OFFSET if _are_images(arrays) else 0.0

    def _quantization(self, arrays: ImageArrays) -> str:
        offset = f"offset {self._offset(arrays):g}"
        return f"uniform dequantisation, {offset}" if _are_images(arrays) else f"none, {offset}"


def _uniform(batch: list[tuple[int, int]], like: Tensor, *, seed: int) -> Tensor:
    rngs = [generator(seed, "dequantization", row, k) for row, k in batch]
    draws = [torch.rand(like.shape[1:], dtype=torch.float64, generator=rng) for rng in rngs]
    return torch.stack(draws)


def _are_images(arrays: ImageArrays) -> bool:
    return arrays.images.dtype == np.uint8
