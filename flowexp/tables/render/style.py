"""Colours of pages and pictures, for light and dark backgrounds."""

from collections.abc import Mapping

__all__ = ["COLOURS", "LIGHT", "SERIES"]

SERIES = 8
"""Number of colours ``s1``, ``s2``, ... for curves."""

LIGHT: Mapping[str, str] = {
    "ground": "#ffffff", "panel": "#f6f7f9", "line": "#dfe2e8", "ink": "#1b1f27",
    "soft": "#596173", "link": "#1b5fae", "good": "#1a7f37", "bad": "#c02a2a", "open": "#8a5a00",
    "s1": "#2563b8", "s2": "#c2410c", "s3": "#0b7a5c", "s4": "#8e3fb0",
    "s5": "#9a6b00", "s6": "#b8336a", "s7": "#4b5563", "s8": "#0e7490",
}  # fmt: skip
_DARK: Mapping[str, str] = {
    "ground": "#13161b", "panel": "#1b1f26", "line": "#343a46", "ink": "#e6e8ec",
    "soft": "#9ba3b3", "link": "#7db4f5", "good": "#5cc97a", "bad": "#ff8a80", "open": "#e5b455",
    "s1": "#6aa5f2", "s2": "#f2914f", "s3": "#45c29b", "s4": "#c58be0",
    "s5": "#dcb14a", "s6": "#f07fae", "s7": "#a3adbd", "s8": "#4fc3d9",
}  # fmt: skip


def _declared(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


COLOURS = (
    f":root {{ color-scheme: light dark; {_declared(LIGHT)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_declared(_DARK)} }} }}\n"
)
"""CSS that declares every colour as a variable, ``--ink`` for ``ink``."""
