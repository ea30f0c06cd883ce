"""One safetensors file that is a whole model: weights, and the config of its parts as JSON.

The config names classes by ``_target_``; what a file from elsewhere may name is decided by
:mod:`flowexp.config.trust`.
"""

import hashlib
import json
import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.errors import UsageError
from flowexp.requirements import Parts, all_of
from flowexp.tree import mapped
from flowexp.tree import nodes as nodes_of

if TYPE_CHECKING:
    from torch import Tensor

    from flowexp.pipeline import Pipeline

_LOG = logging.getLogger(__name__)

__all__ = ["MODEL_GROUPS", "load_exported", "write_exported"]

MODEL_GROUPS = ("path", "network", "parameterization")
"""What a file always names, and who reads it has to trust."""

_SAMPLING_GROUPS = ("sampler", "guidance", "task")
"""Exported where they need nothing but the file: a refiner or a data set stays behind."""
_FORMAT = "flowexp-1"
_ELSEWHERE = ("flowexp.data.", "flowexp.runs.")
"""Parts that need more than the file: images, or another run."""
# JSON has no infinity.
_FLOAT = "$float"


def write_exported(
    path: Path,
    state: "Mapping[str, Tensor]",
    *,
    config: Mapping[str, Any],
    shape: tuple[int, ...],
    facts: Mapping[str, str],
) -> Path:
    """Write a network's state dict with the plain config and the shape of its samples.

    ``facts`` say more about the weights, for example whose average they are.
    """
    from safetensors.torch import save_file

    from flowexp.files import write_atomically

    # A channels-last network keeps its tensors in another order than safetensors writes.
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    nodes = {name: config[name] for name in MODEL_GROUPS}
    nodes |= {n: config[n] for n in _SAMPLING_GROUPS if n in config and _stands_alone(config[n])}
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(mapped(nodes, _encoded), allow_nan=False),
        "sha256": _digest(tensors),
        "shape": json.dumps(shape),
        **facts,
    }
    return write_atomically(path, lambda beside: save_file(tensors, beside, metadata=metadata))


def load_exported(
    path: Path | str, *, device: str = "auto", batch_size: int = 64, packages: Collection[str] = ()
) -> "Pipeline":
    """The pipeline in a file of ``flowexp export``; see :func:`flowexp.load`.

    Raises:
        UsageError: The file is missing, damaged, changed, or names what is neither a part of
            flowexp's nor of ``packages``.
    """
    from flowexp.config.renamed import with_present_arguments
    from flowexp.config.trust import Author, Declared, trusting
    from flowexp.guidance import NoGuidance
    from flowexp.networks.base import facts_of, label_dim_of
    from flowexp.pipeline import Pipeline
    from flowexp.runs.assemble import build_model, fit_task, part_of, resolve_device
    from flowexp.runs.weights import require_finite
    from flowexp.samplers import Heun, Natural
    from flowexp.tasks import Generation

    file = Path(path)
    tensors, metadata = _read(file)
    if _digest(tensors) != metadata.get("sha256"):
        raise UsageError(f"{file} was changed: its weights have another sha256.", key="file")
    try:
        nodes = with_present_arguments(json.loads(metadata["config"], object_hook=_decoded))
        wanted = {name: nodes[name] for name in MODEL_GROUPS}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} holds no config of a model.", key="file") from error
    wanted |= {name: nodes[name] for name in _SAMPLING_GROUPS if name in nodes}
    by = Author.of(file)
    with trusting(Declared.named(packages)):
        model = build_model(wanted, by=by)
        # The objective, or the run that the training began with, may have dropped them.
        if "labels_dropped" in metadata:
            words = {"true": True, "false": False}
            model.labels_dropped = words.get(metadata["labels_dropped"])
        groups = (name for name in _SAMPLING_GROUPS if name in wanted)
        sampling = {name: part_of(wanted, name, by=by) for name in groups}
    network = model.network
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UsageError(f"the weights in {file} do not fit its config.", key="file") from error
    require_finite(network, what=f"the weights in {file}", remedy="Export another checkpoint.")
    place = resolve_device(device)
    network.to(place).eval()
    if "shape" in metadata:
        shape = tuple(json.loads(metadata["shape"]))
    else:
        # Written by flowexp 0.1.0.
        side = getattr(network, "img_resolution", None)
        shape = (network.in_channels,) if side is None else (network.in_channels, side, side)
    task = sampling.get("task") or Generation(num_classes=label_dim_of(network))
    fit_task(task, network)
    for unmet in all_of(task.needs(Parts(network=facts_of(network)))):
        if unmet.refuses:
            _LOG.warning(
                "%s: %s Give the pipeline a task of your own: replace(task=...).",
                file.name,
                unmet.problem,
            )
    task.classes_without_images = json.loads(metadata.get("classes_without_images", "[]"))
    return Pipeline(
        model=sampling.get("guidance", NoGuidance()).wrap(model),
        sampler=sampling.get("sampler") or Heun(steps=16, time_grid=Natural()),
        shape=shape,
        task=task,
        batch_size=batch_size,
        device=place,
    )


def _read(file: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UsageError(f"there is no file {file}.", key="file")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{file} cannot be read: {error}.", key="file") from error
    if metadata.get("format") != _FORMAT:
        raise UsageError(
            f"{file} is not a file of flowexp export (format {metadata.get('format')!r}).",
            key="file",
            remedy="Published checkpoints are read by flowexp import.",
        )
    return tensors, metadata


def _digest(tensors: "Mapping[str, Tensor]") -> str:
    """sha256 (hex) over names, shapes, types and bytes, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stands_alone(config: object) -> bool:
    """Whether a node needs nothing but the file: no other run, no data set, no foreign class."""
    targets = [str(node["_target_"]) for _, node in nodes_of(config) if "_target_" in node]
    return all(t.startswith("flowexp.") and not t.startswith(_ELSEWHERE) for t in targets)


def _encoded(leaf: object) -> object:
    infinite = isinstance(leaf, float) and not math.isfinite(leaf)
    return {_FLOAT: str(leaf)} if infinite else leaf


def _decoded(node: dict[str, Any]) -> object:
    return float(node[_FLOAT]) if node.keys() == {_FLOAT} else node
