"""The command line: ``flowexp <verb> [overrides]``.

Heavy packages are imported only when a verb needs them, so help and errors appear at once.
``--debug`` (or HYDRA_FULL_ERROR=1) shows the traceback of a failure; exit codes are in the help.
"""

import atexit
import codecs
import gc
import importlib
import io
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn
from unicodedata import normalize

from flowexp import __version__
from flowexp.apps import VERBS

__all__ = ["VERBS", "main", "program"]

_MATPLOTLIB = logging.getLogger("matplotlib")
# A module cannot be called by a keyword of Python.
_MODULES = {"import": "import_"}
# Verbs without a config; the docstring of their module is the help text.
_DOCUMENTED = ("check", "completion", "doctor", "list")
_HELP = ("--help", "-h")


_PLAIN = {
    "±": "+-", "×": "x", "·": "*", "μ": "u", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≈": "~",  # noqa: RUF001
    "≠": "!=", "∞": "inf", "−": "-", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"',  # noqa: RUF001
    "†": "*", "‡": "**", "•": "*", "─": "-", "━": "-", "═": "=", "│": "|", "┃": "|", "║": "|",
}  # fmt: skip
_PLAIN_ERRORS = "flowexp.plain"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written for a character that the encoding of a stream lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, after = error.object[error.start], error.start + 1
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no text
        return bytes([ord(character) - 0xDC00]), after
    drawn = "+" if "\u2500" <= character <= "\u257f" else "?"
    letters = normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _PLAIN.get(character) or letters or drawn, after


def _write_anything() -> None:
    """Let output streams write plain characters in place of those that their encoding lacks."""
    codecs.register_error(_PLAIN_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN_ERRORS)


def _restart_with_utf8() -> None:
    """Start anew where names of files are not UTF-8, which torch and Hydra take them for."""
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    environment = {"PYTHONIOENCODING": sys.stdout.encoding, **os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def program() -> NoReturn:
    """Run the process's own command line and end the process with its exit code."""
    from flowexp.apps.terminal import keep_streams_open

    _restart_with_utf8()
    keep_streams_open()
    code = main()
    # Python would take all modules apart one by one: 0.1 s, with PyTorch's more than a second. What
    # must happen at exit happens here; it is what multiprocessing's processes do as well.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(AttributeError, OSError):  # closed, or full
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default that of the process, and return its exit code."""
    # Matplotlib, which torchmetrics imports, does without a folder of its own.
    _MATPLOTLIB.addFilter(lambda record: "temporary cache directory" not in str(record.msg))
    # Composing a config allocates much and drops little: Python's default of a collection per 700
    # objects takes a fifth of a check's time.
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
    _write_anything()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("HYDRA_FULL_ERROR") == "1"
    given = [a for a in given if a != "--debug"]
    if given[:1] == ["help"] and given[1:2] and given[1] in VERBS:
        given = [given[1], "--help"]
    if not given or given[0] in (*_HELP, "help"):
        print(_usage())
        return 0
    if given[0] == "--version":
        print(f"flowexp {__version__}")
        return 0
    if given[0] not in VERBS:
        from flowexp.config.problems import did_you_mean

        return _refuse(f"there is no verb {given[0]!r}. {did_you_mean(given[0], VERBS)}")
    return _run(given[0], given[1:], debug=debug)


def _run(verb: str, arguments: list[str], *, debug: bool) -> int:
    from flowexp.errors import (
        IncompleteError,
        JobsFailedError,
        NotWrittenError,
        StoppedError,
        UsageError,
    )
    from flowexp.progress import shown

    # A user's own module in the working directory can be named as a _target_.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(f"flowexp.apps.{_MODULES.get(verb, verb)}")
        if verb in _DOCUMENTED and set(_HELP) & set(arguments):
            print(str(module.__doc__).strip())
        else:
            with shown():
                module.main(arguments)
    except UsageError as error:
        if debug:
            raise
        return _refuse(error.paragraph())
    except JobsFailedError:
        if debug:
            raise
        return 1
    except (StoppedError, NotWrittenError, IncompleteError) as stop:
        print(f"flowexp: {stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flowexp: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            raise
        return _failed(error)
    return 0


def _refuse(paragraph: str) -> int:
    print(f"flowexp: {paragraph}", file=sys.stderr)
    return 2


def _failed(error: Exception) -> int:
    if type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return _refuse(" ".join(str(error).split()))
    from flowexp.config.failures import explain, in_words

    explain(error)
    print(f"flowexp: the run failed: {in_words(error)}", file=sys.stderr)
    return 1


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {line}" for name, line in VERBS.items())
    return (
        f"flowexp {__version__}: composable, reproducible experiments on flows and diffusion\n\n"
        f"usage: flowexp <verb> [key=value ...] [-m] [--cfg job] [--help] [--debug]\n\n{verbs}\n\n"
        f"  flowexp train experiment=fashion10k/rectified_flow\n"
        f"  flowexp train dataset=digits path=pfgmpp path.D=128 seed=1,2,3 -m\n"
        f"  flowexp eval run=outputs/... sampler=dopri5 num_samples=5000\n\n"
        f"`flowexp <verb> --help` lists the groups and keys of a verb,\n"
        f"`flowexp list GROUP` explains the options of a group.\n\n"
        f"exit codes: 0 done; 1 it failed, a result could not be stored, or a signal\n"
        f"  stopped it (SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2: a training saves a\n"
        f"  checkpoint first, and train run=DIR continues it); 2 an error in the\n"
        f"  command, reported before anything is written\n\n"
        "A stored run can use parts of other packages once you trust them:\n"
        "FLOWEXP_TRUST=my_parts, trust: [my_parts] in ~/.config/flowexp/settings.yaml, or\n"
        "the --config-dir that names them."
    )


if __name__ == "__main__":
    program()
