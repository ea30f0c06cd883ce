"""The parts of EDM's code base (EDM, PFGM++, RF++) as flowexp's: networks, preconditioners."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.networks import DhariwalUNet, ImageNetwork, SongUNet
from flowexp.published.model import Part, Shape

__all__ = ["edm_architecture", "network_part", "only_first_channels", "parameters_of",
           "preconditioner", "refuse_unknown", "shape_of"]  # fmt: skip

_CLASSES: Mapping[str, type[ImageNetwork]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
_PLAIN = (bool, int, float, str, list, tuple, type(None))
_LAST_LAYERS = ("out_conv", "_aux_conv")


def parameters_of(class_name: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of a known network class, in the authors' order, our own last."""
    if class_name not in _CLASSES:
        raise UsageError(
            f"{class_name!r} is not a network that can be imported.",
            key="file",
            remedy=f"Known networks: {', '.join(_CLASSES)}.",
        )
    return inspect.signature(_CLASSES[class_name]).parameters


def refuse_unknown(class_name: str, unknown: Sequence[str], known: Iterable[str]) -> None:
    """Raise a :class:`UsageError` if there are unknown constructor arguments."""
    if unknown:
        raise UsageError(
            f"{class_name} has an unknown constructor argument {unknown[0]!r}.",
            key="file",
            remedy=f"Known arguments: {', '.join(known)}.",
        )


def network_part(class_name: str, arguments: Mapping[str, Any]) -> Part:
    """The network group for a class of EDM's code and its constructor arguments.

    Arguments missing in the file get the defaults of the class, not those of the option; unknown
    ones are refused.
    """
    parameters = parameters_of(class_name)
    unknown = [name for name in arguments if name not in parameters]
    strange = [name for name, value in arguments.items() if not isinstance(value, _PLAIN)]
    refuse_unknown(class_name, unknown or strange, parameters)
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    given = {**defaults, **arguments}
    missing = [name for name in parameters if name not in given]
    if missing:
        raise UsageError(f"the stored {class_name} lacks {missing[0]}.", key="file")
    values = {n: list(v) if isinstance(v, list | tuple) else v for n, v in given.items()}
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


def edm_architecture(state: Mapping[str, Tensor]) -> Part:
    """The network group for a state dict of SongUNet or DhariwalUNet, without prefix.

    Names contain the resolutions, shapes the widths; only dropout cannot be inferred. The state
    dict of another network is refused.
    """
    kind = "DhariwalUNet" if "out_conv.weight" in state else "SongUNet"
    try:
        part = network_part(kind, _common(state) | (_song(state) if kind == "SongUNet" else {}))
        with torch.device("meta"):
            built = _CLASSES[kind](**part.arguments)
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise _another(str(error)) from error
    wanted = {name: value.shape for name, value in built.state_dict().items()}
    stored = {name: value.shape for name, value in state.items()}
    if wanted != stored:
        raise _another(min(n for n in wanted | stored if wanted.get(n) != stored.get(n)))
    return part


def _common(state: Mapping[str, Tensor]) -> dict[str, Any]:
    levels = (re.match(r"enc\.(\d+)x\1_", name) for name in state)
    sizes = sorted({int(level[1]) for level in levels if level}, reverse=True)
    finest = f"enc.{sizes[0]}x{sizes[0]}"
    adm = "out_conv.weight" in state
    first, layer0 = state[f"{finest}_conv.weight"], state["map_layer0.weight"]
    blocks = sum(f"{finest}_block{i}.conv1.weight" in state for i in range(len(state)))
    channels = int(layer0.shape[1] if adm else first.shape[0])
    last = "out_conv" if adm else f"dec.{sizes[0]}x{sizes[0]}_aux_conv"
    widths = [state[f"enc.{r}x{r}_block{blocks - 1}.conv1.weight"].shape[0] for r in sizes]
    return {
        "img_resolution": sizes[0],
        "in_channels": int(first.shape[1]),
        "out_channels": int(state[f"{last}.weight"].shape[0]),
        "label_dim": _inputs(state, "map_label.weight"),
        "augment_dim": _inputs(state, "map_augment.weight"),
        "model_channels": channels,
        "channel_mult": [int(width) // channels for width in widths],
        "channel_mult_emb": int(layer0.shape[0]) // channels,
        "num_blocks": blocks,
        "attn_resolutions": [r for r in sizes if f"enc.{r}x{r}_block0.qkv.weight" in state],
    }


def _song(state: Mapping[str, Tensor]) -> dict[str, Any]:
    layers = {name.rpartition("_")[2].partition(".")[0] for name in state if "_aux_" in name}
    heads = sum(name.endswith("_aux_conv.weight") for name in state)
    channels = next(v for n, v in state.items() if re.match(r"enc\.\d+x\d+_conv\.weight", n))
    return {
        "embedding_type": "fourier" if "map_noise.freqs" in state else "positional",
        "channel_mult_noise": int(state["map_layer0.weight"].shape[1]) // channels.shape[0],
        "encoder_type": next((t for t in ("residual", "skip") if t in layers), "standard"),
        "decoder_type": "skip" if heads > 1 else "standard",
        "resample_filter": _taps(state),
    }


def _inputs(state: Mapping[str, Tensor], name: str) -> int:
    return int(state[name].shape[1]) if name in state else 0


def _taps(state: Mapping[str, Tensor]) -> list[int]:
    """The filter whose outer product is stored, as small integers."""
    for name, value in state.items():
        if name.endswith("resample_filter"):
            row = value[0, 0].double().sum(0)
            return [round(float(tap)) for tap in row / row.min()]
    return [1, 1]


def _another(reason: str) -> UsageError:
    return UsageError(
        f"the weights in the file do not fit a known network ({reason}).",
        key="file",
        remedy="Known networks: SongUNet and DhariwalUNet of EDM's code.",
    )


_INTERFACE = ("img_resolution", "img_channels", "label_dim", "use_fp16")
_PFGMPP = ("pfgmpp", "N", "D")


@dataclass(frozen=True)
class _Preconditioner:
    """One class of the authors' code.

    Attributes:
        option: Option of the ``parameterization`` group.
        arguments: The option's arguments, from the authors' constructor arguments.
        names: The constructor's parameters in their order; those of the network follow.
        takes_range: Whether the option has the range of noise levels as arguments.
    """

    option: str
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]
    names: tuple[str, ...]
    takes_range: bool = False


def _vp(given: Mapping[str, Any]) -> dict[str, Any]:
    beta_min = given.get("beta_min", 0.1)
    return {
        "beta_min": beta_min,
        "beta_max": beta_min + given.get("beta_d", 19.9),
        "time_steps": given.get("M", 1000),
        "eps_t": given.get("epsilon_t", 1e-5),
    }


def _renamed(**names: tuple[str, float]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Arguments from those of the authors: our name = (their name, their default)."""
    return lambda given: {our: given.get(*their) for our, their in names.items()}


_PRECONDITIONERS: Mapping[str, _Preconditioner] = {
    "EDMPrecond": _Preconditioner(
        option="edm",
        arguments=_renamed(sigma_data=("sigma_data", 0.5)),
        names=(*_INTERFACE, "sigma_min", "sigma_max", "sigma_data", "model_type", *_PFGMPP),
        takes_range=True,
    ),
    "VPPrecond": _Preconditioner(
        option="vp_precond",
        arguments=_vp,
        names=(*_INTERFACE, "beta_d", "beta_min", "M", "epsilon_t", "model_type", *_PFGMPP),
    ),
    "VEPrecond": _Preconditioner(
        option="ve_precond",
        arguments=_renamed(sigma_min=("sigma_min", 0.02), sigma_max=("sigma_max", 100.0)),
        names=(*_INTERFACE, "sigma_min", "sigma_max", "model_type", *_PFGMPP),
    ),
    "iDDPMPrecond": _Preconditioner(
        option="iddpm_precond",
        arguments=_renamed(C1=("C_1", 0.001), C2=("C_2", 0.008), time_steps=("M", 1000)),
        names=(*_INTERFACE, "C_1", "C_2", "M", "model_type", *_PFGMPP),
    ),
}


def preconditioner(class_name: str) -> _Preconditioner:
    """How a known preconditioner of the authors' code becomes a parameterization."""
    if class_name not in _PRECONDITIONERS:
        raise UsageError(
            f"{class_name!r} is not a preconditioner that can be imported.",
            key="file",
            remedy=f"Known preconditioners: {', '.join(_PRECONDITIONERS)}.",
        )
    return _PRECONDITIONERS[class_name]
