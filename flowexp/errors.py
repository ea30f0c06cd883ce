"""Exceptions for wrong use and for requests to stop, as opposed to failures."""

__all__ = ["TRACEBACK", "IncompleteError", "JobsFailedError", "NotWrittenError", "StoppedError",
           "UsageError"]  # fmt: skip

TRACEBACK = "The full traceback is in"
"""First words of the note in an exception whose traceback has been written to a log."""


class JobsFailedError(RuntimeError):
    """Jobs of a sweep failed; they have been reported, and the exit code is 1."""


class StoppedError(RuntimeError):
    """The user stopped a command; its work so far is saved.

    The command line prints the message, which says how to continue, and returns exit code 1.
    """


class IncompleteError(RuntimeError):
    """A command finished, except for the part that its message names.

    The command line prints the message and returns exit code 1.
    """


class NotWrittenError(OSError):
    """A file could not be written; what it held before is still there.

    The command line prints the message and returns exit code 1.
    """


class UsageError(ValueError):
    """An error the user can fix: a wrong config value, missing data, missing weights.

    The command line turns it into one readable paragraph and exit code 2, without a traceback.

    Args:
        problem: One sentence that names the value and what is wrong with it.
        key: The config key that holds the value, for example ``dataset.root``.
        remedy: What to do about it, for example the command that fixes it.
    """

    def __init__(self, problem: str, *, key: str | None = None, remedy: str | None = None) -> None:
        self.problem = problem
        self.key = key
        self.remedy = remedy
        super().__init__(self.paragraph())

    def paragraph(self) -> str:
        """The message as one paragraph: key, problem, remedy."""
        head = f"{self.key}: {self.problem}" if self.key else self.problem
        return f"{head} {self.remedy}" if self.remedy else head
