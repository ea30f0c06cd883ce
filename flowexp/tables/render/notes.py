"""Numbered notes of a sheet; a note that several rows share gets one number."""

from collections.abc import Iterable

__all__ = ["Notes"]


class Notes:
    """Collects notes and numbers them."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def refer(self, texts: Iterable[str]) -> str:
        """References to notes, ``[1] [3]``; notes not seen before are added."""
        numbers = []
        for text in texts:
            if text not in self._texts:
                self._texts.append(text)
            numbers.append(self._texts.index(text) + 1)
        return " ".join(f"[{number}]" for number in sorted(set(numbers)))

    @property
    def texts(self) -> tuple[str, ...]:
        """All notes in the order of their numbers."""
        return tuple(self._texts)
