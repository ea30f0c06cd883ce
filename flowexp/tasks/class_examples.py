"""Generation from a few examples."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.data import DataBatch, Dataset, as_data
from flowexp.errors import UsageError
from flowexp.networks.conditions import Condition
from flowexp.tasks.held_out import OfImages

__all__ = ["ClassExamples"]


class ClassExamples(OfImages):
    """Other images of the class of each image, the condition ``examples``, (B, count, C, H, W).

    They are drawn with replacement from the same split, without the image itself; an image that is
    alone in its class has none. So samples show classes by examples that were not trained on.

    Args:
        count: Number of examples, >= 1.
    """

    given_names = ("examples",)

    def __init__(
        self,
        *,
        dataset: Dataset,
        inputs: Mapping[str, Condition],
        count: int = 4,
        num_classes: int = 0,
        split: Literal["heldout", "train"] = "heldout",
    ) -> None:
        super().__init__(dataset=dataset, inputs=inputs, num_classes=num_classes, split=split)
        if count < 1:
            raise ValueError(f"count is {count}; expected at least 1")
        self.count = count
        self._members: dict[str, list[npt.NDArray[np.int64]]] = {}

    def uniforms(self, height: int, width: int) -> int:
        return self.count

    def made_of(
        self, batch: DataBatch, x: Tensor, uniforms: Tensor, *, split: str
    ) -> dict[str, Tensor | None]:
        images, classes = self.arrays(split).images, self._classes(split)
        examples = torch.zeros(len(x), self.count, *x.shape[1:])
        for row, (item, draws) in enumerate(zip(batch.index.tolist(), uniforms, strict=True)):
            own = classes[item]
            others = len(own) - 1
            if others > 0:
                chosen = (draws * others).long().clamp(max=others - 1).numpy()
                chosen = chosen + (chosen >= np.searchsorted(own, item))
                examples[row] = as_data(torch.from_numpy(np.take(images, own[chosen], axis=0)))
        return {"examples": examples.to(x.device)}

    def _classes(self, split: str) -> list[npt.NDArray[np.int64]]:
        """For each item the positions of all items of its class, in order."""
        if split not in self._members:
            arrays = self.arrays(split)
            if arrays.labels is None or arrays.labels.ndim != 1:
                raise UsageError(
                    f"ClassExamples needs class indices, which {arrays.name} does not have.",
                    key="task",
                    remedy="Use data with classes.",
                )
            known = range(arrays.num_classes)
            members = {k: np.flatnonzero(arrays.labels == k) for k in known}
            self._members[split] = [members[k] for k in arrays.labels.tolist()]
        return self._members[split]

    def beside(self, conditions: Mapping[str, Tensor | None]) -> list[Tensor]:
        examples = conditions["examples"]
        return [] if examples is None else [*examples.unbind(dim=1)]
