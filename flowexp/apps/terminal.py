"""Output of the verbs: short tables, relative paths, and log records."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["logging_to", "shown", "table"]


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
    """Log records of flowexp go to the terminal (without decoration) and, dated, to ``file``."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("flowexp: %(message)s"))
    written = logging.FileHandler(file, encoding="utf-8")
    written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("flowexp")
    level = logger.level
    logger.setLevel(logging.INFO)
    for handler in (terminal, written):
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        # The paragraph on the terminal is for reading; the log keeps the whole story.
        written.handle(
            logger.makeRecord("flowexp", logging.ERROR, "", 0, "the run failed", (), sys.exc_info())
        )
        raise
    finally:
        for handler in (terminal, written):
            logger.removeHandler(handler)
        written.close()
        logger.setLevel(level)
