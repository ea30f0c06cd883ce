"""Seeds as users write them."""

import re
from collections.abc import Sequence

from flowexp.errors import UsageError

__all__ = ["parse_seeds"]

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")
_MOST = 10**7
_LARGEST = 2**63 - 1
"""What an array of integers on disk can hold."""


def parse_seeds(seeds: str | int | Sequence[int], *, key: str = "seeds") -> list[int]:
    """The seeds of a text such as ``0-63``, ``5`` or ``0-9,20-29``; numbers as they are.

    Raises:
        UsageError: The text is none of these, a range runs backwards, a seed appears twice or is
            2^63 or more, or there are more than ten million.
    """
    parsed: list[int]
    if isinstance(seeds, str):
        ranges = [_range(part, seeds, key) for part in seeds.split(",")]
        # The length of a range that is too long for len() is not asked for.
        if sum(found.stop - found.start for found in ranges) > _MOST:
            remedy = f"Name at most {_MOST}."
            raise UsageError(f"{seeds!r} are too many seeds.", key=key, remedy=remedy)
        parsed = [seed for found in ranges for seed in found]
    else:
        parsed = [*seeds] if isinstance(seeds, Sequence) else [seeds]
    if not parsed or any(type(seed) is not int or seed < 0 for seed in parsed):
        raise _wrong(seeds, key)
    if max(parsed) > _LARGEST:
        raise UsageError(f"{max(parsed)} is too large a seed.", key=key, remedy="Stay below 2^63.")
    if len(set(parsed)) < len(parsed):
        raise UsageError(f"{seeds!r} names a seed twice.", key=key, remedy="Name each seed once.")
    return parsed


def _range(part: str, seeds: str, key: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise _wrong(seeds, key)
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _wrong(seeds: object, key: str) -> UsageError:
    remedy = "Write for example 0-63, 5, or 0-9,20-29."
    return UsageError(f"cannot parse {seeds!r} as seeds.", key=key, remedy=remedy)
