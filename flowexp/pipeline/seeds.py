"""Seeds of samples as a user writes them."""

import re
from collections.abc import Sequence

from flowexp.errors import UsageError

__all__ = ["consecutive", "parse_seeds", "seeds_text"]

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def parse_seeds(seeds: str | int | Sequence[int], *, key: str = "seeds") -> list[int]:
    """The seeds of a text such as ``0-63``, ``5`` or ``0-9,20-29``.

    Args:
        seeds: The text, one seed, or the seeds themselves.
        key: Config key to name in messages.

    Raises:
        UsageError: The text is none of these, a range runs backwards, or a seed appears twice.
    """
    if isinstance(seeds, bool):
        raise _wrong(seeds, key)
    if isinstance(seeds, int):
        parsed = [seeds]
    elif isinstance(seeds, str):
        parsed = [seed for part in seeds.split(",") for seed in _range(part, seeds, key)]
    elif all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        parsed = list(seeds)
    else:
        raise _wrong(seeds, key)
    if not parsed or min(parsed) < 0:
        raise _wrong(seeds, key)
    if len(set(parsed)) < len(parsed):
        raise UsageError(f"{seeds!r} names a seed twice.", key=key, remedy="Name each seed once.")
    return parsed


def consecutive(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The inclusive ranges of consecutive numbers, in order."""
    if isinstance(numbers, range) and numbers.step == 1 and numbers:
        return ((numbers[0], numbers[-1]),)
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def seeds_text(seeds: Sequence[int]) -> str:
    """The shortest text that :func:`parse_seeds` turns back into ``seeds``."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in consecutive(seeds))


def _range(part: str, seeds: str, key: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise _wrong(seeds, key)
    first = int(match[1])
    last = int(match[2]) if match[2] is not None else first
    if last < first:
        raise _wrong(seeds, key)
    return range(first, last + 1)


def _wrong(seeds: object, key: str) -> UsageError:
    return UsageError(
        f"cannot parse {seeds!r} as seeds.",
        key=key,
        remedy="Write for example 0-63, 5, or 0-9,20-29.",
    )
