"""What every verb that starts from a run does first: open it, build its model, load its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowexp.apps.assemble import ModelParts
    from flowexp.checkpoints import LoadedWeights, RunDirectory

__all__ = ["Opened", "open_run"]


@dataclass(frozen=True)
class Opened:
    """A run, its parts with weights loaded on the device, which weights, and how changed."""

    run: "RunDirectory"
    parts: "ModelParts"
    weights: "LoadedWeights"
    device: str
    transform: str


def open_run(config: Mapping[str, Any]) -> Opened:
    """Open ``config['run']``, load the chosen weights and transform them as asked.

    Args:
        config: Plain config of a verb with ``run``, ``weights``, ``weight_transform``,
            ``checkpoint``, ``device``.

    Raises:
        UsageError: There is no such run, checkpoint or EMA, or the parts do not fit.
    """
    from flowexp.apps.assemble import assemble, resolve_device
    from flowexp.apps.trained import first_average
    from flowexp.checkpoints import RunDirectory, load_weights
    from flowexp.checkpoints.checkpoint_file import file_sha256
    from flowexp.config.instantiate import instantiate
    from flowexp.models import Origin

    run = RunDirectory.open(Path(config["run"]))
    device = resolve_device(config["device"])
    name = config["weights"] or first_average(run.config())
    digest = file_sha256(run.checkpoint(config["checkpoint"]))
    origin = Origin(digest, name, run.calibrations)
    parts = assemble(config, device="cpu", origin=origin)
    ema = None if name == "raw" else name
    weights = load_weights(run, parts.network, ema=ema, checkpoint=config["checkpoint"])
    transform = instantiate(config["weight_transform"], key="weight_transform")(parts.network)
    parts.network.to(device).eval()
    return Opened(run, parts, weights, device, transform)
