"""Losses that train on some rows of a batch and use all rows as a sample of the data."""

from torch import Tensor

from flowexp.couplings import Pairs

__all__ = ["first_rows", "require_trained", "spread", "trained_rows"]


def require_trained(trained: int | None) -> None:
    """Refuse a number of trained rows below 1.

    Raises:
        ValueError: trained < 1.
    """
    if trained is not None and trained < 1:
        raise ValueError(f"trained is {trained}; expected at least 1, or null for the whole batch")


def trained_rows(pairs: Pairs, trained: int | None) -> int:
    """How many of the batch's rows are trained on: all of them for None."""
    return len(pairs.x) if trained is None else min(trained, len(pairs.x))


def first_rows(pairs: Pairs, count: int) -> Pairs:
    """The first rows of a batch."""
    return Pairs(
        pairs.x[:count],
        pairs.e[:count],
        {name: None if c is None else c[:count] for name, c in pairs.conditions.items()},
        None if pairs.weight is None else pairs.weight[:count],
    )


def spread(loss: Tensor, *, batch: int) -> Tensor:
    """Losses of the first rows as (batch,) losses with the same mean: the others are zero."""
    if len(loss) == batch:
        return loss
    full = loss.new_zeros(batch)
    full[: len(loss)] = loss * (batch / len(loss))
    return full
