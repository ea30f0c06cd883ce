"""Progress of long computations, reported by any code and shown by a display if there is one.

    for batch in track(batches, "computed", unit="batches"): ...
    with counted("sampled", total=2000, unit="images") as task:
        task.advance(64)
    with stage("loading the run"): ...

Nothing is shown unless :func:`shown` is active: every command of ``flowexp`` has it, and a notebook
asks for it with ``with flowexp.progress.shown(): ...``. Reports cost a microsecond, change no
result and need no terminal, so any layer may make them.
"""

from flowexp.progress.display import shown
from flowexp.progress.task import Task, advance, counted, listening, stage, steps_of, track

__all__ = ["Task", "advance", "counted", "listening", "shown", "stage", "steps_of", "track"]
