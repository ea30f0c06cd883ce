"""RF++'s files of weights: state dicts of EDM's networks, read as flows on the linear path.

Source: Lee, Lin and Fanti, 2024, arXiv 2405.20320, and the authors' train.py: files
``flow_model_K_ema.pth`` (a state dict) and ``training_state_K.pth`` (weights, optimizer state with
the average of every parameter, iteration).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.published.edm_parts import edm_architecture, shape_of
from flowexp.published.model import Part, Published, Reader
from flowexp.published.score_sde import load_weights_only

__all__ = ["RFPlusPlus", "is_rfpp"]

_PREFIX = "model."
_END = 1e-5
"""The authors' times run from 1e-5 to 1 - 1e-5."""


class RFPlusPlus(Reader):
    """A 2-rectified flow with EDM's preconditioning: the linear path, one or two Euler steps."""

    def read(self, path: Path) -> Published:
        content = load_weights_only(path)
        if not is_rfpp(content):
            raise UsageError(f"{path} holds no weights of RF++.", key="file")
        whole = "model_state_dict" not in content
        state = _bare(content if whole else content["model_state_dict"])
        network = edm_architecture(state)
        steps = {"sigma_min": _END, "sigma_max": (1.0 - _END) / _END}
        return Published(
            format="RF++ weights" if whole else "RF++ training state",
            path=path,
            sha256=file_sha256(path),
            parts={
                "network": network,
                "path": Part("linear"),
                "parameterization": Part("edm", {"sigma_data": 0.5, **steps}),
                "timestep": Part("u_shaped"),
                "sampler": Part("reinterpolation", {"steps": 2}),
            },
            shape=shape_of(network),
            weights=state,
            averaged=None if whole else _averaged(state, content),
            step=None if whole else int(content.get("iter", 0)),
            notes=("the file does not state what its network predicts; assumed: a flow of RF++",),
        )


def is_rfpp(content: object) -> bool:
    """Whether a loaded file is, or contains, the state dict of a preconditioned network."""
    if not isinstance(content, Mapping):
        return False
    state = content.get("model_state_dict", content)
    return isinstance(state, Mapping) and bool(_bare(state))


def _bare(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    named = {str(name).removeprefix("module."): value for name, value in state.items()}
    return {
        name.removeprefix(_PREFIX): value
        for name, value in named.items()
        if name.startswith(_PREFIX) and isinstance(value, Tensor)
    }


def _averaged(state: Mapping[str, Tensor], content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The averages in the optimizer's state, which numbers parameters in the network's order."""
    optimizer = content.get("optimizer_state_dict")
    slots = optimizer.get("state") if isinstance(optimizer, Mapping) else None
    if not isinstance(slots, Mapping):
        return None
    buffers = ("resample_filter", "freqs")
    averaged = dict(state)
    for i, name in enumerate(name for name in state if not name.endswith(buffers)):
        value = slots[i].get("ema") if isinstance(slots.get(i), Mapping) else None
        if not isinstance(value, Tensor) or value.shape != state[name].shape:
            return None
        averaged[name] = value
    return averaged
