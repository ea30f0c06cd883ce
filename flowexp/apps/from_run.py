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
    from flowexp.checkpoints import RunDirectory, load_weights
    from flowexp.config.instantiate import instantiate

    run = RunDirectory.open(Path(config["run"]))
    device = resolve_device(config["device"])
    parts = assemble(config, device="cpu")
    name = config["weights"]
    if name is None:
        name = next(iter(run.config().get("ema") or {}), None)
    ema = None if name == "raw" else name
    weights = load_weights(run, parts.network, ema=ema, checkpoint=config["checkpoint"])
    transform = instantiate(config["weight_transform"], key="weight_transform")(parts.network)
    parts.network.to(device).eval()
    return Opened(run, parts, weights, device, transform)
