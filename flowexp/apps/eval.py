"""``flowexp eval``: score a run; every number with its protocol, its floor and its cost."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.apps.run_loggers import log_scores
from flowexp.apps.score_identity import NOT_OF_A_SCORE, digests_of
from flowexp.apps.sweeps import after_scoring, for_every_run
from flowexp.apps.terminal import beside, logging_to, shown, table
from flowexp.config.application import Job, launch
from flowexp.config.instantiate import instantiate
from flowexp.config.sweep import remove_unused
from flowexp.errors import NotWrittenError, UsageError
from flowexp.progress import stage
from flowexp.tree import digest

if TYPE_CHECKING:
    from flowexp.diagnostics import Setting
    from flowexp.evaluation import BestOfSnapshots, PostHoc, ScoreResult
    from flowexp.evaluation.selection import Chosen
    from flowexp.processes import Processes
    from flowexp.runs.opening import OpenedRun

__all__ = ["main"]

_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Score a run, or every run of a sweep: ``run=DIR``, ``DIR``, ``run=SWEEPDIR``."""
    given, runs = for_every_run("eval", arguments)
    launch("eval", partial(evaluate, runs=runs), given, after_sweep=after_scoring)


def evaluate(job: Job, *, runs: Sequence[str] = ()) -> float | None:
    """Select the weights, generate, measure, record.

    If the run is one of several ``runs``, stored scores are shown and only missing ones measured.

    A number that is not one, such as the score of a diverged model, is a result like any other: it
    is stored and printed with its reason, and the command succeeds.

    Returns:
        The first metric's value, for optimising sweepers.
    """
    with stage("loading PyTorch"):
        from flowexp.evaluation import (
            PostHoc,
            append_results,
            score,
            stored_results,
            summarize,
            together,
        )

    from flowexp.data.locations import cache_dir
    from flowexp.diagnostics import Setting
    from flowexp.metrics.weight_files import no_download
    from flowexp.pipeline import GridSamples, Processes, sampling_threads
    from flowexp.runs.opening import open_run, written_in

    config = job.config
    if len(runs) > 1 and config["run"] in runs:
        number = runs.index(config["run"]) + 1
        print(f"run {number} of {len(runs)}: {shown(Path(config['run']))}", flush=True)
    with no_download():
        metrics = instantiate(config["metric"], key="metric", by=written_in(config))
    if not metrics:
        raise UsageError("there is nothing to measure.", key="metric", remedy="Try metric=auto.")
    _refuse_repeated(config)
    opened = open_run(config)
    dataset = opened.built.dataset
    dataset.locate()
    reference, heldout = dataset.train(), dataset.heldout()
    ranges = _ranges(config, images=len(reference))
    remark = opened.remark_on_data(reference, config)
    if remark is not None:
        notice = "; ".join(filter(None, (reference.notice, remark)))
        reference = replace(reference, notice=notice)
    picture, drawn = GridSamples(opened.pipeline), False
    results: list[ScoreResult] = []
    unstored: list[str] = []
    chosen, selection = None, opened.selection
    grid = job.directory / "grid.png"
    with (
        logging_to(opened.run.log_file),
        Processes.start() as processes,
        sampling_threads(opened.pipeline, config["threads"]),
    ):
        if remark is not None and processes.is_first:
            _LOG.warning("%s.", remark)
        if config["selection"]:
            setting = Setting(
                pipeline=opened.pipeline,
                seeds=ranges[0],
                reference=reference,
                heldout=heldout,
                processes=processes,
            )
            _refuse_checkpoint(config)
            by = written_in(config)
            rule: BestOfSnapshots | PostHoc = instantiate(
                config["selection"], key="selection", by=by
            )
            if isinstance(rule, PostHoc):
                made, selection = _post_hoc(rule, opened, processes)
            else:
                chosen = _best_snapshot(rule, config, metrics, opened, setting)
                made, selection = chosen.best.path.stem, chosen.words
            opened = open_run({**config, "checkpoint": made})
        weights = opened.weights
        circumstances = {
            "overrides": job.overrides,
            "checkpoint": {
                "kimg": weights.kimg,
                "sha256": weights.sha256,
                "path": str(weights.path),
            },
            "directory": str(job.directory),
        }
        digests = digests_of(
            config, opened, metrics=metrics, selection=selection, arrays=(reference, heldout)
        )
        for seeds in ranges:
            identities = digests(seeds)
            known = stored_results(opened.run.results_file, identities) if runs else {}
            missing = {name: metric for name, metric in metrics.items() if name not in known}
            new = missing and score(
                opened.pipeline,
                metrics=missing,
                seeds=seeds,
                reference=reference,
                heldout=heldout,
                cache_dir=cache_dir(warn=True),
                facts={
                    "precision": "32-true",
                    "ema": ", ".join(filter(None, (weights.name, opened.transform))),
                    "sampler": opened.pipeline.sampling,
                    "selection": selection,
                },
                processes=processes,
                on_batch=picture.add,
            )
            drawn = drawn or bool(new)
            result = together([*known.values(), *([new] if new else [])], order=list(metrics))
            results.append(result)
            if not processes.is_first:
                continue
            # A number that cannot be stored has been seen all the same.
            last = len(results) == len(ranges)
            rows = result.rows()
            if last:
                rows = [*_selected(chosen), *_outcome(results, opened, grid if drawn else None)]
            if known:
                rows.append(("already stored", ", ".join(known)))
            print(
                "\n" + table(rows),
                *(beside("  ", text) for text in result.words),
                sep="\n\n",
                flush=True,
            )
            for file in (opened.run.results_file, job.directory / "results.json"):
                try:
                    if new:
                        append_results(file, new, measured_with=identities, **circumstances)
                except (OSError, UsageError) as error:
                    unstored.append(f"{shown(file)}: {error}")
            log_scores(opened, result.records)
    if not processes.is_first:
        return None
    if not drawn:  # everything was stored before
        remove_unused(job.directory)
    try:
        if drawn:
            picture.save(grid)
    except OSError as error:
        _LOG.warning("no sample grid: %s", error)
    if unstored:
        raise NotWrittenError(f"numbers above are not stored in {'; '.join(unstored)}")
    return float(summarize(results)[0].mean)


def _refuse_checkpoint(config: Mapping[str, Any]) -> None:
    """Refuse a named checkpoint beside a selection."""
    from flowexp.metrics.protocol import LAST

    if config["checkpoint"] != LAST:
        raise UsageError(
            f"a checkpoint, {config['checkpoint']!r}, is named beside a selection.",
            key="checkpoint",
            remedy="Leave one of checkpoint=... and selection=... out.",
        )


def _post_hoc(rule: "PostHoc", opened: "OpenedRun", processes: "Processes") -> tuple[str, str]:
    """Make an average of the snapshots: the name of its checkpoint, and what it is in words.

    The first process makes it; all must call this.

    Raises:
        UsageError: There are no snapshots of power-function averages.
    """
    from flowexp.config.trust import Author
    from flowexp.runs.weights import RAW
    from flowexp.training.post_hoc import reconstruct

    run = opened.run
    if opened.weights.name == RAW:
        raise UsageError(
            "the raw weights are no average, so none of another width can be made of them.",
            key="weights",
            remedy="Leave weights=... or selection=... out.",
        )
    by = Author.of(run.config_file)
    laws = {name: law for name, law in (run.config().get("ema") or {}).items() if law}
    emas = instantiate(laws, key="ema", by=by)
    if not processes.is_first:
        return processes.of_first(("", ""))
    name = opened.weights.name
    file, words = reconstruct(run, emas, std=rule.std, kimg=rule.kimg, name=name)
    return processes.of_first((file.stem, words))


def _best_snapshot(
    best: "BestOfSnapshots",
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    opened: "OpenedRun",
    setting: "Setting",
) -> "Chosen":
    """Score the snapshots of a run that have no score yet, and choose.

    ``setting`` is that of the evaluation that follows; what that would refuse is refused first.

    Raises:
        UsageError: There are none, or a metric is not defined.
    """
    from flowexp.data.locations import cache_dir
    from flowexp.diagnostics import ModelMetric
    from flowexp.evaluation import SnapshotScores, require_measurable, score, seed_ranges
    from flowexp.runs import read_checkpoint
    from flowexp.runs.opening import open_run
    from flowexp.runs.weights import NotFiniteError
    from flowexp.tables.jobs import significant

    run = opened.run
    files = run.kept_snapshots()
    if not files:
        raise UsageError(
            f"the training of {run.path} kept no snapshots.",
            key="selection",
            remedy="Train with trainer.snapshot_kimg=..., or take selection=last.",
        )
    name, higher = best.metric_of(metrics)
    (seeds,) = seed_ranges(best.num_samples, repeats=1)
    selecting = {name: metrics[name]}
    require_measurable(metrics, setting=setting)
    of_snapshot = replace(setting, seeds=seeds)
    require_measurable(selecting, setting=of_snapshot, count_key="selection.num_samples")

    def measure(snapshot: Path) -> float:
        try:
            one = open_run({**config, "checkpoint": snapshot.stem})
        except NotFiniteError:
            return math.nan
        records = score(
            one.pipeline,
            metrics=selecting,
            seeds=seeds,
            reference=setting.reference,
            # of samples it would give a floor only
            heldout=setting.heldout if isinstance(metrics[name], ModelMetric) else None,
            cache_dir=cache_dir(),
            processes=setting.processes,
        ).records
        return records[0].value if records else math.nan

    kept = {k: v for k, v in config.items() if k not in NOT_OF_A_SCORE}
    described = [
        significant(kept, verb="eval"),
        opened.weights.name,
        config["metric"][name],
        best.num_samples,
        setting.reference.fingerprint,
    ]
    return best.choose(
        {file: read_checkpoint(file, mmap=True)["images"] / 1000.0 for file in files},
        metric=name,
        higher_is_better=higher,
        scores=SnapshotScores(run.snapshots / "scores.json", measured_with=digest(described)),
        measure=measure,
        processes=setting.processes,
    )


def _selected(chosen: "Chosen | None") -> list[tuple[str, str]]:
    """Which snapshot was chosen, by what score."""
    if chosen is None:
        return []
    best = chosen.best
    return [
        ("selected", f"{best.path.stem} at {best.kimg:g} kimg ({best.value:.4g}), {chosen.words}")
    ]


def _ranges(config: Mapping[str, Any], *, images: int) -> list[list[int]]:
    """The seeds of each evaluation: the given ones, or disjoint ranges from 0 on.

    ``images`` is the size of the training set, which sets the default number of samples.
    """
    from flowexp.evaluation import sample_count, seed_ranges
    from flowexp.pipeline import parse_seeds

    if config["seeds"] is not None:
        return [parse_seeds(config["seeds"])]
    count = sample_count(images) if config["num_samples"] is None else config["num_samples"]
    return seed_ranges(count, repeats=config["repeats"])


def _refuse_repeated(config: Mapping[str, Any]) -> None:
    """Refuse ``repeats`` beside ``seeds``."""
    if config["seeds"] is not None and config["repeats"] != 1:
        raise UsageError(
            f"repeats={config['repeats']} cannot be combined with seeds={config['seeds']}.",
            key="repeats",
            remedy="Give num_samples instead of seeds.",
        )


def _outcome(
    results: "Sequence[ScoreResult]", opened: "OpenedRun", grid: Path | None
) -> list[tuple[str, str]]:
    """The scores, also over several ranges of seeds, and the cost and files of an evaluation."""
    from flowexp.evaluation import summarize

    rows = [row for result in results for row in result.rows()]
    for summary in summarize(results) if len(results) > 1 else ():
        text = f"{summary.mean:.4g} +- {summary.spread:.2g}, minimum {summary.minimum:.4g}"
        shown_text = text if math.isfinite(summary.mean) else "not a number"
        rows.append((f"{summary.title}, {len(results)} seed ranges", shown_text))
    count = sum(result.count for result in results)
    seconds = sum(result.seconds for result in results)
    speed = f"{seconds:.1f} s, {count / seconds:.1f} images/s"
    return [
        *rows,
        ("weights", opened.weights_in_words),
        *results[0].costs(),
        ("generated and scored", f"{count} samples in {speed}"),
        *results[-1].decoding_rows(),
        ("run directory", shown(opened.run.path)),
        *([("sample grid", shown(grid))] if grid else []),
        ("metrics file", shown(opened.run.results_file)),
    ]
