"""The frame of every HTML page flowexp writes: self-contained, light and dark, nothing fetched."""

from html import escape

from flowexp.tables.render.style import COLOURS

__all__ = ["page"]

# The policy makes the browser refuse any request, should a page ever come to name one.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_RULES = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 44px 0 6px; padding-top: 16px; border-top: 1px solid var(--line); }
header + section h2 { margin-top: 12px; }
h3 { font-size: 16px; margin: 28px 0 8px; }
h4 { font-size: 14px; margin: 0 0 4px; font-weight: 600; }
p { margin: 4px 0; max-width: 90ch; }
a { color: var(--link); }
.soft, .notes, figcaption { color: var(--soft); }
.notes { font-size: 13px; margin-top: 6px; }
.notes ol { margin: 4px 0; padding-left: 22px; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 12px 0;
  list-style: none; }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; margin: 8px 0; font-size: 14px; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top;
  overflow-wrap: break-word; max-width: 52ch; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--ink); }
tbody tr { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; }
tr.group { border-top: 1px solid var(--soft); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.good td, tr.good th { color: var(--good); }
tr.bad td, tr.bad th { color: var(--bad); }
tr.open td, tr.open th { color: var(--open); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px;
  margin: 14px 0; padding: 0; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 9px 12px; }
.tile dt { font-size: 12px; color: var(--soft); }
.tile dd { margin: 0; font-size: 16px; font-weight: 600; overflow-wrap: anywhere; }
.tile dd small { display: block; font-size: 12px; font-weight: 400; color: var(--soft); }
.tile.lead { grid-column: span 2; }
.tile.lead dd { font-size: 22px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 14px; }
.grids { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 14px; }
figure { margin: 0; }
.charts figure { background: var(--ground); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; }
figcaption { font-size: 12.5px; margin-top: 4px; }
.grids img { width: 100%; height: auto; display: block; border: 1px solid var(--line);
  border-radius: 4px; }
.grids img.tiny { image-rendering: pixelated; }
img.chart { display: block; max-width: 100%; height: auto; }
.charts img.chart { width: 100%; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; margin: 8px 0;
  padding: 11px 14px; overflow-x: auto;
  font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; padding-left: 30px;
  text-indent: -16px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--link); }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 8px 0;
  font-size: 14px; }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
@media print { details > * { display: block; } .wide { overflow: visible; } }
"""


def page(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: Title of the window, as plain text.
        body: Content in HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{COLOURS}{_RULES}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
