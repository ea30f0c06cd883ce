"""Seeds of samples as a user writes them."""

import re
from collections.abc import Sequence

from flowexp.errors import UsageError

__all__ = ["consecutive", "parse_seeds", "seeds_text"]

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def parse_seeds(seeds: str | int | Sequence[int], *, key: str = "seeds") -> list[int]:
    """The seeds of a text such as ``0-63``, ``5`` or ``0-9,20-29``; numbers as they are.

    Raises:
        UsageError: The text is none of these, a range runs backwards, or a seed appears twice.
    """
    if isinstance(seeds, str):
        parsed = [seed for part in seeds.split(",") for seed in _range(part, seeds, key)]
    else:
        parsed = [seeds] if isinstance(seeds, int) else list(seeds)
    if not parsed or any(type(seed) is not int or seed < 0 for seed in parsed):
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
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise _wrong(seeds, key)
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _wrong(seeds: object, key: str) -> UsageError:
    remedy = "Write for example 0-63, 5, or 0-9,20-29."
    return UsageError(f"cannot parse {seeds!r} as seeds.", key=key, remedy=remedy)
