"""Rectified flow's ``checkpoint_K.pth`` as a published model."""

import math
from pathlib import Path

from torch import Tensor

from flowexp.files import file_sha256
from flowexp.published.ddpmpp_names import ddpmpp_part, ddpmpp_state
from flowexp.published.edm_networks import shape_of
from flowexp.published.model import Part, Published, Reader
from flowexp.published.score_sde import read_score_sde

__all__ = ["RectifiedFlow"]

# c_noise of the authors' networks is 999 times their time, which runs from noise to data.
_TIME_SCALE = 999.0
_TOLERANCE = 1e-5


class RectifiedFlow(Reader):
    """A rectified flow on score_sde's DDPM++.

    The file does not state what its network predicts; a rectified flow is assumed. For another
    model of that code base (score_sde's own), set ``path`` and ``parameterization``.

    Source: Liu et al., 2022, arXiv 2209.03003, and the authors' ``sde_lib.py``.
    """

    def read(self, path: Path) -> Published:
        stored = read_score_sde(path)
        network = ddpmpp_part(stored.raw)
        averaged: dict[str, Tensor] = ddpmpp_state(stored.ema, network)
        tolerances = {"rtol": _TOLERANCE, "atol": _TOLERANCE}
        return Published(
            format="rectified flow checkpoint",
            path=path,
            sha256=file_sha256(path),
            parts={
                "network": network,
                "path": Part("linear"),
                "parameterization": Part("reversed_velocity", {"time_scale": _TIME_SCALE}),
                "timestep": Part("uniform"),
                "objective": Part("flow_matching"),
                "sampler": Part("dopri5", tolerances),
            },
            shape=shape_of(network),
            weights=ddpmpp_state(stored.raw, network),
            averaged=averaged,
            D=math.inf,
            step=stored.step,
            notes=("the file does not state what its network predicts; assumed: a rectified flow",),
        )
