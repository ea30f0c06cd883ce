"""From a checked config to objects: the one place that builds a model and its pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowexp.config.instantiate import instantiate
from flowexp.config.rules import labels_dropped
from flowexp.config.trust import STRANGER, Author
from flowexp.errors import UsageError
from flowexp.requirements import Parts, require
from flowexp.tree import select

if TYPE_CHECKING:
    import torch
    from torch import nn

    from flowexp.autoencoders import Autoencoder
    from flowexp.data import Dataset
    from flowexp.models import FlowModel, Origin
    from flowexp.pipeline import Pipeline
    from flowexp.tasks import Task

__all__ = ["Built", "build", "build_model", "describe", "fit_task", "known", "part_of",
           "require_fit", "resolve_device"]  # fmt: skip

Config = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Built:
    """A config's model, and the pipeline that samples it.

    Attributes:
        dataset: The data it belongs to, images or points; nothing has been read.
        model: Path, network and parameterization, without guidance.
        pipeline: The guided model, its sampler, task, latents and device.
    """

    dataset: "Dataset"
    model: "FlowModel"
    pipeline: "Pipeline"

    @property
    def autoencoder(self) -> "Autoencoder":
        """The way between the data and the space of the flow."""
        return self.pipeline.autoencoder

    @property
    def flow_data(self) -> "Dataset":
        """The data in the space of the flow."""
        return self.autoencoder.data(self.dataset)

    @property
    def network(self) -> "nn.Module":
        """The raw network."""
        return self.model.network

    @property
    def parameters(self) -> int:
        """The size of the network: the number of its weights."""
        return sum(p.numel() for p in self.network.parameters())


def build_model(
    config: Config, *, device: str = "cpu", prefix: str = "", by: Author = STRANGER
) -> "FlowModel":
    """Path, network and parameterization of a plain config as a model; see :func:`build`.

    Messages put ``prefix`` before the name of a group.

    Raises:
        UsageError: A part is missing, refused its values or is none that ``by`` may name, or the
            network takes no state and time.
        ValueError: The parameterization is not defined on the path.
    """
    import torch

    from flowexp.models import FlowModel
    from flowexp.networks.foreign import adopt

    path, parameterization = (
        part_of(config, name, prefix=prefix, by=by) for name in ("path", "parameterization")
    )
    with torch.device(device):
        network = part_of(config, "network", prefix=prefix, by=by)
    classes = select(config, "dataset.num_classes") or select(config, "task.num_classes") or 0
    adopt(network, classes=classes, key=f"{prefix}network")
    model = FlowModel(path, network=network, parameterization=parameterization)
    model.labels_dropped = labels_dropped(config, by=by)
    return model


def part_of(config: Config, group: str, *, by: Author, prefix: str = "") -> Any:  # noqa: ANN401
    """The part of a group, which must be there and of its kind."""
    node, key = config.get(group), f"{prefix}{group}"
    if not isinstance(node, Mapping) or "_target_" not in node:
        remedy = "Use the config that flowexp wrote."
        raise UsageError(f"{by.where} names no part there.", key=key, remedy=remedy)
    return instantiate(node, key=key, by=by)


def autoencoder_of(config: Config, *, by: Author) -> "Autoencoder":
    """The autoencoder of a config; that of one stored before there was the group is none."""
    from flowexp.autoencoders import Autoencoder, Pixels

    found = part_of(config, "autoencoder", by=by) if config.get("autoencoder") else Pixels()
    assert isinstance(found, Autoencoder)
    return found


def build(
    config: Config,
    *,
    device: str = "cpu",
    origin: "Origin | None" = None,
    by: Author = STRANGER,
) -> Built:
    """Build dataset description, model and pipeline from a config; no data is read.

    Args:
        config: Plain, resolved config of a training or of a verb that starts from a run.
        device: Where the network's weights are allocated; ``meta`` allocates nothing.
        origin: The trained weights that the network is about to receive, if any; samplers look
            there for their calibrations.
        by: Who wrote the config.

    Raises:
        UsageError: A part refused its values or is none that ``by`` may name, or two do not fit.
    """
    from flowexp.pipeline import FlowexpLatents, Pipeline

    # The network comes last: teachers within other parts draw initial weights as well.
    names = ("dataset", "sampler", "guidance", "task")
    part = {name: part_of(config, name, by=by) for name in names}
    part["autoencoder"] = autoencoder_of(config, by=by)
    latents = config.get("latents")
    try:
        model = build_model(config, device=device, by=by)
        model.origin = origin
        fit_task(part["task"], model.network)
        require_fit({**part, "parameterization": model.parameterization}, known(part, model))
        pipeline = Pipeline(
            model=part["guidance"].wrap(model),
            sampler=part["sampler"],
            shape=part["autoencoder"].shape(part["dataset"].shape),
            task=part["task"],
            latents=instantiate(latents, key="latents", by=by) if latents else FlowexpLatents(),
            dataset=part["dataset"],
            autoencoder=part["autoencoder"],
            batch_size=config.get("batch_size", 64),
            device=device,
        )
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{error}.", key="sampler") from error
    return Built(part["dataset"], model, pipeline)


def fit_task(task: "Task", network: "nn.Module") -> None:
    """Drop the labels of a task, which may be those of the data, if its network takes none."""
    from flowexp.networks.foreign import takes_labels

    if takes_labels(network):
        return
    label = getattr(task, "label", None)
    if label is not None and label >= 0:
        raise UsageError(
            f"{label} is chosen, but {type(network).__name__} takes no labels.",
            key="task.label",
            remedy="Leave task.label=null, or take a class-conditional network.",
        )
    task.num_classes = 0


def known(others: Mapping[str, Any], model: "FlowModel") -> Parts:
    """What the parts may know of each other."""
    from flowexp.networks.base import facts_of

    return Parts(
        path=model.path,
        network=facts_of(model.network),
        parameterization=model.parameterization,
        **others,
    )


def require_fit(chosen: Mapping[str, Any], parts: Parts) -> None:
    """Raise a :class:`UsageError` about the first unmet need of a chosen part."""
    for group, part in chosen.items():
        require(part.needs(parts), group=group)


def resolve_device(name: str) -> str:
    """``auto`` becomes CUDA where there is one, else the CPU; a device must be there.

    Of several CUDA devices, ``auto`` and ``cuda`` mean another one in each process of a node.
    """
    import torch

    from flowexp.processes import accelerator_of_rank

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"unknown device {name!r}.", key="device", remedy="Use auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here.", key="device", remedy="Use device=cpu.")
    if not _is_here(device):
        raise UsageError(f"there is no device {name} here.", key="device", remedy="Use device=cpu.")
    count = torch.cuda.device_count() if name == "cuda" else 1
    return f"cuda:{accelerator_of_rank(count)}" if count > 1 else name


def _is_here(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    try:
        return torch.zeros(1, device=device).tolist() == [0.0]
    except Exception:  # each backend fails in its own way
        return False


def describe(parts: Built, config: Config) -> list[tuple[str, str]]:
    """What was chosen, and how large the network is, as rows of a table."""
    path, sampler = config["path"], config["sampler"]
    latents, encoder = parts.autoencoder.encodes, config.get("autoencoder") or {}
    shape = "x".join(map(str, parts.pipeline.shape))
    rows = [
        ("dataset", _short(config["dataset"])),
        *([("latents", f"{shape} of {encoder.get('folder', _short(encoder))}")] if latents else []),
        ("path", f"{_short(path.get('schedule'))}, D={path.get('D')}"),
        ("network", f"{_short(config['network'])}, {parts.parameters:,} parameters"),
    ]
    names = ("parameterization", "augmentation", "timestep", "coupling", "objective")
    rows += [(name, _short(config[name])) for name in names if name in config]
    steps = f", {sampler['steps']} steps" if "steps" in sampler else ""
    return [*rows, ("sampler", f"{_short(sampler)}{steps}")]


def _short(node: object) -> str:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return str(target).rpartition(".")[2] if target else str(node)
