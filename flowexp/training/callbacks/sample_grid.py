"""Images of what the model makes during training."""

import logging
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Callback, Trainer

from flowexp.errors import UsageError
from flowexp.pipeline import Pipeline, classes_shown, save_grid, with_given
from flowexp.seeding import derive_seed
from flowexp.training.loggers import RunLogger

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["SampleGrid"]

_LOG = logging.getLogger(__name__)


class SampleGrid(Callback):
    """A grid of samples now and then, always of the same seeds, by the run's sampler and task.

    Written to ``samples/grid-<kimg>.png``. If the task draws classes, the grid has a row for each
    of them, or for 16 of them; beside a sample is what the task gives of images, and its target;
    points of the plane become a scatter plot.

    Args:
        every_kimg: Thousands of images between grids; None = only at the end.
        num: Number of samples; with a row per class, at most as many, for rows of one length.
        columns: Samples per row; None = as square as possible, or what ``num`` gives each class.
        seed: The first sample's seed; the others follow.
        ema: Which average makes them; None = the raw weights, ``first`` = the first average, or the
            raw weights where there is none.
        batch_size: Samples per call of the sampler.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        *,
        every_kimg: float | None = None,
        num: int = 64,
        columns: int | None = None,
        seed: int = 0,
        ema: str | None = "first",
        batch_size: int = 64,
    ) -> None:
        if every_kimg is not None and not 0 < every_kimg < float("inf"):
            raise ValueError(f"every_kimg is {every_kimg}; allowed: finite numbers > 0, or None")
        if num < 1 or batch_size < 1:
            raise ValueError(f"num={num}, batch_size={batch_size}; allowed: integers >= 1")
        self.every_kimg = every_kimg
        self.num = num
        self.columns = columns
        self.seed = seed
        self.ema = ema
        self.batch_size = batch_size
        self._next_image = float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Refuse at once what would fail hours later; count from here on."""
        emas = pl_module.averages.emas
        if self.ema not in (None, "first", *emas):
            raise UsageError(
                f"there is no average {self.ema!r}.",
                key="callbacks.sample_grid.ema",
                remedy=f"There are: {', '.join(emas) or 'none'}; null means the raw weights.",
            )
        if pl_module.parts.pipeline is None:
            raise UsageError("sample grids need a sampler.", key="sampler")
        # reads what the task needs of held-out images
        pl_module.parts.pipeline.task.conditions([self.seed])
        self._plan(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: "FlowModule", *_: object) -> None:
        """Draw a grid when it is time; the last one belongs to the end."""
        due = pl_module.images >= self._next_image
        if due and pl_module.step < pl_module.settings.total_steps:
            self._plan(pl_module)
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, module: "FlowModule") -> None:
        """Sample and write one grid; weights, mode and global random state are put back."""
        pipeline = module.parts.pipeline
        if pipeline is None or not trainer.is_global_zero:
            return
        name = next(iter(module.averages.emas), None) if self.ema == "first" else self.ema
        with module.evaluating(name), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "grid"))
            pipeline = pipeline.replace(batch_size=self.batch_size, device=module.device)
            labels = self._labels(pipeline)
            num = self.num if labels is None else len(labels)
            seeds = range(self.seed, self.seed + num)
            x = pipeline.sample(seeds, labels=labels)
        path = module.run.samples / f"grid-{module.kimg:010.3f}.png"
        try:
            names, given = pipeline.class_names, with_given(pipeline.task, seeds, x)
            if given is None:
                save_grid(path, x, columns=self.columns, labels=labels, class_names=names)
            else:
                save_grid(path, given.images, columns=given.columns)
        except (ValueError, OSError) as error:
            # An image must not end a training: the loss says so itself when it has diverged, and
            # the next checkpoint when the disk is full.
            _LOG.warning("no sample grid at %.3f kimg: %s", module.kimg, error)
            return
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_image("samples/grid", path, step=module.step)

    def _labels(self, pipeline: Pipeline) -> torch.Tensor | None:
        """Equally many of every class shown; None if the task does not draw classes."""
        columns = self.columns or 1
        classes = classes_shown(pipeline.task, most=max(1, self.num // columns))
        if not classes:
            return None
        per_class = self.columns or self.num // len(classes)
        return torch.tensor(classes).repeat_interleave(per_class)

    def _plan(self, module: "FlowModule") -> None:
        if self.every_kimg is not None:
            every = self.every_kimg * 1000.0
            self._next_image = (module.images // every + 1) * every
