"""Empirical statistics of a model over the noise level: DPM-Solver-v3's l, s and b."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

import numpy as np
import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.samplers.stored_calibrations import StoredCalibration, find_calibration

__all__ = [
    "METHOD",
    "ConstantStatistics",
    "ModelStatistics",
    "ReferenceStatistics",
    "Statistics",
    "StoredStatistics",
    "lambda_grid",
]

METHOD = "dpm_solver_v3"
"""Folder of these statistics below a run's calibrations."""

_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class ModelStatistics:
    """``l``, ``s`` and ``b`` on a uniform grid of ``lambda = log(alpha / sigma)``.

    With ``N = sigma e(x, lambda) - l x`` and ``f = N / alpha``: l makes N least sensitive to x, and
    ``s f + b`` is the best guess of f's derivative along the ODE. ``l = 1, s = b = 0`` is data
    prediction, ``l = 0, s = -1, b = 0`` noise prediction.

    Attributes:
        lam: (N + 1,), float64, increasing in equal steps: the noise end first.
        l, s, b: (N + 1, *shape), where shape is that of a sample or broadcasts to it.
    """

    lam: Tensor
    l: Tensor  # noqa: E741 - the paper's name
    s: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        shapes = {tuple(t.shape) for t in (self.l, self.s, self.b)}
        if len(shapes) != 1 or next(iter(shapes))[0] != len(self.lam) or len(self.lam) < 2:
            raise ValueError(
                f"l, s and b are {sorted(shapes)} on a grid of {len(self.lam)} points; they must "
                f"have one shape that starts with the number of points"
            )
        gaps = self.lam.diff()
        if not bool((gaps > 0).all()) or float(gaps.max() - gaps.min()) > _SLACK * float(gaps[0]):
            raise ValueError("lam must increase in equal steps")

    @property
    def count(self) -> int:
        """N, the number of intervals."""
        return len(self.lam) - 1

    def covers(self, low: float, high: float) -> bool:
        """Whether lambda from ``low`` to ``high`` lies on the grid, up to rounding."""
        return _shortage(self.lam[[0, -1]].tolist(), low, high) is None

    def indices(self, lam: Tensor) -> Tensor:
        """Numbers of the nearest grid points, int64; half-way goes to the even one."""
        first, last = self.lam[0], self.lam[-1]
        return torch.round(self.count * (lam - first) / (last - first)).to(torch.int64)


def _shortage(ends: Sequence[float], low: float, high: float) -> str | None:
    """What a grid between two values of lambda lacks, up to rounding, for a wider range."""
    first, last = ends
    slack = _SLACK * (last - first)
    if first - slack <= low and high <= last + slack:
        return None
    return (
        f"lambda from {first:.4f} to {last:.4f}, but the time grid goes from "
        f"{low:.4f} to {high:.4f}"
    )


class Statistics(ABC):
    """The source of a sampler's statistics."""

    _last: tuple[object, ModelStatistics] | None = None

    @abstractmethod
    def of(self, model: Model, low: float, high: float) -> ModelStatistics:
        """The statistics of a model over at least this range of lambda, else a ValueError."""

    def _kept(self, key: object, make: Callable[[], ModelStatistics]) -> ModelStatistics:
        """The result of ``make``, unless the last one had the same key."""
        if self._last is None or self._last[0] != key:
            self._last = (key, make())
        return self._last[1]


class StoredStatistics(Statistics):
    """The statistics that ``flowexp calibrate`` stored with the run.

    Args:
        name: File name without suffix in ``RUN/calibrations/dpm_solver_v3``, or its beginning, for
            example ``N1200_K1024``; None = the only one that belongs to the model's weights and
            path and covers the sampler's time grid.
    """

    def __init__(self, *, name: str | None = None) -> None:
        self.name = name

    def of(self, model: Model, low: float, high: float) -> ModelStatistics:
        def misfit(stored: StoredCalibration) -> str | None:
            shortage = _shortage(stored.settings["lam"], low, high)
            return None if shortage is None else f"covers {shortage}"

        stored = find_calibration(
            model, method=METHOD, name=self.name, key="sampler.statistics.name", misfit=misfit
        )

        return self._kept(
            stored.file, lambda: ModelStatistics(**_read(stored.file, ("lam", "l", "s", "b")))
        )


class ReferenceStatistics(Statistics):
    """The authors' files: ``l.npz`` (key l) and ``sb.npz`` (keys s, b) in one folder.

    The files do not contain the model, path and range they were made for; give the range.

    Args:
        directory: The folder.
        t_start, t_end: Times of the first and the last grid point; None = the ends of the model's
            range.

    Source: thu-ml/DPM-Solver-v3, folders ``<t_end>_<N>_<K>`` and ``<t_end>_<t_start>_<N>_<K>``.
    """

    def __init__(
        self, *, directory: str, t_start: float | None = None, t_end: float | None = None
    ) -> None:
        self.directory = FilePath(directory)
        self.t_start = t_start
        self.t_end = t_end

    def of(self, model: Model, low: float, high: float) -> ModelStatistics:
        statistics = self._kept(model.path.identity(), lambda: self._read(model))
        shortage = _shortage(statistics.lam[[0, -1]].tolist(), low, high)
        if shortage is not None:
            raise ValueError(f"the statistics cover {shortage}")
        return statistics

    def _read(self, model: Model) -> ModelStatistics:
        tensors: dict[str, Tensor] = {}
        for name, keys in (("l.npz", "l"), ("sb.npz", "sb")):
            if not (self.directory / name).is_file():
                raise ValueError(
                    f"sampler.statistics.directory is {self.directory}, which has no {name}"
                )
            tensors |= _read(self.directory / name, keys)
        bottom, top = model.time_range
        start = top if self.t_start is None else self.t_start
        end = bottom if self.t_end is None else self.t_end
        lam = lambda_grid(model, t_start=start, t_end=end, N=len(tensors["l"]) - 1)
        return ModelStatistics(lam, **tensors)


class ConstantStatistics(Statistics):
    """The same l, s and b at every level and pixel: 1, 0, 0 is data prediction ("degenerate").

    The grid, of N intervals, spans the time grid.
    """

    def __init__(
        self,
        *,
        l: float = 1.0,  # noqa: E741 - the paper's name
        s: float = 0.0,
        b: float = 0.0,
        N: int = 1200,
    ) -> None:
        if N < 1:
            raise ValueError(f"N is {N}; expected at least 1")
        self.values = (float(l), float(s), float(b))
        self.N = N

    def of(self, model: Model, low: float, high: float) -> ModelStatistics:
        def made() -> ModelStatistics:
            lam = torch.linspace(low, high, self.N + 1, dtype=torch.float64)
            constants = (torch.full((self.N + 1, 1), v, dtype=torch.float64) for v in self.values)
            return ModelStatistics(lam, *constants)

        return self._kept((low, high), made)


def _read(file: FilePath, keys: Iterable[str]) -> dict[str, Tensor]:
    with np.load(file) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in keys}


def lambda_grid(model: Model, *, t_start: float, t_end: float, N: int) -> Tensor:
    """``N + 1`` equal steps of lambda, finite, from ``t_start`` to ``t_end``; float64."""
    times = torch.tensor([t_start, t_end], dtype=torch.float64)
    first, last = torch.log(model.path.schedule.nsr(times)).neg().tolist()
    if not (np.isfinite(first) and np.isfinite(last) and first < last):
        raise ValueError(
            f"lambda goes from {first} at t={t_start} to {last} at t={t_end}; both must be finite "
            f"and the second larger, so start below t_max and end above 0"
        )
    return torch.linspace(first, last, N + 1, dtype=torch.float64)
