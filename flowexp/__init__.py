"""flowexp: flow-based and diffusion image generation as reproducible, composable experiments.

    import flowexp
    pipe = flowexp.load("outputs/quickstart")
    pipe.sample(range(64), labels=3).save_grid("bags.png")

Importing the package imports neither torch nor Lightning: names and sub-packages are imported when
they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowexp.pipeline import Pipeline
    from flowexp.report import results
    from flowexp.runs.library import evaluate, load

__all__ = ["Pipeline", "__version__", "evaluate", "load", "results"]

__version__ = "0.1.0"

_HOMES = {
    "Pipeline": "flowexp.pipeline",
    "evaluate": "flowexp.runs.library",
    "load": "flowexp.runs.library",
    "results": "flowexp.report",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- a function, a class or a sub-package
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"flowexp.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"flowexp.{name}":
                raise
    raise AttributeError(f"module 'flowexp' has no attribute {name!r}")
