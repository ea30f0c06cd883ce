"""``flowexp calibrate``: measure the numbers of a run that a sampler needs."""

import shlex
from functools import partial

from flowexp.apps.terminal import logging_to, shown, table
from flowexp.config.application import Job, launch
from flowexp.config.later_options import without_later_options
from flowexp.config.override_text import ShellCommand, command
from flowexp.config.trust import must_be_declared
from flowexp.errors import UsageError
from flowexp.progress import stage
from flowexp.requirements import on_velocity, require

__all__ = ["main"]

_RECORDED = ("calibration", "guidance", "task", "latents", "weight_transform")


def calibrate(job: Job) -> None:
    """Calibrate, and print the result and the command that uses it."""
    with stage("loading PyTorch"):
        from flowexp.calibration import Subject

    from flowexp.pipeline import Processes, sampling_threads
    from flowexp.runs.assemble import part_of
    from flowexp.runs.opening import open_run, written_in

    config = job.config
    calibration = part_of(config, "calibration", by=written_in(config))
    opened = open_run(config)
    name, other = type(calibration).__name__, "Sample it by sampler=flow_map, which needs none."
    require(on_velocity(opened.built.model, name=name, remedy=other), group="calibration")
    opened.built.dataset.locate()
    threads = sampling_threads(opened.pipeline, config["threads"])
    asked = {key: config[key] for key in _RECORDED}
    # as calibrations of earlier versions have recorded it
    asked["guidance"] = without_later_options(config["guidance"])
    with logging_to(opened.run.log_file), Processes.start() as processes, threads:
        subject = Subject(
            pipeline=opened.pipeline,
            model=opened.built.model,
            seed=config["seed"],
            processes=processes,
            config=asked,
        )
        directory = opened.run.calibrations / calibration.method
        try:
            made = calibration.calibrate(subject, directory=directory)
        except UsageError:
            raise
        except ValueError as error:
            raise UsageError(f"{error}.", key="calibration") from error
    if not processes.is_first:
        return
    verb, _, key = made.begin.partition(" ")
    run = {key: shown(opened.run.path)}
    begin = command(verb, trust=must_be_declared(config), **run)
    use = ShellCommand(" ".join([begin, *map(shlex.quote, made.use)]))
    print("\n" + table([*made.summary, ("stored", shown(made.file)), ("next", use)]))


main = partial(launch, "calibrate", calibrate)
