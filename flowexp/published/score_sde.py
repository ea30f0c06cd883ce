"""Checkpoints of score_sde_pytorch and rectified flow: ``checkpoint_K.pth``.

A dict of ``optimizer``, ``model`` (state dict, names prefixed ``module.``), ``ema`` (decay,
num_updates, shadow_params: a list in the order of the trainable parameters) and ``step``.

Source: Song et al., 2021, arXiv 2011.13456, and Liu et al., 2022, arXiv 2209.03003, authors' code.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.published.safe_pickle import unreadable

__all__ = ["ScoreSDECheckpoint", "load_weights_only", "read_score_sde"]

_PREFIX = "module."


@dataclass(frozen=True, eq=False)
class ScoreSDECheckpoint:
    """The content of a checkpoint, under the authors' names.

    Attributes:
        raw: The state dict.
        ema: The state dict with averaged values where there are any.
        trainable: Names of the averaged parameters, in the order of their list.
        num_updates: Of the average, if stored.
    """

    raw: dict[str, Tensor]
    ema: dict[str, Tensor]
    trainable: tuple[str, ...]
    step: int
    decay: float
    num_updates: int | None


def load_weights_only(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """A torch file of tensors in plain containers; any other is refused."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise unreadable(path, error) from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise unreadable(path, pickle.UnpicklingError(reason)) from error


def read_score_sde(path: Path) -> ScoreSDECheckpoint:
    """Read a checkpoint without running code.

    Raises:
        UsageError: The file is damaged or not such a checkpoint, or the averaged list does not
            match the parameters.
    """
    content = load_weights_only(path)
    if not _is_score_sde(content):
        raise UsageError(f"{path} is not a checkpoint of score_sde's layout.", key="file")
    raw = {str(name).removeprefix(_PREFIX): value for name, value in content["model"].items()}
    average = content["ema"]
    shadow = list(average["shadow_params"])
    trainable = _owners(raw, shadow)
    ema = raw | dict(zip(trainable, shadow, strict=True))
    updates = average.get("num_updates")
    return ScoreSDECheckpoint(
        raw=raw,
        ema=ema,
        trainable=trainable,
        step=int(content.get("step", 0)),
        decay=float(average.get("decay", 0.0)),
        num_updates=None if updates is None else int(updates),
    )


def _is_score_sde(content: object) -> bool:
    match content:
        case {"model": {**model}, "ema": {"shadow_params": list() | tuple()}}:
            return all(isinstance(value, Tensor) for value in model.values())
    return False


def _owners(state: Mapping[str, Tensor], shadow: Sequence[Tensor]) -> tuple[str, ...]:
    """The parameters that the averaged list belongs to: in stored order, shape by shape.

    Buffers and frozen parameters lie between them. Where shapes alone leave a choice, averages are
    matched to the nearest values.
    """
    names = list(state)
    positions = _alignment(list(state.values()), shadow)
    if positions is None:
        raise UsageError(
            f"the {len(shadow)} averaged tensors do not fit the {len(names)} tensors of the model "
            f"in their order.",
            key="file",
            remedy="The file is damaged, or was written by other code.",
        )
    return tuple(names[i] for i in positions)


def _alignment(values: Sequence[Tensor], shadow: Sequence[Tensor]) -> list[int] | None:
    """Positions in ``values``, increasing, of least total distance to ``shadow``; None if none."""
    rows, columns = len(shadow), len(values)
    infinite = float("inf")
    if rows > columns:
        return None
    best = [[0.0] * (columns + 1)] + [[infinite] * (columns + 1) for _ in range(rows)]
    for i in range(1, rows + 1):
        for j in range(i, i + columns - rows + 1):
            took = infinite
            if best[i - 1][j - 1] < infinite and values[j - 1].shape == shadow[i - 1].shape:
                took = best[i - 1][j - 1] + _distance(values[j - 1], shadow[i - 1])
            best[i][j] = min(best[i][j - 1], took)
    if not best[rows][columns] < infinite:
        return None
    found: list[int] = []
    j = columns
    for i in range(rows, 0, -1):
        while best[i][j - 1] == best[i][j] and j > i:
            j -= 1
        found.append(j - 1)
        j -= 1
    return found[::-1]


def _distance(a: Tensor, b: Tensor) -> float:
    """Squared distance relative to the size; 0 for equal values, about 2 for unrelated ones."""
    a, b = a.double(), b.double()
    size = float(a.square().mean() + b.square().mean())
    return float((a - b).square().mean()) / size if size > 0 else 0.0
