"""Pairs from data: an image, and the draw that the teacher's ODE leads back to."""

import numpy as np
import numpy.typing as npt
import torch

from flowexp.data import as_data, gather_batch
from flowexp.pairs.base import Array, PairMaker
from flowexp.pipeline import Pipeline
from flowexp.samplers import Inversion
from flowexp.seeding import SampleNoise

__all__ = ["FromData"]


class FromData(PairMaker):
    """Each image of the data set's training split with its inversion.

    The arguments are those of :class:`flowexp.samplers.Inversion`.

    Source: Lee et al., RF++, 2024, arXiv 2405.20320, configuration G: 50,000 real images of
    CIFAR-10, inverted with 128 evaluations.
    """

    identity = "index"
    needs_data = True

    def __init__(
        self,
        *,
        start_time: float | None = None,
        noise_scale: float = 0.0,
        final_euler: bool = False,
    ) -> None:
        self.start_time = start_time
        self.noise_scale = noise_scale
        self.final_euler = final_euler

    def check(self, teacher: Pipeline) -> None:
        self._inversion(teacher).check(teacher.model)

    def formats(self, teacher: Pipeline) -> tuple[str, str]:
        return str(teacher.data().images.dtype), "arrays"

    def label_distribution(self, teacher: Pipeline) -> str:
        return "the data's own" if teacher.task.num_classes else "none"

    def make(self, teacher: Pipeline, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        data, inversion = teacher.data(), self._inversion(teacher)
        noise, nfe = [], []
        for first in range(0, len(members), teacher.batch_size):
            index = members[first : first + teacher.batch_size]
            batch = gather_batch(data, index).to(teacher.device)
            conditions = {"labels": batch.labels} if teacher.task.num_classes else {}
            with torch.inference_mode():
                found = inversion.invert(
                    teacher.model,
                    as_data(batch.images),
                    noise=SampleNoise(index.tolist(), stream="inversion"),
                    on_step=None,
                    **conditions,
                )
            noise.append(found.x.float().cpu().numpy())
            nfe.append(found.nfe.cpu().numpy())
        columns: dict[str, Array] = {
            "index": members,
            "images": np.take(np.asarray(data.images), members, axis=0),
            "noise": np.concatenate(noise),
            "nfe": np.concatenate(nfe),
        }
        if teacher.task.num_classes and data.labels is not None:
            columns["labels"] = data.labels[members]
        return columns

    def _inversion(self, teacher: Pipeline) -> Inversion:
        return Inversion(
            teacher.sampler,  # type: ignore[arg-type]  # its constructor refuses other samplers
            start_time=self.start_time,
            noise_scale=self.noise_scale,
            final_euler=self.final_euler,
        )
