"""What a training step is given: its batch, and its random draws as functions of (seed, step)."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowexp.augmentations import Augmentation
from flowexp.autoencoders import Autoencoder, Pixels
from flowexp.couplings import Coupling, Pairs, WholeBatch
from flowexp.data import BatchStream, DataBatch, ImageArrays, as_data, gather_batch
from flowexp.networks.base import label_dim_of
from flowexp.parameterizations import Conditions
from flowexp.paths import Path
from flowexp.requirements import Parts, require
from flowexp.seeding import generator, open_uniform
from flowexp.tasks import Task
from flowexp.timesteps import TimeLaw
from flowexp.training.coupled import Share, couple

if TYPE_CHECKING:
    from flowexp.training.parts import TrainingParts

__all__ = ["BatchFeed", "TrainingDraws", "seed_global"]

_AHEAD = 2


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the global generators that a network on ``device`` draws from (dropout).

    ``torch.manual_seed`` would do, but where an accelerator is installed and unused it formats a
    stack trace per call and keeps it: half a millisecond, and memory that grows with every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@dataclass(frozen=True, eq=False)
class TrainingDraws:
    """Pairs (x, e) and times t of a step.

    Source, times and latents of a posterior are drawn for the global batch and every rank takes its
    rows, so that a step sees the same draws on any number of devices, and stratified times are
    stratified over the whole batch. A coupling sees the share of its rank, or the batch of all, as
    it says.

    Args:
        conditional: Whether the network takes labels; otherwise those of the data are dropped.
        augmentation: Change of the images, on which the network is conditioned; None = none.
        task: Turns data and labels into the conditions of the network; None = the labels.
        autoencoder: What makes latents of images that the task gives.
        pixels: The images of latents, of which the task makes its conditions; None = the data are
            images themselves.
        uniforms: How many numbers per sample the objective needs.
        rank: This process, of ``world_size``.

    Raises:
        UsageError: The path or the augmentation is not what the coupling needs.
    """

    path: Path
    _: KW_ONLY
    coupling: Coupling
    timestep: TimeLaw
    conditional: bool
    seed: int
    augmentation: Augmentation | None = None
    task: Task | None = None
    autoencoder: Autoencoder = field(default_factory=Pixels)
    pixels: ImageArrays | None = None
    uniforms: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        parts = Parts(path=self.path, augmentation=self.augmentation)
        require(self.coupling.needs(parts), group="coupling")

    @classmethod
    def of(
        cls, parts: "TrainingParts", *, seed: int, rank: int = 0, world_size: int = 1
    ) -> "TrainingDraws":
        """The draws of a training."""
        pipeline, pixels = parts.pipeline, None
        task = None if pipeline is None else pipeline.task
        autoencoder = Pixels() if pipeline is None else pipeline.autoencoder
        if pipeline is not None and pipeline.dataset is not None and autoencoder.encodes:
            of_images = pipeline.task.gives and not pipeline.task.made_of_latents
            pixels = pipeline.dataset.train() if of_images else None
        return cls(
            parts.model.path,
            coupling=parts.coupling,
            timestep=parts.timestep,
            augmentation=parts.augmentation,
            conditional=label_dim_of(parts.model.network) > 0,
            task=task,
            autoencoder=autoencoder,
            pixels=pixels,
            uniforms=parts.objective.uniforms,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    def __call__(self, batch: DataBatch, step: int) -> tuple[Pairs, Tensor]:
        """Pairs and times, (B,) or (B, k) float64, for this rank's share of the batch of a step."""
        x = as_data(batch.images)
        total = len(x) * self.world_size
        rows = slice(self.rank * len(x), (self.rank + 1) * len(x))
        if batch.std is not None:
            x = torch.addcmul(x, batch.std, self._normal("posterior", step, like=x))
        rng = self._generator("source", step, device=x.device)
        e = self.path.source.sample((total, *x.shape[1:]), rng=rng)
        rng = self._generator("time", step, device=x.device)
        law = self.timestep.at(step * total)
        t = law.sample(total, schedule=self.path.schedule, rng=rng)
        augmented: dict[str, Tensor | None] = {}
        if self.augmentation is not None and self.augmentation.augment_dim > 0:
            # On the CPU whatever the device: the padding depends on these draws.
            rng = self._generator("augment", step, device=torch.device("cpu"))
            x, augmented["augment_labels"] = self.augmentation(
                x, rng=rng, rank=self.rank, world_size=self.world_size
            )
        conditions = {**self._conditions(x, batch, step), **augmented}
        pairs = couple(
            self.coupling,
            x,
            e,
            conditions,
            partner=batch.partner,
            share=Share(self.rank, self.world_size, len(x)),
            images_seen=step * total,
            rng_of=lambda rank: self._generator("coupling", step, rank, device=x.device),
        )
        uniforms = self._uniforms(total, step)
        pairs = replace(
            pairs,
            images_seen=step * total,
            uniforms=None if uniforms is None else uniforms[rows],
        )
        if pairs.t is not None:
            return pairs, pairs.t
        positions = torch.arange(rows.start, rows.stop, device=t.device)
        return replace(pairs, whole=WholeBatch(t, uniforms), positions=positions), t[rows]

    def _conditions(self, x: Tensor, batch: DataBatch, step: int) -> Conditions:
        """What the task makes of data x, (B, ...); without a task, the labels."""
        labels = batch.labels if self.conditional else None
        if self.task is None:
            return {} if labels is None else {"labels": labels}
        if self.pixels is not None:
            mirrored = None if batch.mirrored is None else batch.mirrored.cpu().numpy()
            batch = gather_batch(self.pixels, batch.index.cpu().numpy(), mirrored=mirrored)
            batch = batch.to(x.device)
            x = as_data(batch.images)
        rng = self._generator("conditions", step, device=torch.device("cpu"))
        found = self.task.of_data(
            batch, x, labels, rng=rng, rank=self.rank, world_size=self.world_size
        )

        of_step = step

        def noise(step: int, like: Tensor) -> Tensor:
            return self._normal("condition posterior", of_step, step, like=like)

        return self.autoencoder.conditions(found, task=self.task, noise=noise)

    def _normal(self, stream: str, *index: int, like: Tensor) -> Tensor:
        """This rank's rows of normal draws for the global batch, of the shape of ``like``."""
        count = len(like)
        rng = self._generator(stream, *index, device=like.device)
        shape = (self.world_size * count, *like.shape[1:])
        drawn = torch.randn(shape, generator=rng, device=like.device)
        return drawn[self.rank * count : (self.rank + 1) * count]

    def _uniforms(self, total: int, step: int) -> Tensor | None:
        if self.uniforms == 0:
            return None
        rng = self._generator("objective rows", step, device=torch.device("cpu"))
        return open_uniform((total, self.uniforms), rng=rng)

    def _generator(self, stream: str, *index: int, device: torch.device) -> torch.Generator:
        return generator(self.seed, stream, *index, device=device)


@dataclass(eq=False)
class BatchFeed:
    """Batches of the steps ``start`` .. ``stop - 1`` of a stream.

    Batches are functions of their step, so fetching ``ahead`` changes nothing but the time: a
    thread gathers and pins the next ones while an accelerator computes. On the CPU it would compete
    with the training for the same cores.
    """

    stream: BatchStream
    _: KW_ONLY
    start: int
    stop: int
    ahead: bool

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[DataBatch]:
        if self.ahead:
            yield from self._fetched_ahead()
        else:
            yield from map(self.stream.batch, range(self.start, self.stop))

    def _fetched_ahead(self) -> Iterator[DataBatch]:
        with ThreadPoolExecutor(max_workers=1) as thread:
            coming = (thread.submit(self._pinned, step) for step in range(self.start, self.stop))
            waiting = deque(islice(coming, _AHEAD))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(islice(coming, 1))
                yield batch

    def _pinned(self, step: int) -> DataBatch:
        batch = self.stream.batch(step)
        return batch.pin_memory() if torch.cuda.is_available() else batch
