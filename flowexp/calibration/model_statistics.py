"""The calibration of DPM-Solver-v3: empirical statistics of the model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowexp.calibration.base import Calibrated, Calibration, RunParts, Subject
from flowexp.calibration.statistics_pass import StatisticsDraws, statistics_over
from flowexp.data import as_data, gather_batch
from flowexp.files import write_npz
from flowexp.samplers import ModelStatistics
from flowexp.samplers.model_statistics import METHOD, lambda_grid
from flowexp.seeding import generator
from flowexp.tasks import refuse_given

__all__ = ["ModelStatisticsCalibration", "write_reference"]

_MOST_EXACT = 4096


class ModelStatisticsCalibration(Calibration):
    """DPM-Solver-v3's l, s and b on a uniform grid of half log-SNR, over noised data.

    Two passes: first l at every point of the grid, then, with l and its slope, the moments from
    which s and b follow. A point of a pass is one file, so a stopped calibration continues, and
    several processes share the points. The model is taken without guidance.

    Args:
        N: Intervals of the grid; 120 (10 evaluations and more) to 1200 (fewer) as published.
        K: Number of data in the average, 1024 to 4096 as published; a smaller data set is repeated
            with other noise.
        sigma_max, sigma_min: sigma/alpha of the first and the last point, within the model's range.
        probes: Rademacher probes per datum for the diagonal of the Jacobian (1 as published);
            None = exactly, by one Jacobian-vector product per component.
        fixed_l: Take this number for l everywhere and skip the first pass; 1 is data prediction.
        reference_layout: Also write the authors' files, ``<name>/l.npz`` and ``<name>/sb.npz``.
        double: States in float64, else float32; networks compute in float32 in any case.

    Source: Zheng et al., DPM-Solver-v3, 2023, arXiv 2310.13268, section 3.1 and appendix C.1, D.
    """

    method = METHOD

    def __init__(
        self,
        *,
        N: int = 120,
        K: int = 1024,
        sigma_max: float = 200.0,
        sigma_min: float = 0.002,
        probes: int | None = 1,
        fixed_l: float | None = None,
        reference_layout: bool = False,
        double: bool = True,
    ) -> None:
        for name, value in (("N", N), ("K", K), ("probes", 1 if probes is None else probes)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if not 0.0 < sigma_min < sigma_max:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        self.N, self.K = N, K
        self.sigma_max, self.sigma_min = float(sigma_max), float(sigma_min)
        self.probes = probes
        self.fixed_l = None if fixed_l is None else float(fixed_l)
        self.reference_layout = reference_layout
        self.double = double

    def calibrate(self, subject: Subject, *, directory: Path) -> Calibrated:
        model = subject.model
        low, high = model.time_range
        wanted = torch.tensor([self.sigma_max, self.sigma_min], dtype=torch.float64)
        within = model.path.schedule.time_at_nsr(wanted).clamp(min=low, max=high)
        t_start, t_end = within.tolist()
        lam = lambda_grid(model, t_start=t_start, t_end=t_end, N=self.N)
        data = subject.pipeline.data()
        settings = {
            "N": self.N,
            "K": self.K,
            "t_start": t_start,
            "t_end": t_end,
            "lam": [float(lam[0]), float(lam[-1])],
            "probes": self.probes,
            "fixed_l": self.fixed_l,
            "double": self.double,
            "data": data.fingerprint,
        }
        manifest, digest = self.manifest(subject, settings)
        name = f"N{self.N}_K{self.K}_{t_end:.4g}-{t_start:.4g}_{digest}"
        file = directory / f"{name}.npz"

        def measure(run: RunParts) -> dict[str, Tensor]:
            draws = self._draws(subject, data)
            statistics = statistics_over(model, lam, draws, run=run, fixed_l=self.fixed_l)
            if self.reference_layout and subject.processes.is_first:
                write_reference(file.with_suffix(""), statistics)
            return vars(statistics)

        beside = f"{name}_batch{subject.pipeline.batch_size}"
        self.measure_once(subject, file, manifest, measure=measure, parts_beside=beside)
        span = f"t = {t_start:.4g} to {t_end:.4g}"
        summary = [
            ("statistics", f"l, s, b at {self.N + 1} noise levels, {span}"),
            ("averaged over", f"{self.K} data"),
        ]
        return Calibrated(file, summary, ("sampler=dpm_solver_v3", "sampler.steps=10"))

    def _draws(self, subject: Subject, data: Any) -> StatisticsDraws:  # noqa: ANN401
        """Data (repeated only if fewer than K), source draws and probes, from the seed."""
        seed, shape = subject.seed, subject.pipeline.shape
        if self.probes is None and int(np.prod(shape)) > _MOST_EXACT:
            raise ValueError(
                f"probes is null, but exact diagonals of {int(np.prod(shape))} components need as "
                f"many products per datum; use probes=1"
            )
        rounds = range(-(-self.K // len(data)))
        orders = [
            torch.randperm(len(data), generator=generator(seed, "calibration/data", i))
            for i in rounds
        ]
        index = torch.cat(orders)[: self.K]
        batch = gather_batch(data, index.numpy())
        e = subject.model.path.source.sample(
            (self.K, *shape), rng=generator(seed, "calibration/source")
        )
        probes = None
        if self.probes is not None:
            rng = generator(seed, "calibration/probes")
            signs = torch.randint(2, (self.probes, self.K, *shape), generator=rng)
            probes = (2 * signs - 1).to(torch.int8)
        x, task = as_data(batch.images), subject.pipeline.task
        if subject.pipeline.autoencoder.encodes:
            refuse_given(task, what="statistics on latents", key="run")
        if task.gives:
            # made of these data, not of those of the seeds
            labels = batch.labels if task.num_classes else None
            rng = generator(seed, "calibration/conditions")
            conditions = task.of_data(batch, x, labels, rng=rng)
        else:
            conditions = task.conditions(index.tolist(), labels=batch.labels)
        return StatisticsDraws(
            x=x,
            e=e,
            probes=probes,
            conditions=conditions,
            batch_size=subject.pipeline.batch_size,
            device=subject.pipeline.device,
            dtype=torch.float64 if self.double else torch.float32,
        )


def write_reference(directory: Path, statistics: ModelStatistics) -> None:
    """The files of :class:`flowexp.samplers.ReferenceStatistics`, in a folder."""
    write_npz(directory / "l.npz", {"l": statistics.l.numpy()})
    write_npz(directory / "sb.npz", {"s": statistics.s.numpy(), "b": statistics.b.numpy()})
