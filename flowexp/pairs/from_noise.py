"""Pairs from noise: a draw, and the sample that the teacher makes from it."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from flowexp.data import quantize
from flowexp.pairs.base import Array, PairMaker
from flowexp.pipeline import FlowexpLatents, Pipeline
from flowexp.seeding import generator

__all__ = ["FromNoise"]


class FromNoise(PairMaker):
    """A source draw per seed, and the end of the teacher's ODE that starts there.

    Args:
        images: ``uint8`` keeps the 256 levels that an image has (the published stores do), a
            quarter of the size of ``float32``, which keeps the samples unrounded. Points are always
            float32.
        noise: ``seeds`` draws the noise again when it is needed, bit for bit; ``arrays`` keeps it.
        labels_of_data: Draw labels as frequent as in the data set instead of uniformly.
        first_seed: First seed if none are named, >= 0. Evaluations begin at 0; scoring a student on
            draws that it was trained on would flatter it.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, and Lee et al., RF++, 2024,
    arXiv 2405.20320, whose stores keep 8-bit images and the state of a generator.
    """

    def __init__(
        self,
        *,
        images: Literal["uint8", "float32"] = "uint8",
        noise: Literal["seeds", "arrays"] = "seeds",
        labels_of_data: bool = False,
        first_seed: int = 10_000_000,
    ) -> None:
        if images not in ("uint8", "float32"):
            raise ValueError(f"images is {images!r}; allowed: uint8, float32")
        if noise not in ("seeds", "arrays"):
            raise ValueError(f"noise is {noise!r}; allowed: seeds, arrays")
        if first_seed < 0:
            raise ValueError(f"first_seed is {first_seed}; allowed: integers >= 0")
        self.images = images
        self.noise = noise
        self.labels_of_data = labels_of_data
        self.needs_data = labels_of_data
        self.first = first_seed

    def check(self, teacher: Pipeline) -> None:
        if self.noise == "seeds" and not isinstance(teacher.latents, FlowexpLatents):
            raise ValueError(
                f"noise=seeds can only reproduce flowexp's own draws, not those of "
                f"{type(teacher.latents).__name__}; use start.noise=arrays"
            )
        if self.labels_of_data:
            self._data_labels(teacher)

    def formats(self, teacher: Pipeline) -> tuple[str, str]:
        return (self.images if len(teacher.shape) == 3 else "float32"), self.noise

    def label_distribution(self, teacher: Pipeline) -> str:
        if teacher.task.num_classes == 0:
            return "none"
        if self.labels_of_data:
            return f"as frequent as in {teacher.data().name}"
        label = getattr(teacher.task, "label", None)
        return "uniform" if label is None else f"class {label}"

    def make(self, teacher: Pipeline, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        seeds, given = members.tolist(), None
        if self.labels_of_data:
            of_data = self._data_labels(teacher)
            streams = [generator(seed, "labels") for seed in seeds]
            items = [int(torch.randint(len(of_data), (), generator=stream)) for stream in streams]
            given = torch.from_numpy(of_data[items])
        as_levels = self.formats(teacher)[0] == "uint8"
        images, labels, nfe = [], [], []
        for batch in teacher.batches(seeds, labels=given):
            images.append((quantize(batch.x) if as_levels else batch.x).cpu().numpy())
            nfe.append(batch.nfe.numpy())
            drawn = batch.conditions.get("labels")
            if drawn is not None:
                labels.append(drawn.cpu().numpy())
        columns: dict[str, Array] = {
            "seeds": members,
            "images": np.concatenate(images),
            "nfe": np.concatenate(nfe),
        }
        if labels:
            columns["labels"] = np.concatenate(labels)
        if self.noise == "arrays":
            size = teacher.batch_size
            starts = [teacher.start(seeds[i : i + size]) for i in range(0, len(seeds), size)]
            columns["noise"] = np.concatenate([start.e.float().cpu().numpy() for start in starts])
        return columns

    def _data_labels(self, teacher: Pipeline) -> npt.NDArray[np.int64]:
        """The classes of the data; ``ValueError`` without any, or for an unconditional teacher."""
        data = teacher.data()
        if teacher.task.num_classes == 0 or data.labels is None or data.labels.ndim != 1:
            raise ValueError(
                f"labels_of_data is true, but the teacher or {data.name} has no classes"
            )
        labels: npt.NDArray[np.int64] = data.labels
        return labels
