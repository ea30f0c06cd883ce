"""Sheets as an HTML page that needs nothing else, filled into templates by jinja2."""

import base64
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowexp.tables.render.plots import COLOURS
from flowexp.tables.render.sheet import Sheet

if TYPE_CHECKING:
    from jinja2 import Environment

    from flowexp.tables.render.plots import Plot

__all__ = ["filled", "html"]

_HERE = "flowexp.tables.render"


def html(sheets: Sequence[Sheet]) -> str:
    """A self-contained page, light or dark as the browser prefers; nothing is fetched."""
    title = sheets[0].title if len(sheets) == 1 else "flowexp"
    return filled("sheets.html", title=title, sheets=sheets)


def filled(template: str, *, package: str = _HERE, **values: Any) -> str:  # noqa: ANN401
    """A page from a file in the folder ``templates`` of a package; every value is escaped.

    It can also use the templates of this package.
    """
    return _environment(package).get_template(template).render(colours=COLOURS, **values)


@functools.cache
def _environment(package: str) -> "Environment":
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _HERE))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(data_uri=_data_uri, unbroken=_unbroken)
    return environment


def _data_uri(plot: "Plot") -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(plot.svg().encode()).decode('ascii')}"


def _unbroken(text: str) -> str:
    """Keeps a number on one line with its spread and marks."""
    for mark in "±‡†":
        text = text.replace(f" {mark}", f"\u00a0{mark}")
    return text.replace("± ", "±\u00a0")
