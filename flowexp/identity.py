"""The identity of a part: the text by which stored artefacts know it again."""

import inspect

__all__ = ["Identified"]


class Identified:
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
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)}' for n in names)})"

    def __repr__(self) -> str:
        return self.identity()
