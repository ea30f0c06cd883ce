"""Checkpoint files, and the weights in them for everything that evaluates."""

import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.errors import UsageError
from flowexp.files import file_sha256, write_torch
from flowexp.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["RAW", "LoadedWeights", "NotFiniteError", "averaged_parameters", "finite_checkpoint",
           "first_average", "load_weights", "not_finite", "read_checkpoint",
           "refuse_another_network", "require_finite", "stored_weights",
           "write_checkpoint"]  # fmt: skip

RAW = "raw"
"""Name of the weights without averaging."""

_SHOWN_KEYS = 3
_FORMAT = 1
_REQUIRED = ("format", "step", "images", "network", "ema")


class NotFiniteError(UsageError):
    """Stored weights hold nan or infinity."""


@dataclass(frozen=True)
class LoadedWeights:
    """Which weights a network has been given.

    Attributes:
        step: Optimizer steps behind them.
        kimg: Thousands of images behind them.
        name: That of the average, or ``raw``.
        sha256: Of the checkpoint file ``path``.
    """

    step: int
    kimg: float
    name: str
    sha256: str
    path: Path


def write_checkpoint(path: Path, content: dict[str, Any]) -> Path:
    """Write ``step``, ``images``, ``network``, ``ema`` and whatever else the writer restores.

    The content is tensors in dicts and lists of plain builtins; the format's number is added.
    """
    return write_torch(path, {"format": _FORMAT, **content})


def read_checkpoint(path: Path, *, mmap: bool = False, key: str = "run") -> dict[str, Any]:
    """Read a checkpoint onto the CPU, refusing anything but tensors and plain containers.

    ``mmap`` maps the file, for readers that need a part of it; messages name the config key.

    Raises:
        UsageError: The file is missing, truncated, not a checkpoint, or of a newer format.
    """
    import torch

    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}.", key=key)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise UsageError(
            f"{path} cannot be read: it is truncated, damaged or no checkpoint ({reason}).",
            key=key,
            remedy="Name an older one with checkpoint=..., or remove the file.",
        ) from error
    if not isinstance(content, dict) or any(name not in content for name in _REQUIRED):
        raise UsageError(f"{path} is a torch file, but no flowexp checkpoint.", key=key)
    if content["format"] > _FORMAT:
        raise UsageError(
            f"{path} has checkpoint format {content['format']}; this version reads up to "
            f"{_FORMAT}.",
            key=key,
            remedy="Install a newer flowexp.",
        )
    return content


def load_weights(
    run: RunDirectory, network: "nn.Module", *, weights: str, checkpoint: str = "last"
) -> LoadedWeights:
    """Load :func:`stored_weights` into a network of their architecture; it stays on its device.

    Raises:
        UsageError: They are of another network.
        NotFiniteError: They hold nan or infinity.
    """
    state, loaded = stored_weights(run, weights=weights, checkpoint=checkpoint)
    refuse_another_network(network, state, loaded.path)
    network.load_state_dict(state)
    require_finite(network, what=f"the {weights} weights in {loaded.path}")
    return loaded


def not_finite(tensors: "Mapping[str, Tensor]") -> str | None:
    """The name of the first tensor with a nan or an infinity in it, or None.

    Waits for each device once, which takes a tenth of the time in which they are written.
    """
    import torch

    named = {n: t.detach() for n, t in tensors.items() if t.is_floating_point() or t.is_complex()}
    if not named:
        return None
    norms: dict[torch.device, list[Tensor]] = {}
    for norm in torch._foreach_norm(list(named.values())):
        norms.setdefault(norm.device, []).append(norm.float())
    if all(torch.stack(own).isfinite().all() for own in norms.values()):
        return None
    # Large numbers have an infinite norm as well.
    return next((name for name, tensor in named.items() if not tensor.isfinite().all()), None)


_OTHERS = "Name an older checkpoint with checkpoint=STEP, or other weights with weights=NAME."


def require_finite(network: "nn.Module", *, what: str, remedy: str = _OTHERS) -> None:
    """Refuse a network with parameters that are not finite, since nothing it gives means anything.

    ``what`` begins the message. Buffers may hold infinities, for example a mask, but no nan.

    Raises:
        NotFiniteError: With the first such tensor, in the order of the network.
    """
    bad = not_finite(dict(network.named_parameters())) or next(
        (name for name, buffer in network.named_buffers() if buffer.isnan().any()), None
    )
    if bad is not None:
        raise NotFiniteError(
            f"{what} are not finite: {bad} holds nan or infinity.", key="weights", remedy=remedy
        )


def finite_checkpoint(run: RunDirectory, parameters: Collection[str]) -> Path | None:
    """The newest readable checkpoint with finite ``parameters`` and averages, or None."""
    for file in reversed([*run.numbered_checkpoints(), *run.checkpoints.glob("last.ckpt")]):
        try:
            content = read_checkpoint(file, mmap=True)
        except UsageError:
            continue
        network = {n: t for n, t in content["network"].items() if n in parameters}
        if not any(map(not_finite, (network, *content["ema"].values()))):
            return file
    return None


def stored_weights(
    run: RunDirectory, *, weights: str, checkpoint: str = "last"
) -> "tuple[dict[str, Tensor], LoadedWeights]":
    """The state dict of a run's network, an average or ``raw``, and which weights it holds.

    Raises:
        UsageError: Unknown checkpoint or average, or unreadable file.
    """
    path = run.checkpoint(checkpoint)
    content = read_checkpoint(path, mmap=True)
    state: dict[str, Tensor] = dict(content["network"])
    if weights != RAW:
        if weights not in content["ema"]:
            there = ", ".join(sorted(content["ema"])) or "none"
            raise UsageError(
                f"the run {run.path} has no average {weights!r}.",
                key="weights",
                remedy=f"It has: {there}; raw gives the weights without averaging.",
            )
        state |= content["ema"][weights]
    elif path.parent == run.snapshots and content["ema"]:
        raise UsageError(
            f"{path.name} holds averages only, not the raw weights.",
            key="weights",
            remedy=f"Take one of: {', '.join(sorted(content['ema']))}; or checkpoint=last.",
        )
    kimg, digest = content["images"] / 1000.0, file_sha256(path)
    return state, LoadedWeights(content["step"], kimg, weights, digest, path)


def averaged_parameters(run: RunDirectory) -> int | None:
    """The number of a run's averaged parameters; None without an average or a readable file."""
    file = run.latest_checkpoint()
    try:
        averages = {} if file is None else read_checkpoint(file, mmap=True)["ema"]
    except UsageError:
        return None
    return next((sum(t.numel() for t in state.values()) for state in averages.values()), None)


def refuse_another_network(network: "nn.Module", state: "dict[str, Tensor]", path: Path) -> None:
    """Refuse weights in ``path`` that do not fit the architecture of a network.

    Raises:
        UsageError: Names or shapes differ; the key is ``network``.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [f"{name} is missing in the file" for name in own.keys() - stored.keys()]
    wrong += [f"{name} is not in the network" for name in stored.keys() - own.keys()]
    wrong += [
        f"{name} is {stored[name]}, the network has {own[name]}"
        for name in own.keys() & stored.keys()
        if own[name] != stored[name]
    ]
    if wrong:
        shown = "; ".join(sorted(wrong)[:_SHOWN_KEYS])
        rest = f"; and {len(wrong) - _SHOWN_KEYS} more" if len(wrong) > _SHOWN_KEYS else ""
        raise UsageError(
            f"the weights in {path} belong to another network ({shown}{rest}).",
            key="network",
            remedy="Use the network of the run's config.yaml.",
        )


def first_average(config: Mapping[str, Any]) -> str:
    """The average that is used where none is named: the run's first, or the raw weights."""
    return next((name for name, law in (config.get("ema") or {}).items() if law), RAW)
