"""What pairs are made of: a teacher and draws, or a teacher and data."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.data import as_data, gather_batch, quantize
from flowexp.errors import UsageError
from flowexp.pipeline import FlowexpLatents, Pipeline
from flowexp.progress import advance
from flowexp.samplers import Inversion
from flowexp.seeding import SampleNoise, generator

__all__ = ["PairMaker", "FromData", "FromNoise"]

Array = npt.NDArray[Any]


class PairMaker(ABC):
    """The rule by which seeds (or positions in a data set) become pairs.

    Attributes:
        identity: Name of the column that identifies a pair: ``seeds`` or ``index``.
        needs_data: Whether the data set's training split is read.
        first: First seed or position, where none are named.
    """

    identity: str = "seeds"
    needs_data: bool = False
    first: int = 0

    @abstractmethod
    def check(self, teacher: Pipeline) -> None:
        """Raise ``ValueError`` for a teacher that does not fit this rule."""

    @abstractmethod
    def formats(self, teacher: Pipeline) -> tuple[str, str]:
        """Storage of images (``uint8``, ``float32``) and of noise (``seeds``, ``arrays``)."""

    @abstractmethod
    def label_distribution(self, teacher: Pipeline) -> str:
        """The distribution of the labels in words; ``none`` without."""

    @abstractmethod
    def make(self, teacher: Pipeline, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        """The columns of the pairs with these seeds or positions, (n,); a function of them alone.

        They are ``images``, ``nfe``, the column of :attr:`identity`, and where there are any
        ``labels`` and ``noise``. It may report pairs by :func:`flowexp.progress.advance`.
        """


class FromData(PairMaker):
    """Each image of the data set's training split, or the mean of its latent, with its inversion.

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
        latents = teacher.autoencoder.encodes
        return "float32" if latents else str(teacher.data().images.dtype), "arrays"

    def label_distribution(self, teacher: Pipeline) -> str:
        return "the data's own" if teacher.task.num_classes else "none"

    def make(self, teacher: Pipeline, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        data, inversion = teacher.data(), self._inversion(teacher)
        images, noise, nfe = [], [], []
        for first in range(0, len(members), teacher.batch_size):
            index = members[first : first + teacher.batch_size]
            batch = gather_batch(data, index).to(teacher.device)
            images.append(batch.images.cpu().numpy())
            conditions = {"labels": batch.labels} if teacher.task.num_classes else {}
            with torch.inference_mode():
                found = inversion.invert(
                    teacher.model,
                    as_data(batch.images),
                    noise=SampleNoise(index.tolist(), stream="inversion"),
                    on_step=None,
                    **conditions,
                )
            noise.append(_finite(found.x, index.tolist()).float().cpu().numpy())
            nfe.append(found.nfe.cpu().numpy())
            advance(len(index))
        columns: dict[str, Array] = {
            "index": members,
            "images": np.concatenate(images),
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


class FromNoise(PairMaker):
    """A source draw per seed, and the end of the teacher's ODE that starts there.

    Args:
        images: ``uint8`` keeps the 256 levels that an image has, as RF++'s stores do, a quarter of
            the size of ``float32``, which keeps the samples unclipped and unrounded, as the stores
            of rectified flow and SlimFlow do. Points and latents are always float32.
        noise: ``seeds`` draws the noise again when it is needed, bit for bit; ``arrays`` keeps it.
        labels_of_data: Draw labels as frequent as in the data set instead of uniformly.
        first_seed: First seed if none are named, >= 0. Evaluations begin at 0; scoring a student on
            draws that it was trained on would flatter it.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, whose code stores float32
    arrays of noise and samples (z0.npy, z1.npy), and Lee et al., RF++, 2024, arXiv 2405.20320,
    whose stores keep 8-bit images and the state of a generator.
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
        if not 0 <= first_seed < 2**62:
            raise ValueError(f"first_seed is {first_seed}; allowed: integers from 0 to 2^62 - 1")
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
        pixels = len(teacher.shape) == 3 and not teacher.autoencoder.encodes
        return (self.images if pixels else "float32"), self.noise

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
        for batch in teacher.batches(seeds, labels=given, decode=False):
            x = _finite(batch.x, batch.seeds)
            images.append((quantize(x) if as_levels else x).cpu().numpy())
            nfe.append(batch.nfe.numpy())
            advance(len(batch.seeds))
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


def _finite(x: Tensor, members: Sequence[int]) -> Tensor:
    """What a teacher made of seeds or positions; refused unless it is finite."""
    finite = x.flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        lost = [member for member, fine in zip(members, finite.tolist(), strict=True) if not fine]
        raise UsageError(
            f"the teacher has diverged: {len(lost)} of {len(members)} results are not finite, the "
            f"first of {lost[0]}.",
            key="run",
            remedy="Pairs need a sound teacher: name another run, checkpoint or sampler.",
        )
    return x
