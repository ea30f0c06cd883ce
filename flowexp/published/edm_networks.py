"""Networks of EDM's code base (EDM, PFGM++, RF++) as flowexp's ``network`` group."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from flowexp.errors import UsageError
from flowexp.networks import DhariwalUNet, ImageNetwork, SongUNet
from flowexp.published.model import Part, Shape

__all__ = ["network_part", "only_first_channels", "shape_of"]

_CLASSES: Mapping[str, type[ImageNetwork]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
_PLAIN = (bool, int, float, str, list, tuple, type(None))
_LAST_LAYERS = ("out_conv", "_aux_conv")


def constructor_names(class_name: str) -> tuple[str, ...]:
    """Parameters of a network class in the order of the authors' constructor.

    Raises:
        UsageError: The class is unknown.
    """
    # The authors' order of positional parameters, with label_dropout last.
    return tuple(_parameters(class_name))


def network_part(class_name: str, arguments: Mapping[str, Any]) -> Part:
    """The network group for a class of EDM's code and its constructor arguments.

    Arguments missing in the file get the defaults of the class, not those of the option.

    Raises:
        UsageError: The class or an argument is unknown.
    """
    parameters = _parameters(class_name)
    unknown = [name for name in arguments if name not in parameters]
    strange = [name for name, value in arguments.items() if not isinstance(value, _PLAIN)]
    if unknown or strange:
        raise UsageError(
            f"{class_name} has an unknown constructor argument {(unknown or strange)[0]!r}.",
            key="file",
            remedy=f"Known arguments: {', '.join(parameters)}.",
        )
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise UsageError(f"the stored {class_name} lacks {missing[0]}.", key="file")
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    values = {name: _listed(value) for name, value in {**defaults, **arguments}.items()}
    if class_name == "DhariwalUNet":
        return Part("adm", values)
    fourier = values["embedding_type"] == "fourier"
    return Part("ncsnpp" if fourier else "ddpmpp", values)


def shape_of(network: Part) -> Shape:
    """Resolution, channels and classes of a network's images."""
    values = network.arguments
    return Shape(values["img_resolution"], values["in_channels"], values["label_dim"])


def only_first_channels(state: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """A state dict whose last layer has the first ``count`` channels only.

    Improved DDPM's networks also predict a variance, in additional channels that EDM's samplers
    never use; without them the output has the channels of the data.
    """
    return {
        name: value[:count] if name.rpartition(".")[0].endswith(_LAST_LAYERS) else value
        for name, value in state.items()
    }


def _parameters(class_name: str) -> Mapping[str, inspect.Parameter]:
    if class_name not in _CLASSES:
        raise UsageError(
            f"{class_name!r} is not a network that can be imported.",
            key="file",
            remedy=f"Known networks: {', '.join(_CLASSES)}.",
        )
    return inspect.signature(_CLASSES[class_name]).parameters


def _listed(value: object) -> object:
    return list(value) if isinstance(value, list | tuple) else value
