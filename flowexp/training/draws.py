"""The random inputs of a training step, as functions of (seed, step)."""

import torch
from torch import Tensor

from flowexp.augmentations import Augmentation
from flowexp.couplings import Coupling, Pairs
from flowexp.data import DataBatch, as_data
from flowexp.paths import Path
from flowexp.requirements import Parts, require
from flowexp.seeding import generator
from flowexp.tasks import Task
from flowexp.timesteps import TimestepDistribution

__all__ = ["Draws", "seed_global"]


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the global generators that a network on ``device`` draws from (dropout).

    ``torch.manual_seed`` would do, but where an accelerator is installed and unused it formats a
    stack trace per call and keeps it: half a millisecond, and memory that grows with every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Draws:
    """Pairs (x, e) and times t of a step.

    Source and times are drawn for the global batch and every rank takes its rows, so that a step
    sees the same draws on any number of devices, and stratified times are stratified over the whole
    batch. A coupling sees the share of its rank.

    Args:
        path: Schedule and source.
        coupling: Which e goes with which x.
        timestep: Law of t.
        augmentation: Change of the images, on which the network is conditioned; None = none.
        conditional: Whether the network takes labels; otherwise those of the data are dropped.
        task: Turns labels into the conditions of a conditional network; None = the labels.
        seed: The run's seed.
        rank: This process.
        world_size: Number of processes.

    Raises:
        UsageError: The path or the augmentation is not what the coupling needs.
    """

    def __init__(
        self,
        path: Path,
        *,
        coupling: Coupling,
        timestep: TimestepDistribution,
        conditional: bool,
        augmentation: Augmentation | None = None,
        task: Task | None = None,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        parts = Parts(path=path, augmentation=augmentation)
        require(coupling.needs(parts), group="coupling")
        self.path = path
        self.coupling = coupling
        self.timestep = timestep
        self.conditional = conditional
        self.augmentation = augmentation
        self.task = task
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __call__(self, batch: DataBatch, step: int) -> tuple[Pairs, Tensor]:
        """Pairs and times, (B,) float64, for this rank's share of the batch of a step."""
        x = as_data(batch.images)
        total = len(x) * self.world_size
        rows = slice(self.rank * len(x), (self.rank + 1) * len(x))
        e = self.path.source.sample(
            (total, *x.shape[1:]), rng=self._generator("source", step, device=x.device)
        )
        t = self.timestep.sample(
            total,
            schedule=self.path.schedule,
            rng=self._generator("time", step, device=x.device),
        )
        conditions: dict[str, Tensor | None] = {"labels": batch.labels} if self.conditional else {}
        if self.conditional and self.task is not None:
            conditions = self.task.conditions_of(batch.labels)
        if self.augmentation is not None and self.augmentation.augment_dim > 0:
            # On the CPU whatever the device: the padding depends on these draws.
            x, conditions["augment_labels"] = self.augmentation(
                x,
                rng=self._generator("augment", step, device=torch.device("cpu")),
                rank=self.rank,
                world_size=self.world_size,
            )
        coupling_rng = self._generator("coupling", step, self.rank, device=x.device)
        pairs = self.coupling.pair(
            x,
            e[rows],
            conditions,
            rng=coupling_rng,
            partner=batch.partner,
            images_seen=step * total,
        )
        return pairs, t[rows] if pairs.t is None else pairs.t

    def _generator(self, stream: str, *index: int, device: torch.device) -> torch.Generator:
        return generator(self.seed, stream, *index, device=device)
