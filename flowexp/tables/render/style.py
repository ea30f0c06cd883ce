"""Colours and lines that pages and pictures share, for light and dark grounds."""

__all__ = ["COLOURS", "SERIES", "SVG_RULES"]

SERIES = 8
"""Number of colours ``--s1``, ``--s2``, ... for curves."""

COLOURS = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --panel: #f6f7f9; --line: #dfe2e8; --ink: #1b1f27; --soft: #596173;
  --link: #1b5fae; --good: #1a7f37; --bad: #c02a2a; --open: #8a5a00;
  --s1: #2563b8; --s2: #c2410c; --s3: #0b7a5c; --s4: #8e3fb0;
  --s5: #9a6b00; --s6: #b8336a; --s7: #4b5563; --s8: #0e7490;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #13161b; --panel: #1b1f26; --line: #343a46; --ink: #e6e8ec; --soft: #9ba3b3;
    --link: #7db4f5; --good: #5cc97a; --bad: #ff8a80; --open: #e5b455;
    --s1: #6aa5f2; --s2: #f2914f; --s3: #45c29b; --s4: #c58be0;
    --s5: #dcb14a; --s6: #f07fae; --s7: #a3adbd; --s8: #4fc3d9;
  }
}
"""

SVG_RULES = """
svg text { fill: var(--soft); font: 11px system-ui, -apple-system, "Segoe UI", Arial, sans-serif; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .raw { stroke-width: 1; opacity: .35; }
svg .ground { fill: var(--ground); }
svg .head { fill: var(--ink); font-size: 15px; font-weight: 600; }
svg .subhead { fill: var(--ink); font-size: 12.5px; font-weight: 600; }
svg .name { fill: var(--ink); font-size: 12px; }
svg .published { stroke-width: 1.2; stroke-dasharray: 5 4; }
svg .bar { fill: none; stroke-width: 1.1; opacity: .55; }
svg .mark { stroke-width: 1.4; stroke-linejoin: round; }
svg .hollow { fill: var(--ground); }
"""
