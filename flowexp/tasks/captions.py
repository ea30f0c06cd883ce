"""Generation from captions: class names as text, or a given text."""

import re
import zlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.networks.base import NO_LABEL
from flowexp.tasks.base import Generation

__all__ = ["Captions", "Tokenizer", "WordTokenizer"]


class Tokenizer(Protocol):
    """Turns texts into the token ids of a text encoder."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids, (N, L), int64, >= 0."""


class _Named(Protocol):
    name: str
    num_classes: int
    class_names: tuple[str, ...] | None


class WordTokenizer(Tokenizer):
    """Words by a checksum: no vocabulary to store, any text is allowed, the same everywhere.

    Two words share an id by chance with probability 1 / ``vocabulary``.

    Args:
        vocabulary: Number of token ids, >= 2; id 0 is padding.
        length: L, words that are read, >= 1; the rest is ignored.
    """

    def __init__(self, *, vocabulary: int = 4096, length: int = 12) -> None:
        for name, value, least in (("vocabulary", vocabulary, 2), ("length", length, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}; expected at least {least}")
        self.vocabulary = vocabulary
        self.length = length

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Lower-case words as ids from 1 on, padded with 0."""
        rows = torch.zeros(len(texts), self.length, dtype=torch.int64, device="cpu")
        for row, text in zip(rows, texts, strict=True):
            words = re.findall(r"\w+", text.lower())[: self.length]
            ids = [1 + zlib.crc32(word.encode()) % (self.vocabulary - 1) for word in words]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return rows


class Captions(Generation):
    """Samples for captions: ``template`` with the name of a class, or one text for all.

    In training the classes of the data become captions by the same template. Labels are passed on
    for pairs and records; the network uses the tokens only.

    Args:
        dataset: Its class names become captions.
        template: Text with ``{}`` for the name.
        label: As in :class:`Generation`; -1 is "no caption".
        text: The caption of every sample, instead of a class.

    Raises:
        UsageError: No tokenizer is given, or the data set's classes have no names.
        ValueError: There is no such class, template has no ``{}``, or both label and text are
            given.
    """

    gives_tokens = True

    def __init__(
        self,
        *,
        dataset: _Named,
        tokenizer: Tokenizer | None,
        template: str = "a photo of a {}",
        num_classes: int = 0,
        label: int | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, label=label)
        if tokenizer is None:
            raise UsageError(
                "captions need a tokenizer, but none is given.",
                key="task.tokenizer",
                remedy="Use task/tokenizer=words, or give a _target_ that maps texts to integers "
                "(N, L), the one your encoder was trained with.",
            )
        names = dataset.class_names
        if names is None or len(names) != num_classes:
            raise UsageError(
                f"the {num_classes} classes of {dataset.name} have no names to make captions of.",
                key="task",
                remedy="Use a data set with class_names, or task=generation with labels.",
            )
        if "{}" not in template:
            raise ValueError(f"task.template is {template!r}; expected a text with {{}} in it")
        if label is not None and text is not None:
            raise ValueError(f"task.label is {label} and task.text {text!r}; give one of them")
        self.captions = [template.format(name) for name in names]
        found = tokenizer(self.captions)
        # Label -1 selects the last row.
        self._tokens = torch.cat([found, torch.full_like(found[:1], NO_LABEL)])
        self._text = None if text is None else tokenizer([text])

    @property
    def draws_classes(self) -> bool:
        return super().draws_classes and self._text is None

    @property
    def asks_without_label(self) -> bool:
        return self._text is None and self.label == NO_LABEL

    def conditions(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | None]:
        """``labels`` (B,) of :class:`Generation`, and ``tokens`` (B, L) of their captions."""
        if self._text is not None:
            none = torch.full((len(seeds),), NO_LABEL, device=device)
            return {"labels": none, "tokens": self._text.expand(len(seeds), -1).to(device)}
        drawn = super().conditions(seeds, labels=labels, device=device)
        return self.conditions_of(drawn["labels"])

    def conditions_of(self, labels: Tensor | None) -> dict[str, Tensor | None]:
        """``labels``, which must be class indices, and the ``tokens`` of their captions."""
        if labels is None or labels.ndim != 1:
            raise ValueError("captions need class indices, which these data do not have")
        return {"labels": labels, "tokens": self._tokens.to(labels.device)[labels]}
