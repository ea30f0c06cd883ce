"""Tasks whose samples belong to held-out images, one to each in turn."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from flowexp.data import DataBatch, Dataset, ImageArrays, as_data, gather_batch
from flowexp.errors import UsageError
from flowexp.networks.conditions import Condition
from flowexp.requirements import Parts, Unmet, all_of, of_images
from flowexp.seeding import generator
from flowexp.tasks.base import Task

__all__ = ["HeldOut", "OfImages", "TowardsImages"]


class HeldOut(Task):
    """A task in which the sample of seed i belongs to image i mod N of the N images of a split.

    Args:
        dataset: The data.
        split: The split that samples belong to.

    Raises:
        ValueError: split is not one of the two.
    """

    def __init__(self, *, dataset: Dataset, split: Literal["heldout", "train"] = "heldout") -> None:
        if split not in ("heldout", "train"):
            raise ValueError(f"split is {split!r}; allowed: heldout, train")
        self.dataset = dataset
        self.split = split
        self._arrays: dict[str, ImageArrays] = {}

    @property
    def draws_classes(self) -> bool:
        """No: the classes are those of the images."""
        return False

    def _items(self, seeds: Sequence[int]) -> DataBatch:
        """The images of these seeds."""
        arrays = self.arrays(self.split)
        return gather_batch(arrays, np.asarray(seeds, dtype=np.int64) % len(arrays))

    def arrays(self, split: str) -> ImageArrays:
        """A split of the data, read once."""
        if split not in self._arrays:
            found = self.dataset.train() if split == "train" else self.dataset.heldout()
            if found is None:
                name = type(self).__name__
                more = self.dataset.how_to_hold_out
                raise UsageError(
                    f"{name} samples for held-out images, but {self.dataset.name} has none.",
                    key="task.split",
                    remedy="Set task.split=train" + (f", or: {more}" if more else "."),
                )
            self._arrays[split] = found
        return self._arrays[split]


class OfImages(HeldOut):
    """A task whose conditions are made of images, and perhaps of what is stored with them.

    In training they are made of the batch. A sample has the label of its image if the network takes
    labels, and its draws depend on its seed alone. Arguments not listed here are those of
    :class:`HeldOut`.

    Args:
        inputs: The encoders of the conditions by name; the network has the same, see
            :mod:`flowexp.networks.conditions`.
        num_classes: Number of classes of the network, >= 0; 0 = unconditional.

    Attributes:
        given_names: The conditions that the task makes; ``inputs`` must name all of them.
        of_partners: Whether they are made of what is stored with each image.
        without_partners: What to do where nothing is stored, as a sentence.

    Raises:
        ValueError: ``inputs`` has other names, or a value is not allowed.
    """

    given_names: tuple[str, ...] = ()
    of_partners: bool = False
    without_partners: str = "Use data of pairs, such as dataset=digits_blurred."

    def __init__(
        self,
        *,
        dataset: Dataset,
        inputs: Mapping[str, Condition],
        num_classes: int = 0,
        split: Literal["heldout", "train"] = "heldout",
    ) -> None:
        if sorted(inputs) != sorted(self.given_names):
            allowed = ", ".join(self.given_names)
            raise ValueError(f"inputs is {', '.join(inputs) or 'empty'}; allowed: {allowed}")
        super().__init__(dataset=dataset, split=split)
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}; allowed: integers >= 0")
        self.inputs = inputs
        self.num_classes = num_classes
        self.gives = self.given_names
        self.gives_encoded = [name for name, one in inputs.items() if one.encoded]

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images, the partners that it uses, and a network with these conditions."""
        name = type(self).__name__
        yield from all_of(
            of_images(parts, name=name, remedy="Use task=generation."),
            super().needs(parts),
            self._stored_pairs(parts),
            self._other_images(parts),
            *((self._partners(parts), self._unchanged(parts)) if self.of_partners else ()),
        )

    def _stored_pairs(self, parts: Parts) -> Iterator[Unmet]:
        if parts.pairs is not None:
            what = " and ".join(self.given_names)
            problem = f"pairs were made without the {what} that {type(self).__name__} gives."
            yield Unmet("pairs", problem, "Leave pairs out, or use task=generation.")

    def _other_images(self, parts: Parts) -> Iterator[Unmet]:
        if parts.coupling.gives_times or parts.coupling.chooses_items:
            own, other = type(self).__name__, type(parts.coupling).__name__
            problem = f"{other} trains on images of its own, of which {own} knows nothing."
            yield Unmet("coupling", problem, "Use coupling=independent.")

    def _partners(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.dataset.has_partners:
            name, data = type(self).__name__, type(parts.dataset).__name__
            problem = f"{name} needs an image stored with each image, which {data} does not have."
            yield Unmet(".", problem, self.without_partners)

    def _unchanged(self, parts: Parts) -> Iterator[Unmet]:
        if parts.augmentation.changes_images:
            changing, name = type(parts.augmentation).__name__, type(self).__name__
            problem = (
                f"{changing} changes images, but not those stored with them, which {name} uses."
            )
            remedy = "Use augmentation=none; dataset.hflip flips both."
            yield Unmet("augmentation", problem, remedy)

    @abstractmethod
    def made_of(
        self, batch: DataBatch, x: Tensor, uniforms: Tensor, *, split: str
    ) -> dict[str, Tensor | None]:
        """The conditions named in ``given_names``, one row for each item.

        Args:
            batch: The items as they are stored.
            x: Their data, (B, C, H, W), in [-1, 1].
            uniforms: Numbers in [0, 1), (B, self.uniforms(H, W)), float32, on the CPU.
            split: The split that they are of, see :meth:`arrays`.
        """

    def beside(self, conditions: Mapping[str, Tensor | None]) -> list[Tensor]:
        """The condition ``image``, if it is one."""
        image = conditions.get("image")
        return [] if image is None else [image]

    def uniforms(self, height: int, width: int) -> int:
        """How many uniform numbers the conditions of an image of this size need."""
        return 0

    def of_data(
        self,
        batch: DataBatch,
        x: Tensor,
        labels: Tensor | None,
        *,
        rng: torch.Generator,
        rank: int = 0,
        world_size: int = 1,
    ) -> dict[str, Tensor | None]:
        rows = slice(rank * len(x), (rank + 1) * len(x))
        drawn = torch.rand(world_size * len(x), self.uniforms(*x.shape[-2:]), generator=rng)
        made = self.made_of(batch, x, drawn[rows], split="train")
        return {**super().of_data(batch, x, labels, rng=rng), **made}

    def conditions(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | None]:
        """Those of the images of these seeds, with the labels of the images, not ``labels``."""
        batch = self._items(seeds).to(device)
        x = as_data(batch.images)
        count = self.uniforms(*x.shape[-2:])
        streams = [generator(seed, "conditions") for seed in seeds]
        uniforms = torch.stack([torch.rand(count, generator=stream) for stream in streams])
        made = self.made_of(batch, x, uniforms, split=self.split)
        return {**({"labels": batch.labels} if self.num_classes else {}), **made}


class TowardsImages(OfImages):
    """A task whose sample has an image as target, which metrics compare it with one by one."""

    def targets(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor:
        """The images of these seeds, as they are stored."""
        return self._items(seeds).images.to(device)
