"""Axes of SVG charts: scales, round ticks, grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["Axes", "Scale", "tick_text"]

_LOG_FROM = 8.0
_TICKS = 5


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One direction of a chart.

    Attributes:
        low: Value at its beginning.
        high: Value at its end, above ``low``.
        log: Whether it is logarithmic; ``low`` is then positive.
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def exact(cls, values: Sequence[float]) -> Self:
        """The linear scale from the smallest to the largest of at least one value."""
        return cls(low=min(values), high=max(max(values), min(values) + 1e-9))

    @classmethod
    def fitted(
        cls,
        values: Sequence[float],
        *,
        reaching: Sequence[float] = (),
        may_be_log: bool = True,
        zero: bool = True,
    ) -> Self:
        """A scale with some room around the values.

        It is logarithmic where positive values span a factor of 8 or more.

        Args:
            values: At least one finite value.
            reaching: Further values to show, which do not decide between linear and logarithmic.
                A logarithmic scale leaves out those that are not positive.
            may_be_log: Whether it may be logarithmic.
            zero: Whether a linear scale that nearly reaches zero shows it.
        """
        log = may_be_log and min(values) > 0 and max(values) / min(values) >= _LOG_FROM
        shown = [*values, *(value for value in reaching if value > 0 or not log)]
        low, high = min(shown), max(shown)
        if log:
            room = (high / low) ** 0.04
            return cls(low=low / room, high=high * room, log=True)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        near_zero = zero and 0 <= low < 0.35 * high
        return cls(low=0.0 if near_zero else low - room, high=high + room)

    @property
    def name(self) -> str:
        """``logarithmic`` or ``linear``."""
        return "logarithmic" if self.log else "linear"

    def fraction(self, value: float) -> float:
        """Where a value lies, 0 at ``low`` and 1 at ``high``; values outside lie at the ends."""
        inside = min(max(value, self.low), self.high)
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(inside) - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round numbers within the range."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The field of the curves of a chart, in pixels from the upper left corner.

    Attributes:
        x: Scale to the right.
        y: Scale upwards.
        left: Left edge.
        top: Upper edge.
        width: Width.
        height: Height.
    """

    x: Scale
    y: Scale
    left: float
    top: float
    width: float
    height: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a point in the picture."""
        right, up = self.x.fraction(x), self.y.fraction(y)
        return self.left + right * self.width, self.top + (1.0 - up) * self.height

    def frame(self, *, x_label: str, x_ticks: Sequence[float] | None = None) -> str:
        """Grid, ticks and labels as SVG.

        Args:
            x_label: Below the ticks of x, escaped.
            x_ticks: Ticks of x; round numbers if None.
        """
        bottom, right = self.top + self.height, self.left + self.width
        parts = []
        for y in self.y.ticks():
            py = self.at(self.x.low, y)[1]
            parts.append(
                f'<line class="grid" x1="{self.left:g}" x2="{right:g}" y1="{py:.1f}" '
                f'y2="{py:.1f}"/>'
            )
            parts.append(
                f'<text x="{self.left - 7:g}" y="{py + 3.5:.1f}" text-anchor="end">'
                f"{tick_text(y)}</text>"
            )
        for x in self.x.ticks() if x_ticks is None else x_ticks:
            px = self.at(x, self.y.high)[0]
            parts.append(
                f'<line class="axis" x1="{px:.1f}" x2="{px:.1f}" y1="{bottom:g}" '
                f'y2="{bottom + 4:g}"/>'
            )
            parts.append(
                f'<text x="{px:.1f}" y="{bottom + 17:g}" text-anchor="middle">{tick_text(x)}</text>'
            )
        parts.append(
            f'<line class="axis" x1="{self.left:g}" x2="{right:g}" y1="{bottom:g}" '
            f'y2="{bottom:g}"/>'
        )
        parts.append(
            f'<text x="{(self.left + right) / 2:.0f}" y="{bottom + 32:g}" text-anchor="middle">'
            f"{x_label}</text>"
        )
        return "\n".join(parts)


def tick_text(value: float) -> str:
    """A value beside its tick."""
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e+")


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within the range, about five."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + number) * step for number in range(count)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range; of many, the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [s * 10.0**p for p in powers for s in (1, 2, 5) if low <= s * 10.0**p <= high]
    coarse = [10.0**p for p in powers if low <= 10.0**p <= high]
    return coarse if len(fine) > 2 * _TICKS and len(coarse) > 2 else fine
