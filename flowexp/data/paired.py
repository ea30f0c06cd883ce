"""Pairs of items of two data sets, and a data set as source."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.data.base import Dataset, ImageArrays
from flowexp.data.derived import DerivedDataset
from flowexp.data.partners import StoredPartners
from flowexp.data.quantization import as_data
from flowexp.errors import UsageError
from flowexp.paths import Source

__all__ = ["DatasetSource", "Paired"]


class Paired(DerivedDataset):
    """A data set whose item i has item i of another as its source, for coupling=pairs.

    Args:
        dataset: The data to generate; their resolution, channels and number of classes are
            declared again.
        partner: The data to start from; as many items of the same shape, in the same order.
        hflip: Whether training mirrors images at random, with their partners.

    Raises:
        ValueError: The two have different shapes.
        UsageError: A declared value is wrong.
    """

    has_partners = True

    def __init__(
        self,
        dataset: Dataset,
        *,
        partner: Dataset,
        resolution: int,
        channels: int,
        num_classes: int,
        hflip: bool = False,
    ) -> None:
        if dataset.shape != partner.shape:
            raise ValueError(
                f"{dataset.name} has samples of shape {dataset.shape}, but {partner.name} of "
                f"{partner.shape}"
            )
        super().__init__(
            dataset,
            name=f"{dataset.name} from {partner.name}",
            hflip=hflip,
            resolution=resolution,
            channels=channels,
            num_classes=num_classes,
        )
        self.partner = partner

    def locate(self) -> None:
        super().locate()
        self.partner.locate()

    def _read(self) -> ImageArrays:
        return self._together(self.dataset.train(), self.partner.train())

    def _read_heldout(self) -> ImageArrays | None:
        arrays, partner = self.dataset.heldout(), self.partner.heldout()
        return None if arrays is None or partner is None else self._together(arrays, partner)

    def _together(self, arrays: ImageArrays, partner: ImageArrays) -> ImageArrays:
        if len(arrays) != len(partner):
            raise UsageError(
                f"{arrays.name} has {len(arrays)} items and {partner.name} {len(partner)}; "
                "pairs need equal numbers.",
                key="dataset.partner",
            )
        return ImageArrays.of(
            arrays.images,
            arrays.labels,
            num_classes=arrays.num_classes,
            name=f"{arrays.name} from {partner.name}",
            notice=arrays.notice,
            partners=StoredPartners(partner.images),
        )


class DatasetSource(Source):
    """The items of a data set as source: training draws from its training split.

    Sampling starts from items not seen in training, so the results are not memorised.

    Args:
        start_from: Split that sampling starts from; ``train`` to make pairs for another training.

    Raises:
        ValueError: start_from is not one of the two.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, section 4 (image-to-image
    translation): the same loss, with e a sample of another data set.
    """

    is_gaussian = False

    def __init__(
        self, dataset: Dataset, *, start_from: Literal["heldout", "train"] = "heldout"
    ) -> None:
        if start_from not in ("heldout", "train"):
            raise ValueError(f"start_from is {start_from!r}; allowed: heldout, train")
        self.dataset = dataset
        self.start_from = start_from
        self._placed: dict[tuple[str, torch.device], Tensor] = {}

    def sample(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Items of the training split, drawn with replacement, on the generator's device."""
        return self._drawn("train", shape, rng, dtype)

    def prior(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        return self._drawn(self.start_from, shape, rng, dtype)

    def _drawn(
        self, split: str, shape: Sequence[int], rng: torch.Generator, dtype: torch.dtype
    ) -> Tensor:
        if tuple(shape[1:]) != self.dataset.shape:
            raise ValueError(
                f"the source needs draws of shape {tuple(shape[1:])}, but {self.dataset.name} has "
                f"samples of shape {self.dataset.shape}"
            )
        items = self._items(split, rng.device)
        index = torch.randint(len(items), (shape[0],), generator=rng, device=rng.device)
        return as_data(items[index]).to(dtype)

    def _items(self, split: str, device: torch.device) -> Tensor:
        """All items of a split on a device."""
        if (split, device) not in self._placed:
            arrays = self.dataset.train() if split == "train" else self.dataset.heldout()
            if arrays is None:
                raise UsageError(
                    f"{self.dataset.name} has no held-out items to start sampling from.",
                    key="path.source.start_from",
                    remedy="Set path.source.start_from=train.",
                )
            items: npt.NDArray[Any] = np.ascontiguousarray(arrays.images)
            self._placed[split, device] = torch.from_numpy(items).to(device)
        return self._placed[split, device]

    def identity(self) -> str:
        return f"DatasetSource({self.dataset.name}, start_from={self.start_from})"
