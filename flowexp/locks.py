"""Locks by which processes keep out of each other's way; the system frees them when one dies.

The lock belongs to the open file, as ``flock`` has it: a child process that inherits the file keeps
it locked after its parent was killed, and a killed process leaves nothing to clean up. Some network
file systems have no locks; there everything goes on without, after one warning.
"""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

__all__ = ["FileLock", "locked"]

_LOG = logging.getLogger(__name__)
_warned = False


class FileLock:
    """An exclusive lock of a file or folder, held until released or until nobody has it open.

    A missing file is made; the content is not touched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock, waiting for it or giving up at once; whether it is held now."""
        flags = os.O_RDONLY if self.path.is_dir() else os.O_RDWR | os.O_CREAT
        descriptor = os.open(self.path, flags, 0o666)
        if not _flock(descriptor, wait=wait, path=self.path):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    @property
    def descriptor(self) -> int:
        """The open file, to be passed to a child that shall hold the lock as well.

        Raises:
            RuntimeError: The lock is not held.
        """
        if self._descriptor is None:
            raise RuntimeError(f"the lock of {self.path} is not held")
        return self._descriptor

    def release(self) -> None:
        """Give the lock back; without it, nothing happens."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


@contextmanager
def locked(path: Path) -> Iterator[FileLock]:
    """Wait for the lock of ``path`` and hold it while the context lasts."""
    with FileLock(path) as lock:
        lock.acquire(wait=True)
        yield lock


def _flock(descriptor: int, *, wait: bool, path: Path) -> bool:
    try:
        import fcntl
    except ImportError:
        # Without POSIX there are no such locks; the caller takes care of itself.
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EACCES and not wait:
            return False  # another's, where locks are those of POSIX
        _warn(path, error)
    return True


def _warn(path: Path, error: OSError) -> None:
    global _warned
    if not _warned:
        _warned = True
        _LOG.warning(
            "the file system of %s has no locks (%s): nothing keeps two processes from writing "
            "there at once, so start every run, pair store and table only once.",
            path if path.is_dir() else path.parent,
            error.strerror or error,
        )
