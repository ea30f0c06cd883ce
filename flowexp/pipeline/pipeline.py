"""A model together with how it is sampled: what turns seeds into samples."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor

from flowexp.autoencoders import Autoencoder, Pixels
from flowexp.config.seed_text import parse_seeds
from flowexp.data import Dataset, ImageArrays
from flowexp.models import Model
from flowexp.parameterizations import Conditions
from flowexp.pipeline.images import Images
from flowexp.pipeline.latents import FlowexpLatents, Latents
from flowexp.processes import Processes, in_turn
from flowexp.progress import counted, steps_of
from flowexp.requirements import NEVER_LEARNT
from flowexp.samplers import Sampler
from flowexp.seeding import Noise, SampleNoise
from flowexp.tasks import Generation, Task

__all__ = ["consecutive", "parse_seeds", "seeds_text", "SampleBatch", "Pipeline", "Start"]

_LOG = logging.getLogger(__name__)


def consecutive(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The inclusive ranges of consecutive numbers, in order."""
    if isinstance(numbers, range) and numbers.step == 1 and numbers:
        return ((numbers[0], numbers[-1]),)
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def seeds_text(seeds: Sequence[int]) -> str:
    """The shortest text that :func:`parse_seeds` turns back into ``seeds``."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in consecutive(seeds))


@dataclass(frozen=True, eq=False)
class Start:
    """The start of sampling for some seeds: source draws (B, ...), noise per step, conditions.

    Attributes:
        given: The conditions as the task gives them; on latents the network's are others.
    """

    e: Tensor
    noise: Noise
    conditions: Conditions
    given: Conditions


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Some samples, with their seeds, conditions, and targets of the task, if it has any.

    Attributes:
        x: Samples, (B, ...), float32, on the pipeline's device.
        nfe: Network evaluations per sample, (B,), int64, on the CPU.
        facts: What else the sampler counted, see :class:`flowexp.samplers.Samples`, on the CPU.
        decoding: Seconds that the decoder of an autoencoder took, which no evaluation counts.
    """

    seeds: list[int]
    x: Tensor
    nfe: Tensor
    conditions: Conditions
    targets: Tensor | None = None
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    decoding: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Pipeline:
    """Everything that determines the sample of a seed, and where it is computed.

    Latents, labels and noise belong to the seed of a sample: sample i is the same for every batch
    size and number of processes. Only a sampler whose steps a batch shares makes it depend on the
    batch size, which is then stated with the sampler.

    Attributes:
        model: The model, guidance included; its network in evaluation mode and on ``device``.
        shape: Shape of a sample of the flow, (C, H, W) or (D,); that of latents, if there are any.
        autoencoder: What decodes the samples of the flow; none by default.
        dataset: The training data of the model, for comparisons; None = unknown.
        batch_size: Samples per call of the sampler, >= 1.

    Raises:
        ValueError: batch_size < 1, or the sampler does not fit the model.
    """

    model: Model
    sampler: Sampler
    shape: tuple[int, ...]
    task: Task = field(default_factory=Generation)
    latents: Latents = field(default_factory=FlowexpLatents)
    dataset: Dataset | None = None
    autoencoder: Autoencoder = field(default_factory=Pixels)
    batch_size: int = 64
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; allowed: integers >= 1")
        self.sampler.check(self.model)

    def replace(self, **changes: Any) -> Self:  # noqa: ANN401 -- any field
        """The same pipeline with some fields changed, e.g. ``replace(sampler=UniPC(steps=8))``."""
        changed = replace(self, **changes)
        if changed.notice is not None and self.notice is None:
            _LOG.warning(changed.notice)
        return changed

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, if the data set has them."""
        return None if self.dataset is None else self.dataset.class_names

    @property
    def notice(self) -> str | None:
        """A caveat that belongs beside every number of these samples, or None."""
        asks = self.model.asks_without_label or self.task.asks_without_label
        if asks and self.model.labels_dropped is False:
            return f"the samples use the prediction without label, {NEVER_LEARNT}"
        return None

    @property
    def sampling(self) -> str:
        """Sampler and latents in words, as protocols state them: ``Heun, 18 steps``."""
        own = isinstance(self.latents, FlowexpLatents)
        shared = f", steps shared by {self.batch_size}" if self.sampler.shares_steps else ""
        return (
            self.sampler.describe() + shared + ("" if own else f", {type(self.latents).__name__}")
        )

    def start(self, seeds: Sequence[int], *, labels: Tensor | None = None) -> Start:
        """The start of the samples with these seeds; row j depends on ``seeds[j]`` only.

        ``labels`` are (B,), int64, -1 = none; None leaves them to the latents or the task.
        """
        classes = self.task.classes
        draws = self.latents.draw(
            seeds,
            shape=self.shape,
            source=self.model.path.source,
            num_classes=len(classes),
            device=self.device,
        )
        drawn = draws.labels if labels is None else labels.to(self.device)
        if labels is None and drawn is not None:
            drawn = torch.tensor(classes, device=drawn.device)[drawn]
        given = self.task.conditions(seeds, labels=drawn, device=self.device)
        if labels is not None:
            # A task with a class or text of its own does not overrule what the caller asks for.
            given |= self.task.conditions_of(labels.to(self.device))
        noise = SampleNoise(seeds, stream="condition posterior")
        conditions = self.autoencoder.conditions(given, task=self.task, noise=noise)
        return Start(draws.e, draws.noise, conditions, given)

    def batches(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        processes: Processes | None = None,
        decode: bool = True,
    ) -> Iterator[SampleBatch]:
        """Samples in batches; with several processes, those of this process.

        Samples of a flow on latents are decoded; ``decode=False`` leaves them as they are.

        Batches hold the same seeds for every number of processes, so that sharing the work does not
        even change the rounding. For ``labels``, (N,), see :meth:`start`.
        """
        size = self.batch_size
        parts = [slice(i, i + size) for i in range(0, len(seeds), size)]
        for rows in (processes or Processes()).share(parts):
            batch = list(seeds[rows])
            with torch.inference_mode():
                start = self.start(batch, labels=None if labels is None else labels[rows])
                steps = steps_of(len(batch), steps=getattr(self.sampler, "steps", None))
                found = self.sampler.sample(
                    self.model,
                    start.e,
                    noise=start.noise,
                    on_step=steps,
                    **self.model.prepared(**start.conditions),
                )
                x, seconds = found.x.float(), 0.0
                if decode:
                    x, seconds = self.decoded(x)
                    x = self.task.finished(x, start.given)
                targets = self.task.targets(batch, device=self.device)
            facts = {name: values.cpu() for name, values in found.facts.items()}
            yield SampleBatch(batch, x, found.nfe.cpu(), start.given, targets, facts, seconds)

    def decoded(self, x: Tensor) -> tuple[Tensor, float]:
        """Samples of the flow as images, and the seconds that takes; points and images as they are.

        Accelerators are waited for, before and after, so that the time is that of the decoder.
        """
        if not self.autoencoder.encodes:
            return x, 0.0
        _wait_for(x.device)
        began = time.perf_counter()
        x = self.autoencoder.decode(x)
        _wait_for(x.device)
        return x, time.perf_counter() - began

    def gathered(self, seeds: Sequence[int], *, processes: Processes) -> SampleBatch | None:
        """All samples in the order of their seeds, on the first process's CPU; None elsewhere.

        Every process must call this.
        """
        own = []
        with counted("sampled", total=len(seeds), unit="samples") as task:
            for b in self.batches(seeds, processes=processes):
                own.append((b.seeds, b.x.cpu(), b.nfe, b.conditions.get("labels"), b.facts))
                task.advance(len(b.seeds) * processes.world_size)
        shares = processes.gather(own)
        if shares is None:
            return None
        members, x, nfe, labels, facts = zip(*in_turn(shares), strict=True)
        known = [given.cpu() for given in labels if given is not None]
        conditions = {"labels": torch.cat(known)} if known else {}
        together = {name: torch.cat([one[name] for one in facts]) for name in facts[0]}
        return SampleBatch(
            list(chain(*members)), torch.cat(x), torch.cat(nfe), conditions, facts=together
        )

    def sample(
        self, seeds: Sequence[int], *, labels: int | Sequence[int] | Tensor | None = None
    ) -> Images:
        """One sample per seed, (N, ...), float32, on the CPU; images in about [-1, 1].

        Args:
            seeds: For example ``range(64)``.
            labels: One class for all, or one per sample, -1 = no class; None leaves them to the
                task, which draws them at random.

        Raises:
            ValueError: The model has no such class, or the numbers of labels and seeds differ.
        """
        classes = None if labels is None else self._classes(labels, count=len(seeds))
        samples = []
        with counted("sampled", total=len(seeds), unit="samples") as task:
            for batch in self.batches(seeds, labels=classes):
                samples.append(batch.x.cpu())
                task.advance(len(batch.seeds))
        return torch.cat(samples).as_subclass(Images)

    def data(self) -> ImageArrays:
        """The training split in the space of the flow; ``ValueError`` without a data set."""
        if self.dataset is None:
            raise ValueError("this needs the training data, but the pipeline has no data set")
        return self.autoencoder.data(self.dataset).train()

    def _classes(self, labels: int | Sequence[int] | Tensor, *, count: int) -> Tensor:
        classes = torch.as_tensor(labels, dtype=torch.int64)
        classes = classes.expand(count) if classes.ndim == 0 else classes
        if classes.shape != (count,):
            raise ValueError(f"labels have shape {tuple(classes.shape)}; expected ({count},)")
        known = self.task.num_classes
        if known == 0:
            raise ValueError("labels are given, but the model is unconditional")
        if bool(((classes < -1) | (classes >= known)).any()):
            raise ValueError(
                f"labels are {sorted(set(classes.tolist()))}; allowed: -1 to {known - 1}"
            )
        return classes


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
