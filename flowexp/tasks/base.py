"""The protocol of tasks: conditions, and perhaps a target, of each sample; plain generation."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from flowexp.data import DataBatch
from flowexp.errors import UsageError
from flowexp.networks.base import NO_LABEL
from flowexp.requirements import Part, Parts, Unmet, all_of, on_dropped_labels
from flowexp.seeding import generator

__all__ = ["Task", "Generation", "refuse_given"]


class Task(Part, ABC):
    """The conditions, and perhaps the targets, of samples.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.

    Attributes:
        num_classes: Number of classes that labels are drawn from; 0 = no labels.
        classes_without_images: Those among them that the model was not trained on; none is drawn.
        gives_tokens: Whether the conditions are captions, under ``tokens``.
        gives: Names of its conditions besides labels and captions; a network takes them under
            these names, see :mod:`flowexp.networks.conditions`.
        gives_encoded: Those among them that are images; a flow on latents is given their latents.
        made_of_latents: Whether those of a flow on latents are made of the latents in training, as
            they are in sampling; otherwise they are made of the images.
        gives_image: Whether it gives the sampler an image to reconstruct, under ``image``.
    """

    num_classes: int = 0
    classes_without_images: Sequence[int] = ()
    gives_tokens: bool = False
    gives: Sequence[str] = ()
    gives_encoded: Sequence[str] = ()
    made_of_latents: bool = False
    gives_image: bool = False

    @property
    def draws_classes(self) -> bool:
        """Whether classes of samples are drawn if none are given."""
        return self.num_classes > 0

    @property
    def asks_without_label(self) -> bool:
        """Whether its samples are those of no class or caption, of a network that takes them."""
        return False

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that takes the conditions it gives, and was trained on them."""
        name, off = type(self).__name__, "choose a class"
        yield from all_of(self._suits_captions(parts), self._suits_conditions(parts))
        if self.asks_without_label:
            yield from on_dropped_labels(parts, name=name, key=".label", remedy=off)

    def _suits_captions(self, parts: Parts) -> Iterator[Unmet]:
        name = type(self).__name__
        if parts.network.takes_tokens and not self.gives_tokens:
            problem = f"the network is conditioned on captions, which {name} does not give."
            yield Unmet(".", problem, "Use task=captions.")
        elif self.gives_tokens and not parts.network.takes_tokens:
            problem = f"{name} makes captions, which the network does not take."
            yield Unmet("network", problem, "Use network=captioned, or task=generation.")

    def _suits_conditions(self, parts: Parts) -> Iterator[Unmet]:
        name, taken = type(self).__name__, parts.network.condition_dropout
        if taken is None:
            return  # a foreign module, which is given them by name
        unused = [given for given in self.gives if given not in taken]
        missing = [each for each, share in taken.items() if each not in self.gives and share == 0.0]
        if unused:
            problem = f"{name} gives {' and '.join(unused)}, which the network does not take."
            yield Unmet(".", problem, "Train a network with this task, or choose another.")
        elif missing:
            what = " and ".join(missing)
            problem = f"in training the network always had {what}, which {name} does not give."
            yield Unmet(".", problem, "Choose the task that it was trained with.")

    @property
    def classes(self) -> list[int]:
        """The classes that labels are drawn from: all that have an image."""
        return sorted(set(range(self.num_classes)) - set(self.classes_without_images))

    @abstractmethod
    def conditions(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | None]:
        """The conditions of the samples with these seeds, one row each.

        Row ``j`` depends on ``seeds[j]`` only, so that a sample is the same in every batch.
        ``labels``, (B,) int64, were drawn together with the latents; None = the task draws its own.
        """

    def conditions_of(self, labels: Tensor | None) -> dict[str, Tensor | None]:
        """The conditions in training: ``labels`` are (B,), int64, or vectors (B, num_classes)."""
        return {"labels": labels}

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
        """The conditions in training, one row for each item of a batch of the training split.

        Args:
            batch: The items as they are stored, with their partners and positions.
            x: Their data after augmentation, (B, ...), in [-1, 1].
            labels: Those of :meth:`conditions_of`; None for a network without.
            rng: Generator on the CPU, the same on all processes; what is drawn for the batches of
                all of them does not depend on their number.
            rank: This process.
            world_size: Number of processes.
        """
        return {} if labels is None else self.conditions_of(labels)

    def beside(self, conditions: Mapping[str, Tensor | None]) -> list[Tensor]:
        """Images of the conditions, (B, C, H, W) in [-1, 1], that grids show before each sample."""
        return []

    def finished(self, x: Tensor, conditions: Mapping[str, Tensor | None]) -> Tensor:
        """Samples (B, ...) as the task returns them; unchanged by default."""
        return x

    def targets(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor | None:
        """The ground truth of the samples with these seeds, for metrics that compare one by one.

        One image per seed, (B, C, H, W), uint8 levels or floating data in [-1, 1]; None where
        there is none, as in generation.
        """
        return None


def refuse_given(task: Task, *, what: str, key: str) -> None:
    """Refuse a task with conditions that ``what`` (a plural) would leave out.

    Raises:
        UsageError: The task gives more than labels and captions.
    """
    if task.gives:
        raise UsageError(
            f"{what} leave out the {' and '.join(task.gives)} that {type(task).__name__} gives.",
            key=key,
            remedy="Take a run whose network is conditioned on nothing else than labels.",
        )


class Generation(Task):
    """Samples of the data distribution; with classes, of classes drawn uniformly.

    Args:
        num_classes: Number of classes of the network, >= 0; 0 = unconditional.
        label: The class of every sample, -1 for "no class", or None to draw one per sample.
    """

    def __init__(self, *, num_classes: int = 0, label: int | None = None) -> None:
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}; allowed: integers >= 0")
        if label is not None and not -1 <= label < num_classes:
            allowed = f"-1 to {num_classes - 1}" if num_classes else "null, there are no classes"
            raise ValueError(f"task.label is {label}; allowed: {allowed}")
        self.num_classes = num_classes
        self.label = label

    @property
    def draws_classes(self) -> bool:
        return super().draws_classes and self.label is None

    @property
    def asks_without_label(self) -> bool:
        return self.label == NO_LABEL or self.num_classes == 0

    def conditions(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | None]:
        """``labels``, (B,) int64: the fixed class, those given, or drawn from (seed, "labels")."""
        if self.num_classes == 0:
            return {}
        if self.label is not None:
            return {"labels": torch.full((len(seeds),), self.label, device=device)}
        if labels is not None:
            return {"labels": labels.to(device)}
        streams, classes = [generator(seed, "labels") for seed in seeds], self.classes
        drawn = [torch.randint(len(classes), (), generator=stream) for stream in streams]
        return {"labels": torch.tensor(classes)[torch.stack(drawn)].to(device)}
