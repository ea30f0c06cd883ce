"""Precision and recall as ADM's evaluator computes them, against the images of a reference batch.

Its FID and sFID are those of :class:`FrechetDistance` with ``InceptionV3`` and ``InceptionSpatial``
(its graph resizes as theirs); its Inception score is :class:`InceptionScore` with
``split_size=5000`` in the order of the samples.

Source: Dhariwal & Nichol 2021, arXiv 2105.05233; guided-diffusion's evaluations/evaluator.py.
"""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import expanded, file_sha256
from flowexp.metrics.base import Extractor, SampleSet
from flowexp.metrics.precision_recall import PrecisionRecall

_BLOCK = 10_000


def half_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 computed in float16, (n, d) and (m, d) -> (n, m) float32, >= 0.

    In float32 if any of them overflows. In float16 distances of neighbours are rounded to a few
    thousandths of the vectors' squared length: whether a sample lies in a ball is partly rounding.
    """
    squared = _squared(a.half(), b.half())
    return squared.float() if squared.isfinite().all() else _squared(a.float(), b.float())


def _squared(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.square().sum(1)[:, None], b.square().sum(1)
    return (lengths[0] - 2 * (a @ b.T) + lengths[1]).clamp_(min=0)


def half_precision_recall(
    generated: Tensor, real: Tensor, *, k: int = 3, block: int = _BLOCK
) -> tuple[float, float]:
    """Precision and recall by closed balls of squared :func:`half_distances`.

    Features are (n, d) and (m, d), both longer than k; blocks of distances decide only whether a
    whole block is computed in float32.
    """
    radii = [_radii(rows, k, block) for rows in (generated, real)]
    inside_real = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
    inside_generated = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for own, squared, other in _blocks(generated, real, block):
        inside_real[own] |= (squared <= radii[1][other]).any(1)
        inside_generated[other] |= (squared <= radii[0][own][:, None]).any(0)
    return float(inside_real.double().mean()), float(inside_generated.double().mean())


def _blocks(a: Tensor, b: Tensor, block: int) -> Iterator[tuple[slice, Tensor, slice]]:
    """Rows of a, their distances to rows of b, and these."""
    for i in range(0, len(a), block):
        for j in range(0, len(b), block):
            own, other = slice(i, i + block), slice(j, j + block)
            yield own, half_distances(a[own], b[other]), other


def _radii(rows: Tensor, k: int, block: int) -> Tensor:
    """The k-th smallest squared distance of each row to the others, itself counted as one more."""
    found = []
    for i in range(0, len(rows), block):
        parts = [squared for _, squared, _ in _blocks(rows[i : i + block], rows, block)]
        found.append(torch.cat(parts, dim=1).kthvalue(k + 1, dim=1).values)
    return torch.cat(found)


@dataclass(frozen=True)
class ImageFile:
    """A set of real images in an npz file: ``arr_0``, (N, H, W, 3) uint8."""

    file: Path
    key: str
    notice: str | None = None

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.file.name

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the file."""
        return f"sha256 {file_sha256(self.file)}"

    @cached_property
    def images(self) -> npt.NDArray[Any]:
        """The images, (N, 3, H, W).

        Raises:
            UsageError: The file is missing or damaged, or holds something else.
        """
        remedy = "Give an npz with arr_0, uint8 (N, H, W, 3), or null for the data set's images."
        try:
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                images: npt.NDArray[Any] = stored["arr_0"]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            problem = f"{self.file} holds no images arr_0 ({error})."
            raise UsageError(problem, key=self.key, remedy=remedy) from error
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            problem = f"arr_0 of {self.file} is {images.dtype} {images.shape}."
            raise UsageError(problem, key=self.key, remedy=remedy)
        return images.transpose(0, 3, 1, 2)


class ADMPrecisionRecall(PrecisionRecall):
    """Precision and recall as published with ADM's evaluator: distances in float16, k = 3.

    Published numbers are of 50,000 samples against the 10,000 images of a reference batch, and
    depend on both counts. How float16 sums are rounded is the device's: expect differences in the
    third digit between devices, and from the float64 distances of :class:`PrecisionRecall`.

    Args:
        extractor: Inception's pool3 for the published numbers.
        name: Stem of the metric's key, ``precision_recall`` and more.
        k: Neighbour that sets the radius, >= 1.
        reference_images: The reference batch, an npz file with ``arr_0``, as
            ``VIRTUAL_imagenet256_labeled.npz``; None = all images of the data set.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        name: str,
        k: int = 3,
        reference_images: Path | str | None = None,
    ) -> None:
        super().__init__(extractor, name=name, k=k)
        self.settings = f"k {k}, float16 distances"
        self.batch: ImageFile | None = None
        if reference_images is not None:
            key = f"metric.{name}.reference_images"
            self.batch = ImageFile(expanded(reference_images), key=key)

    def check(self) -> None:
        if self.batch is not None:
            self.refuse_few(len(self.batch.images), what=self.batch.name)
        super().check()

    def set_reference(self, reference: SampleSet) -> None:
        if self.batch is None:
            super().set_reference(reference)
            return
        super().set_reference(self.batch)
        self._protocol = replace(
            self.protocol,
            reference=self.batch.name,
            reference_fingerprint=self.batch.fingerprint,
            reference_split=None,
            n_ref=len(self.batch.images),
        )

    def closed(self, rows: Tensor) -> Mapping[str, float]:
        values = half_precision_recall(rows, self.reference, k=self.k)
        return dict(zip(("precision", "recall"), values, strict=True))
