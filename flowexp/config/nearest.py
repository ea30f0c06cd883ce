"""The nearest valid name for a misspelt one."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name closest to ``name``, or None if nothing is close."""
    close = difflib.get_close_matches(name, sorted(set(valid)), n=1, cutoff=0.5)
    return close[0] if close else None


def did_you_mean(name: str, valid: Iterable[str], *, most: int = 24) -> str:
    """A sentence with the nearest valid name, and the choices where they are few."""
    choices = sorted(set(valid))
    guess = nearest(name, choices)
    sentence = f"Did you mean {guess}? " if guess else ""
    if 0 < len(choices) <= most:
        sentence += f"Possible: {', '.join(choices)}."
    return sentence.strip() or "Nothing can be chosen here."
