"""Output of the verbs: short tables, relative paths, and log records."""

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flowexp.errors import TRACEBACK
from flowexp.processes import is_first_process

__all__ = ["failures_kept_in", "keep_streams_open", "logging_to", "shown", "table"]

_LOG = logging.getLogger("flowexp")
_DROPPED = (
    "the output cannot be written any more (its reader has gone, or the disk is full); the command "
    "goes on without it."
)


class _Stream(io.FileIO):
    """A standard stream that is dropped when its reader, such as ``head`` or a terminal, goes."""

    dropped = False

    def write(self, data: Any, /) -> int:  # noqa: ANN401 -- any buffer
        try:
            return super().write(data)
        except OSError:
            _Stream.dropped = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if _LOG.handlers:
            # Said elsewhere, since this stream is in the middle of its work.
            threading.Thread(target=_LOG.warning, args=(_DROPPED,)).start()
        return len(data)


def keep_streams_open() -> None:
    """Let a command outlive the readers of its output; commands with a log say it there."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed from the beginning
            continue
        stream.flush()
        raw = _Stream(stream.fileno(), "w", closefd=False)
        kept = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
        )
        setattr(sys, name, kept)


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory."""
    resolved = path.resolve()
    here = Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Log records of flowexp go to the terminal (without decoration) and, dated, to ``file``.

    Of several processes, only the first shows more than warnings on the terminal.
    """
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO if is_first_process() else logging.WARNING)
    terminal.setFormatter(logging.Formatter("flowexp: %(message)s"))
    written = _LogFile(file)
    level = _LOG.level
    _LOG.setLevel(logging.INFO)
    for handler in (terminal, written):
        _LOG.addHandler(handler)
    try:
        if _Stream.dropped:
            _LOG.warning(_DROPPED)
        yield
    except Exception as error:
        written.keep(error)
        raise
    finally:
        for handler in (terminal, written):
            _LOG.removeHandler(handler)
        written.close()
        _LOG.setLevel(level)


@contextmanager
def failures_kept_in(file: Path) -> Iterator[None]:
    """The traceback of what fails before a log is opened goes to ``file`` if that is there."""
    try:
        yield
    except Exception as error:
        if file.is_file():
            written = _LogFile(file)
            written.keep(error)
            written.close()
        raise


class _LogFile(logging.FileHandler):
    """A log file; where it cannot be written, that is said once and the command goes on."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._failed = False
        try:
            # In a run of somebody else's, a link could name any file of the user's.
            if file.is_symlink():
                raise OSError("it is a symbolic link")
            self.stream = self._open()
        except OSError:
            self.handleError(None)

    def emit(self, record: logging.LogRecord) -> None:
        if not self._failed:
            super().emit(record)

    def keep(self, error: Exception) -> None:
        """Write the traceback of a failure, of which the terminal shows a paragraph, and say so."""
        if any(note.startswith(TRACEBACK) for note in getattr(error, "__notes__", [])):
            return
        about = (type(error), error, error.__traceback__)
        self.handle(_LOG.makeRecord("flowexp", logging.ERROR, "", 0, "the run failed", (), about))
        if not self._failed:
            error.add_note(f"{TRACEBACK} {shown(Path(self.baseFilename))}.")

    def handleError(self, record: logging.LogRecord | None) -> None:  # noqa: N802 -- logging's name
        self._failed = True
        print(f"flowexp: no log in {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):
            super().close()
