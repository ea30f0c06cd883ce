"""``flowexp table``: a paper's table or a claim, published and measured side by side."""

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.apps.dry_run import require_known, show_jobs
from flowexp.apps.named_runs import writing_to
from flowexp.apps.table_words import VERBS, as_overrides, chosen_kind, require_matching
from flowexp.apps.terminal import beside, shown
from flowexp.config.application import Job as Command
from flowexp.config.application import launch
from flowexp.config.launcher import ChosenLauncher, LauncherError, given_config_dir
from flowexp.config.seed_text import parse_seeds
from flowexp.errors import StoppedError, UsageError
from flowexp.files import write_json, write_text
from flowexp.processes import STOP_SIGNALS, several_started

if TYPE_CHECKING:
    from flowexp.tables.plan import Plan
    from flowexp.tables.results import ClaimResult, TableResult

__all__ = ["main"]

_PRINTED = "terminal"


def main(arguments: Sequence[str]) -> None:
    """Make a table, check claims, or list both.

    Args:
        arguments: ``list``, ``NAME``, ``claims`` or ``claim=NAME``, then overrides and Hydra's
            options; ``VERB:KEY=VALUE`` is an override of all jobs of that verb. Empty = ``list``.

    Raises:
        SystemExit: A job failed (code 1); it has been named.
    """
    if list(arguments) in ([], ["list"]):
        _list()
        return
    unfinished: list[str] = []
    launch(
        "table",
        lambda job: unfinished.extend(make(job)),
        as_overrides(arguments),
        config_name="table_run",
    )
    if unfinished:
        print("flowexp: not everything could be done:", *unfinished, sep="\n  ", file=sys.stderr)
        print("The same command runs what is missing.", file=sys.stderr)
        raise SystemExit(1)


def _list() -> None:
    """Every table and claim with its title."""
    from flowexp.tables.table_files import names, read_claim, read_table

    tables = {name: read_table(name) for name in names("table")}
    claims = {name: read_claim(name) for name in names("claim")}
    width = max(map(len, [*tables, *claims, ""]))
    print("tables: flowexp table NAME budget=cpu|small|gpu_hour|full")
    for name, table in tables.items():
        text = f"{table.title} ({len(table.rows)} rows; {table.metric})"
        print(beside(f"  {name:<{width}}  ", text))
    print("\nclaims: flowexp table claim=NAME, or flowexp table claims for all")
    for name, claim in claims.items():
        print(beside(f"  {name:<{width}}  ", claim.title))


def make(command: Command) -> list[str]:
    """Plan, run the missing jobs, collect and render.

    Returns:
        A line for each job that failed, or one for a launcher that did.

    Raises:
        StoppedError: SIGINT or SIGTERM.
    """
    from flowexp.tables.execute import JobTask, execute
    from flowexp.tables.jobs import all_jobs
    from flowexp.tables.progress import watching

    # The jobs would inherit the ranks and wait for each other.
    started = several_started()
    if started:
        raise UsageError(
            f"{started} were started for one table.",
            key="launcher",
            remedy="Start flowexp table without torchrun or srun; give trainings several devices "
            "with train:trainer.devices=N train:trainer.strategy=ddp.",
        )
    require_known(command.config["dry"])
    where, budget = given_config_dir(), command.choices["budget"]
    config = {**command.config, "kind": chosen_kind(command.config, where)}
    if any(text.startswith("budget.") for text in command.overrides):
        budget += "_changed"
    name = _name(config)
    plans = _plans(config, budget, where)
    wanted = [row for plan in plans for row in plan.wanted]
    jobs = all_jobs(wanted)
    if config["dry"]:
        show_jobs(jobs, config)
        return []
    launcher = ChosenLauncher(JobTask({job.identity: job for job in jobs}, folder=Path.cwd()))
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    targets = [target for row in wanted for target in row.targets]
    unfinished: list[str] = []
    if not all(job.is_done() for job in jobs):
        try:
            with watching(jobs, name=f"{name}, budget {budget}"):
                failed = execute(jobs, launcher.launch, targets=targets)
            unfinished = [f"{job.title}; see {job.log_file}" for job in failed]
        except KeyboardInterrupt as interrupt:
            done = sum(job.is_done() for job in jobs)
            raise StoppedError(
                f"stopped with {done} of {len(jobs)} jobs done. The same command runs the others, "
                "and trainings continue from their checkpoints. Jobs submitted to a scheduler keep "
                "running."
            ) from interrupt
        except LauncherError as error:
            # Jobs that it had started may still be running; collect what is done.
            unfinished = [str(error)]
    results = [plan.result(budget=budget) for plan in plans]
    _write(results, name=name, budget=budget, folder=Path(config["out"]))
    return unfinished


def _name(config: dict[str, Any]) -> str:
    """The stem of the written files; a table and a claim may have the same name.

    Some of the claims do not replace the files of all.
    """
    kind, name = config["kind"], str(config["name"])
    some = re.sub(r"\W+", "_", f"claims_{config['only'] or ''}").strip("_")
    return {"claims": some, "claim": f"claim_{name}"}.get(kind, name)


def _plans(config: dict[str, Any], budget: str, config_dir: str | None) -> "list[Plan]":
    """The table, the claim, or all claims that are wanted."""
    from flowexp.progress import counted
    from flowexp.tables.plan import Circumstances, plan, rows_to_plan
    from flowexp.tables.syntax import TableFile
    from flowexp.tables.table_files import names, read_claim, read_table

    given = Circumstances(
        budget=budget,
        node=config["budget"],
        root=Path(config["jobs"]),
        seeds=None if config["seeds"] is None else parse_seeds(config["seeds"]),
        extra={verb: config[verb]["overrides"] for verb in VERBS},
        config_dir=config_dir,
    )
    kind, only = config["kind"], config["only"]
    chosen = [config["name"]]
    if kind == "claims":
        chosen = require_matching(only, names("claim", config_dir=config_dir), what="claim")
        only = None
    read = read_table if kind == "table" else read_claim
    files = [read(one, config_dir=config_dir) for one in chosen]
    if only is not None:
        scored = files[0].rows if isinstance(files[0], TableFile) else files[0].arms
        what = "row" if kind == "table" else "arm"
        require_matching(only, [one.label for one in scored], what=what)
    print(f"{_name(config)}: checking every command, budget {budget}", flush=True)
    total = sum(len(rows_to_plan(file, given)) for file in files)
    with counted("checked", total=total, unit="rows") as task:
        return [plan(file, given, only=only, on_row=task.advance) for file in files]


def _write(
    results: "Sequence[TableResult | ClaimResult]", *, name: str, budget: str, folder: Path
) -> None:
    """Print the form for the terminal; write every other, with an image where there are curves."""
    from flowexp.tables.render import FORMS, render, table_picture
    from flowexp.tables.results import ClaimResult, TableResult

    result: TableResult | ClaimResult | list[ClaimResult]
    if len(results) == 1:
        result = results[0]
        content: object = result.to_dict()
    else:
        result = [one for one in results if isinstance(one, ClaimResult)]
        content = [one.to_dict() for one in result]
    # Whatever becomes of the files, the numbers are seen.
    print("\n" + render(result, _PRINTED), flush=True)
    stem = f"{name.replace('/', '_')}_{budget}"
    picture = table_picture(result) if isinstance(result, TableResult) else None
    with writing_to(folder):
        written = [write_json(folder / f"{stem}.json", content)]
        for form, writer in FORMS.items():
            if form != _PRINTED:
                file = folder / f"{stem}{writer.suffix}"
                written.append(write_text(file, render(result, form)))
        if picture:
            written.append(write_text(folder / f"{stem}.svg", picture.svg()))
    print("\n" + beside("written: ", ", ".join(shown(path) for path in written)))
