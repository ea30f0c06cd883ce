"""From a checked config to the parts of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowexp.config.instantiate import instantiate
from flowexp.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from flowexp.data import Dataset
    from flowexp.guidance import Guidance
    from flowexp.models import FlowModel, Origin
    from flowexp.samplers import Sampler
    from flowexp.tasks import Task

__all__ = [
    "ModelParts",
    "assemble",
    "describe",
    "resolve_device",
    "training_parts",
]

Config = Mapping[str, Any]


@dataclass(frozen=True)
class ModelParts:
    """A model and what can be asked of it."""

    dataset: "Dataset"
    network: "nn.Module"
    model: "FlowModel"
    sampler: "Sampler"
    guidance: "Guidance"
    task: "Task"


def assemble(config: Config, *, device: str, origin: "Origin | None" = None) -> ModelParts:
    """Build dataset description, model, sampler, guidance and task; no data is read.

    Args:
        config: Plain, resolved config.
        device: Where the network's weights are allocated; ``meta`` allocates nothing.
        origin: The trained weights that the network is about to receive, if any; samplers look
            there for their calibrations.

    Raises:
        UsageError: A part refused its values, or two parts do not fit.
    """
    import torch

    from flowexp.models import FlowModel

    dataset = instantiate(config["dataset"], key="dataset")
    path = instantiate(config["path"], key="path")
    parameterization = instantiate(config["parameterization"], key="parameterization")
    sampler = instantiate(config["sampler"], key="sampler")
    guidance = instantiate(config["guidance"], key="guidance")
    task = instantiate(config["task"], key="task")
    with torch.device(device):
        network = instantiate(config["network"], key="network")
    try:
        model = FlowModel(path, network=network, parameterization=parameterization)
        model.origin = origin
        sampler.check(guidance.wrap(model))
    except ValueError as error:
        raise UsageError(f"{error}.", key="sampler") from error
    return ModelParts(dataset, network, model, sampler, guidance, task)


def training_parts(config: Config, parts: ModelParts) -> dict[str, Any]:
    """Build augmentation, coupling, timestep law and objective, and refuse what does not fit.

    Args:
        config: Plain, resolved config of a training run.
        parts: The model they are for.

    Returns:
        The four parts by the names of their groups.

    Raises:
        UsageError: The augmentation's labels are not the network's, the law draws times outside the
            path's range, or the coupling or the objective is not defined on this path.
    """
    from flowexp.networks.base import augment_dim_of
    from flowexp.timesteps import check_compatible

    names = ("augmentation", "coupling", "timestep", "objective")
    built = {name: instantiate(config[name], key=name) for name in names}
    path, augment_dim = parts.model.path, augment_dim_of(parts.network)
    checks: dict[str, Callable[[], None]] = {
        "network.augment_dim": lambda: built["augmentation"].check_network(augment_dim),
        "augmentation": lambda: built["coupling"].check_augmentation(built["augmentation"]),
        "coupling": lambda: built["coupling"].check_path(path),
        "timestep": lambda: check_compatible(built["timestep"], path.schedule),
        "objective": lambda: built["objective"].check_path(path),
    }
    for key, run in checks.items():
        try:
            run()
        except ValueError as error:
            raise UsageError(f"{error}.", key=key) from error
    return built


def resolve_device(name: str) -> str:
    """``auto`` becomes CUDA where there is one, else the CPU.

    Raises:
        UsageError: torch knows no such device, or it is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"{name!r} is no device.", key="device", remedy="Use auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here.", key="device", remedy="Use device=cpu.")
    return name


def describe(parts: ModelParts, config: Config) -> list[tuple[str, str]]:
    """What was chosen, and how large the network is, as rows of a table."""
    count = sum(p.numel() for p in parts.network.parameters())
    path, sampler = config["path"], config["sampler"]
    rows = [
        ("dataset", _short(config["dataset"])),
        ("path", f"{_short(path.get('schedule'))}, D={path.get('D')}"),
        ("network", f"{_short(config['network'])}, {count:,} parameters"),
    ]
    names = ("parameterization", "augmentation", "timestep", "coupling", "objective")
    rows += [(name, _short(config[name])) for name in names if name in config]
    steps = f", {sampler['steps']} steps" if "steps" in sampler else ""
    return [*rows, ("sampler", f"{_short(sampler)}{steps}")]


def _short(node: object) -> str:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return str(target).rpartition(".")[2] if target else str(node)
