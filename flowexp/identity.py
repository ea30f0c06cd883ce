"""The identity of a part: the text by which stored artefacts know it again."""

import inspect
from collections.abc import Mapping
from typing import ClassVar

__all__ = ["Identified", "Stored"]


class Stored:
    """A part that stored configs name.

    Attributes:
        later_options: Arguments that were added after artefacts had been written, each with the
            value that leaves everything as it was before. At that value an argument is no part of
            an identity: not of the part's own, of a table's job, or of a run that is resumed.
    """

    later_options: ClassVar[Mapping[str, object]] = {}


class Identified(Stored):
    """A part that calibrations and pair stores refer to.

    Its identity is the name of its class and the arguments of its constructors, those of base
    classes first, which it keeps under their own names: ``VE(t_min=0.002, t_max=80.0)``. It is
    written to disk: an argument cannot be renamed without a reader for the old name, while private
    attributes do not matter. A class whose arguments are not attributes states its own.
    """

    def identity(self) -> str:
        """Class and constructor arguments, as they are written to disk."""
        names: dict[str, None] = {}
        for cls in reversed(type(self).__mro__):
            if "__init__" in vars(cls) and cls is not object:
                names |= dict.fromkeys(list(inspect.signature(cls).parameters))
        values = {name: getattr(self, name) for name in names}
        later = self.later_options
        shown = [f"{n}={v}" for n, v in values.items() if n not in later or v != later[n]]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.identity()
