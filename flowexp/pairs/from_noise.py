"""Pairs that begin at noise: a draw, and the sample the teacher makes of it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from flowexp.data import quantize
from flowexp.pairs.base import Array, PairMaker
from flowexp.paths import Source
from flowexp.pipeline import FlowexpLatents, Latents, Pipeline
from flowexp.pipeline.latents import Draws
from flowexp.seeding import generator

__all__ = ["FromNoise"]


class FromNoise(PairMaker):
    """A source draw per seed, and the end of the teacher's ODE that starts there.

    Args:
        images: ``uint8`` keeps the 256 levels that a picture has (the published stores do), a
            quarter of the size of ``float32``, which keeps the samples as they are. Points are
            always float32.
        noise: ``seeds`` draws the noise again when it is needed, bit for bit; ``arrays`` keeps it.
        labels_of_data: Draw labels as frequent as in the data set instead of uniformly.
        first_seed: Where seeds begin if none are named. Evaluations begin at 0, and draws that a
            student was trained on would flatter it.

    Raises:
        ValueError: Another value.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, and Lee et al., RF++, 2024,
    arXiv 2405.20320, whose stores keep 8-bit pictures and the state of a generator.
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
        """Seeds stand for flowexp's own draws only; labels of data need labels.

        Raises:
            ValueError: Other latents, or no labels.
        """
        if self.noise == "seeds" and not isinstance(teacher.latents, FlowexpLatents):
            raise ValueError(
                f"noise=seeds stands for flowexp's own draws, not for those of "
                f"{type(teacher.latents).__name__}; use start.noise=arrays"
            )
        if self.labels_of_data:
            self._data_labels(teacher)

    def formats(self, teacher: Pipeline) -> tuple[str, str]:
        return (self.images if len(teacher.shape) == 3 else "float32"), self.noise

    def labels_law(self, teacher: Pipeline) -> str:
        if teacher.task.num_classes == 0:
            return "none"
        if self.labels_of_data:
            return f"as frequent as in {teacher.data().name}"
        label = getattr(teacher.task, "label", None)
        return "uniform" if label is None else f"class {label}"

    def make(self, teacher: Pipeline, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        seeds = members.tolist()
        sampled = teacher
        if self.labels_of_data:
            labels_of_data = _LabelsOfData(teacher.latents, self._data_labels(teacher))
            sampled = teacher.replace(latents=labels_of_data)
        as_levels = self.formats(teacher)[0] == "uint8"
        images, labels, nfe = [], [], []
        for batch in sampled.batches(seeds):
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
            columns["noise"] = self._noise(teacher, seeds)
        return columns

    def _noise(self, teacher: Pipeline, seeds: list[int]) -> Array:
        rows = []
        for first in range(0, len(seeds), teacher.batch_size):
            draws = teacher.latents.draw(
                seeds[first : first + teacher.batch_size],
                shape=teacher.shape,
                source=teacher.model.path.source,
                num_classes=teacher.task.num_classes,
                device=teacher.device,
            )
            rows.append(draws.e.float().cpu().numpy())
        return np.concatenate(rows)

    def _data_labels(self, teacher: Pipeline) -> npt.NDArray[np.int64]:
        """The classes of the data.

        Raises:
            ValueError: There are none, or the teacher knows none.
        """
        data = teacher.data()
        if teacher.task.num_classes == 0 or data.labels is None or data.labels.ndim != 1:
            raise ValueError(
                f"labels_of_data is true, but the teacher or {data.name} has no classes"
            )
        labels: npt.NDArray[np.int64] = data.labels
        return labels


class _LabelsOfData(Latents):
    """The draws of another rule, with labels as frequent as in a data set."""

    def __init__(self, latents: Latents, labels: npt.NDArray[np.int64]) -> None:
        self.latents = latents
        self.labels = labels

    def draw(
        self,
        seeds: Sequence[int],
        *,
        shape: Sequence[int],
        source: Source,
        num_classes: int = 0,
        device: torch.device | str = "cpu",
    ) -> Draws:
        """Labels are those of an item drawn from (seed, "labels")."""
        draws = self.latents.draw(
            seeds, shape=shape, source=source, num_classes=num_classes, device=device
        )
        items = [
            int(torch.randint(len(self.labels), (), generator=generator(seed, "labels")))
            for seed in seeds
        ]
        return Draws(draws.e, torch.from_numpy(self.labels[items]).to(device), draws.noise)
