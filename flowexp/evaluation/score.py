"""Metrics of generated samples and of models, each number with its whole protocol."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flowexp.data import ImageArrays, quantize
from flowexp.diagnostics import ModelMetric, Setting
from flowexp.errors import UsageError
from flowexp.evaluation.reconstructed import reconstructed
from flowexp.evaluation.small_sets import remarks
from flowexp.metrics.base import Accumulator, Metric
from flowexp.metrics.protocol import MetricRecord
from flowexp.metrics.torchmetrics_metric import TorchmetricsMetric
from flowexp.pipeline import Pipeline, Processes, SampleBatch, in_turn, seeds_text
from flowexp.progress import counted, stage
from flowexp.requirements import Part, Parts, on_velocity, require
from flowexp.samplers.adaptive import IntegrationError
from flowexp.tasks import Task

__all__ = [
    "SampleMetrics",
    "ScoreResult",
    "in_words",
    "require_measurable",
    "score",
]

if TYPE_CHECKING:
    import torchmetrics

_LOG = logging.getLogger(__name__)


class SampleMetrics:
    """Metrics of samples, ours or torchmetrics', and their states over this process's samples.

    Those of the model are left out.
    """

    def __init__(
        self,
        metrics: "Mapping[str, Metric | ModelMetric | torchmetrics.Metric]",
        processes: Processes,
    ) -> None:
        self.metrics: dict[str, Metric] = {
            # of all metrics only torchmetrics' are modules
            name: TorchmetricsMetric(metric, name=name, sees_reference=processes.is_first)
            if isinstance(metric, nn.Module)
            else metric
            for name, metric in metrics.items()
            if not isinstance(metric, ModelMetric)
        }
        self.processes = processes
        self._accumulators: dict[str, Accumulator] = {}
        self._count = self._lost = 0

    def check(
        self, task: Task | None, *, seeds: Sequence[int], count_key: str = "num_samples"
    ) -> None:
        """Refuse what cannot be measured, before sampling.

        ``count_key`` is where the user set the number of seeds.

        Raises:
            UsageError: A metric's weights are missing, it needs more samples, or it compares with
                targets and the task has none.
        """
        for name, metric in self.metrics.items():
            metric.check()
            needed = metric.minimum_samples
            if len(seeds) < needed:
                problem = (
                    f"{name} needs at least {needed} samples, but there are {len(seeds)} seeds."
                )
                remedy = f"Set {count_key}={needed} or more, or take another metric."
                raise UsageError(problem, key=count_key, remedy=remedy)
            if metric.paired and (task is None or task.targets(seeds[:1]) is None):
                which = "no task" if task is None else type(task).__name__
                problem = f"{name} compares each sample with a target, and {which} has none."
                remedy = "Take a task with targets (a restoration task), or another metric."
                raise UsageError(problem, key=f"metric.{name}", remedy=remedy)

    def prepare(
        self,
        reference: ImageArrays,
        heldout: ImageArrays | None,
        *,
        cache_dir: Path | None,
        device: torch.device | str,
        batch_size: int,
        decoded: ImageArrays | None = None,
    ) -> None:
        """Reference statistics; the first process fills the cache, then the others read it.

        ``decoded`` are real images as an autoencoder gives them back, for a second floor.

        For the arguments see :func:`~flowexp.evaluation.score`; extractors run on ``device``.
        """
        for turn in (True, False):
            if self.processes.is_first is turn:
                for metric in self.metrics.values():
                    metric.prepare(
                        reference, cache_dir=cache_dir, device=device, batch_size=batch_size
                    )
                    if heldout is not None and turn and not metric.paired:
                        metric.floor(heldout)
                    if decoded is not None and turn and not metric.paired:
                        metric.reconstruction(decoded)
            self.processes.barrier()
        self._accumulators = {name: m.accumulator() for name, m in self.metrics.items()}

    def update(self, batch: SampleBatch) -> None:
        """Add a batch of samples to every metric, with the targets to paired ones."""
        self._count += len(batch.seeds)
        self._lost += int((~batch.x.flatten(1).isfinite().all(1)).sum())
        with torch.inference_mode():
            images = [_levels(x) for x in (batch.x, batch.targets) if x is not None]
            for name, accumulator in self._accumulators.items():
                accumulator.update(*images if self.metrics[name].paired else images[:1])

    def records(self) -> dict[str, tuple[MetricRecord, ...]]:
        """The numbers of every metric on the first process, () each elsewhere; all must call this.

        They are nan, with the reason, if some samples are not finite. Without any sample it raises
        ``UsageError``.
        """
        # a process without a batch has nothing to send
        own = {
            name: {key: tensor.cpu() for key, tensor in accumulator.state().items()}
            for name, accumulator in self._accumulators.items()
            if self._count
        }
        gathered, counts = (
            self.processes.gather(own),
            self.processes.gather((self._lost, self._count)),
        )
        if gathered is None or counts is None:
            return dict.fromkeys(self.metrics, ())
        found = {
            name: _merged(metric, [state[name] for state in gathered if name in state]).compute()
            for name, metric in self.metrics.items()
        }
        lost, count = (sum(column) for column in zip(*counts, strict=True))
        reason = f"{lost} of {count} samples are not finite"
        return {
            name: self.metrics[name].not_a_number(own, reason=reason) if lost else own
            for name, own in found.items()
        }


def _levels(x: Tensor) -> Tensor:
    """Images as 8-bit levels; points as they are; 0 for what is not finite."""
    if not x.is_floating_point():
        return x
    finite = x.nan_to_num(0.0, posinf=0.0, neginf=0.0)
    return quantize(finite) if x.ndim == 4 else finite


def _merged(metric: Metric, states: Sequence[dict[str, Tensor]]) -> Accumulator:
    """One accumulator from the states of all processes, in the order of their ranks."""
    if not states:
        raise UsageError("no sample was generated.", key="seeds", remedy="Give some seeds.")
    accumulators = [metric.accumulator() for _ in states]
    for accumulator, state in zip(accumulators, states, strict=True):
        accumulator.load(state)
    for other in accumulators[1:]:
        accumulators[0].merge(other)
    return accumulators[0]


@dataclass(frozen=True)
class ScoreResult:
    """What an evaluation measured.

    Attributes:
        records: The numbers, each with its protocol; empty on all processes but the first.
        count: Samples generated over all processes.
        nfe: Mean number of network evaluations per sample.
        seconds: Wall time of generating and scoring samples, without the reference statistics and
            without the metrics of the model.
        images_per_second: Samples per second of that time, over all processes.
        decoding: Seconds of that time in which samples were decoded, by this process.
        words: Remarks to show beside the scores, one sentence each.
        metrics: The name of the metric that each record is of.
        facts: Means of what else the sampler counted, such as the share of accepted drafts.
    """

    records: tuple[MetricRecord, ...]
    count: int
    nfe: float
    seconds: float
    images_per_second: float
    words: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    decoding: float = 0.0

    def rows(self) -> list[tuple[str, str]]:
        """Every number under its full protocol name, with its floor and other numbers beside it."""
        rows = []
        for record in self.records:
            beside = dict(record.extra)
            error, floor = beside.pop("standard_error", None), beside.pop("floor", None)
            count = beside.pop("floor_count", None)
            second = beside.pop("reconstruction", None)
            decoded = beside.pop("reconstruction_count", None)
            spread = "" if error is None else f" +- {error:.2g} (standard error)"
            why = f"not a number: {record.reason}" if record.reason else ""
            rows.append((record.title, why or f"{record.value:.4g}{spread}"))
            if floor is not None:
                rows.append(("  floor: held-out against train", f"{floor:.4g} ({count} images)"))
            if second is not None:
                name = "  floor: decoded latents of real images"
                rows.append((name, f"{second:.4g} ({decoded:g} images)"))
            rows += [(f"  {n.replace('_', ' ')}", f"{value:.4g}") for n, value in beside.items()]
            if record.protocol.notice:
                rows.append(("  note", record.protocol.notice))
        return rows

    def decoding_rows(self) -> list[tuple[str, str]]:
        """The time of the decoder, which the number of evaluations leaves out, if there is one."""
        return [("decoder", f"{self.decoding:.1f} s of that time")] if self.decoding else []

    @property
    def nfe_in_words(self) -> str:
        """``18 network evaluations a sample``."""
        return f"{self.nfe:.4g} network evaluation{'s' if self.nfe != 1.0 else ''} a sample"

    def costs(self) -> list[tuple[str, str]]:
        """Network evaluations, and what else the sampler counted."""
        return [("NFE", self.nfe_in_words), *((n, f"{v:.4g}") for n, v in self.facts.items())]

    def __str__(self) -> str:
        sampler = {record.protocol.sampler for record in self.records}
        rows = [
            *self.rows(),
            ("sampler", "; ".join(sorted(s for s in sampler if s))),
            *self.costs(),
            ("generated and scored", f"{self.count} samples in {self.seconds:.1f} s"),
            *self.decoding_rows(),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join([*(f"{name:<{width}}  {value}" for name, value in rows), *self.words])


def score(
    pipeline: Pipeline,
    *,
    metrics: "Mapping[str, Metric | ModelMetric | torchmetrics.Metric]",
    seeds: Sequence[int],
    reference: ImageArrays,
    heldout: ImageArrays | None = None,
    cache_dir: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    on_batch: Callable[[SampleBatch], None] | None = None,
) -> ScoreResult:
    """Generate samples and measure them; every process must call this.

    Args:
        pipeline: What is evaluated; its batch size is also that of the extractors.
        metrics: Name -> metric, of samples (ours or torchmetrics') or of the model; checked and
            prepared here.
        seeds: One per sample.
        reference: Real samples to compare with.
        heldout: Real samples whose own score is shown beside every number as its floor.
        cache_dir: Folder of cached reference statistics.
        facts: Fields of the protocol that the caller knows: ``precision``, ``ema``, ``sampler``.
        processes: The processes that share the work.
        on_batch: Called with every batch of this process, for progress or images.

    Raises:
        UsageError: Weights that a metric needs are missing, or a metric is not defined for the
            model, the task or the data.
    """
    processes = processes or Processes()
    setting = Setting(
        pipeline=pipeline,
        seeds=seeds,
        reference=reference,
        heldout=heldout,
        processes=processes,
    )
    require_measurable(metrics, setting=setting)
    of_model = {name: m for name, m in metrics.items() if isinstance(m, ModelMetric)}
    samples = SampleMetrics(metrics, processes)
    samples.prepare(
        reference,
        heldout,
        cache_dir=cache_dir,
        device=pipeline.device,
        batch_size=pipeline.batch_size,
        decoded=reconstructed(pipeline, heldout or reference, count=len(seeds)),
    )
    compared = samples.metrics.values()
    said = list(remarks(compared, dataset=pipeline.dataset, heldout=heldout, count=len(seeds)))
    own, began, decoding = [(setting.nfe, dict[str, Tensor]())], time.perf_counter(), 0.0
    size = pipeline.batch_size
    shares = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    with counted("sampled and scored", total=len(seeds), unit="samples") as task:
        for batch in (_samples(pipeline, share) for share in processes.share(shares)):
            samples.update(batch)
            own.append((batch.nfe, dict(batch.facts)))
            decoding += batch.decoding
            task.advance(len(batch.seeds) * processes.world_size)
            if on_batch is not None:
                on_batch(batch)
    with stage("comparing the samples with the reference"):
        found = samples.records()
    gathered = processes.gather(own[1:])
    seconds = time.perf_counter() - began
    parts = own if gathered is None else in_turn(gathered)
    nfe = torch.cat([count for count, _ in parts])
    setting = replace(setting, nfe=setting.nfe if gathered is None else nfe)
    found |= {n: m.measure(pipeline.model, setting=setting) for n, m in of_model.items()}
    count, per_sample = len(nfe), float(nfe.sum()) / max(1, len(nfe))
    device = torch.device(pipeline.device).type
    run = {"nfe": per_sample, "seeds": seeds_text(seeds), "device": device, **(facts or {})}
    run["autoencoder"] = pipeline.autoencoder.describe()
    records = tuple(
        _explained(record).with_notice(pipeline.notice).with_run(**run)
        for name in metrics
        for record in found[name]
    )
    said += [
        in_words(record, zero=metric.zero)
        for name, metric in samples.metrics.items()
        for record in found[name][:1]
        if metric.zero and record.extra.get("floor", 0.0) > 0.0 and math.isfinite(record.value)
    ]
    owners = tuple(name for name in metrics for _ in found[name])
    return ScoreResult(
        records,
        count,
        per_sample,
        seconds,
        images_per_second=count / seconds,
        words=tuple(said),
        metrics=owners,
        facts=_means([found for _, found in parts]),
        decoding=decoding,
    )


def _means(facts: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """The mean of each number over all samples that have it, in the order of their names' use."""
    names = dict.fromkeys(name for found in facts for name in found)
    values = {name: torch.cat([f[name] for f in facts if name in f]) for name in names}
    return {name: float(value.mean()) for name, value in values.items()}


def require_measurable(
    metrics: "Mapping[str, Metric | ModelMetric | torchmetrics.Metric]",
    *,
    setting: Setting,
    count_key: str = "num_samples",
) -> None:
    """Refuse what :func:`score` would, before anything is sampled.

    ``count_key`` is where the user set the number of seeds.

    Raises:
        UsageError: As in :func:`score`.
    """
    pipeline = setting.pipeline
    known = Parts(
        path=pipeline.model.path, dataset=pipeline.dataset, autoencoder=pipeline.autoencoder
    )
    for name, metric in metrics.items():
        if isinstance(metric, Part):
            require(metric.needs(known), group=f"metric.{name}")
        if isinstance(metric, ModelMetric):
            if metric.follows_velocity:
                needed = on_velocity(pipeline.model, name=metric.name, remedy="Leave it out.")
                require(needed, group=f"metric.{name}")
            metric.check()
            metric.check_setting(pipeline.model, setting=setting)
    samples = SampleMetrics(metrics, setting.processes)
    samples.check(pipeline.task, seeds=setting.seeds, count_key=count_key)


def _samples(pipeline: Pipeline, seeds: Sequence[int]) -> SampleBatch:
    """The samples of at most a batch of seeds; nan, at no evaluations, where the solver fails."""
    try:
        return next(pipeline.batches(seeds))
    except IntegrationError as error:
        if len(seeds) == 1:
            _LOG.warning("no sample of seed %d: %s", seeds[0], error)
            lost = torch.full((1, *pipeline.shape), math.nan, device=pipeline.device)
            lost, _ = pipeline.decoded(lost)
            nfe = torch.zeros(1, dtype=torch.int64)
            targets = pipeline.task.targets(seeds, device=pipeline.device)
            return SampleBatch(list(seeds), lost, nfe, {}, targets)
    middle = len(seeds) // 2
    parts = [_samples(pipeline, half) for half in (seeds[:middle], seeds[middle:])]
    given = [part.targets for part in parts if part.targets is not None]
    x, nfe = torch.cat([part.x for part in parts]), torch.cat([part.nfe for part in parts])
    targets = torch.cat(given) if given else None
    seconds = math.fsum(part.decoding for part in parts)
    return SampleBatch(list(seeds), x, nfe, {}, targets, decoding=seconds)


def in_words(record: MetricRecord, *, zero: str) -> str:
    """A score compared with its floor in words; ``zero`` completes "0 would mean ..."."""
    floor, count = record.extra["floor"], record.extra["floor_count"]
    times = record.value / floor
    ratio = f"{times:.0f}" if times >= 10.0 else f"{times:.2g}"
    return (
        f"{record.value:.4g} is {ratio} times the floor of {floor:.4g}, the score of {count} real "
        f"samples that were held out; 0 would mean {zero}."
    )


def _explained(record: MetricRecord) -> MetricRecord:
    """A record whose value has a reason if it is nan."""
    if record.reason is None and math.isnan(record.value):
        return replace(record, reason="the metric is not defined for these samples")
    return record
