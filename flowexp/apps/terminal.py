"""Output of the verbs: short tables, relative paths, and log records."""

import io
import logging
import os
import shlex
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from flowexp.config.override_text import ShellCommand
from flowexp.errors import TRACEBACK
from flowexp.files import shown
from flowexp.processes import is_first_process

__all__ = ["beside", "failures_kept_in", "keep_streams_open", "logging_to", "shown", "table"]

_LOG = logging.getLogger("flowexp")
_GAP = "  "
_INSIDE = "\0"
_MOST_NAME = 32
"""Maximum width of the name column when values are wrapped."""
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


def table(rows: Sequence[tuple[str, str]], *, width: int | None = None) -> str:
    """Two aligned columns that fit the terminal, or 80 columns without one.

    Long values are wrapped between words; a word, such as a path, is never broken. A wrapped
    command (see :func:`flowexp.config.override_text.command`) can still be pasted.

    Args:
        rows: Names and values, at least one.
        width: Total width in columns; None = ``$COLUMNS``, the terminal's width, or 80.
    """
    width = width or shutil.get_terminal_size().columns
    names = max(len(name) for name, _ in rows)
    if any(2 * len(_GAP) + names + len(value) > width for _, value in rows):
        names = max((len(n) for n, _ in rows if len(n) <= _MOST_NAME), default=0)
    return "\n".join(line for row in rows for line in _folded(*row, names=names, width=width))


def beside(start: str, text: str) -> str:
    """``start`` and a text, which is wrapped with a hanging indent.

    A word that is too long gets a line of its own.
    """
    lines = _wrapped(text, shutil.get_terminal_size().columns - len(start))
    return f"\n{' ' * len(start)}".join([start + lines[0], *lines[1:]])


def _folded(name: str, value: str, *, names: int, width: int) -> Iterator[str]:
    """The lines of a row whose name has ``names`` columns."""
    start = f"{_GAP}{name:<{names}}{_GAP}"
    lines = _wrapped(value, width - len(start))
    fits = all(len(start) + len(line) <= width for line in lines)
    if fits and (len(name) <= names or len(lines) == 1):
        yield f"{start}{lines[0]}".rstrip()
        yield from (" " * len(start) + line for line in lines[1:])
        return
    # On the lines below the name there is more room for long words.
    indent = _GAP * 3
    for line in _wrapped(name, width - len(_GAP)):
        yield f"{_GAP}{line}"
    yield from (f"{indent}{line}" for line in _wrapped(value, width - len(indent)))


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words; those of a command end in a backslash, the last one excepted."""
    if len(text) <= width:
        return [text]
    if not isinstance(text, ShellCommand):
        return _lines(text, width)
    words = (shlex.quote(word).replace(" ", _INSIDE) for word in shlex.split(text))
    lines = [line.replace(_INSIDE, " ") for line in _lines(" ".join(words), width - 2)]
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _lines(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False)


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Log records of flowexp go to the terminal (without decoration) and, dated, to ``file``.

    Of several processes, only the first shows more than warnings on the terminal.
    """
    terminal = _TerminalHandler()
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


class _TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes to the current stderr, which progress bars replace to print records above them."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


@contextmanager
def failures_kept_in(file: Path) -> Iterator[None]:
    """Write the traceback of a failure before the log is opened to ``file``, if it exists."""
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
        """Write the traceback of a failure, and note its file in the error's message."""
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
