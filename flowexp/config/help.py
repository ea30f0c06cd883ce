"""``flowexp VERB --help``: the comments of the verb's yaml, and the chosen options."""

import itertools
import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowexp.config import conf_dir
from flowexp.config.loader import RunAwareLoader
from flowexp.config.overrides import options_of

__all__ = ["verb_help"]

_SHARED = ("train", "_from_run")
"""Files that describe groups and keys of several verbs."""

_GROUP = re.compile(r"  - (?:optional |override )?(\w+): \S+ +# (.+)")
_KEY = re.compile(r"(\w+):")
_MOST_COLUMNS = 80
_LEFT = 19
_CHOSEN = 16
_FOOTER = """\
GROUP=OPTION selects, KEY=VALUE and GROUP.KEY=VALUE change a value, -m sweeps
over A,B,C. `flowexp list GROUP` explains options, --cfg job prints the config,
--config-dir DIR adds a folder of your own options, --debug shows tracebacks."""


def verb_help(config_name: str, overrides: Sequence[str], *, loader: RunAwareLoader) -> str:
    """The help of a verb: examples, groups with the chosen option, keys with their value.

    Args:
        config_name: The verb's primary config.
        overrides: Overrides on the same command line.
        loader: Composes the config and lists the options.

    Raises:
        hydra.errors.HydraException: An override does not fit the config.
    """
    config = loader.compose(config_name, overrides)
    head, groups, keys = _described(config_name)
    chosen = config.hydra.runtime.choices
    rows = [
        (name, chosen[name] or "null", f"{_count(name, loader) or '':>3}  {text}")
        for name, text in groups.items()
        if name in chosen
    ]
    values = [(name, _value(config, name), text) for name, text in keys.items()]
    blocks = [head, _section("groups, chosen option, number of options", rows)]
    blocks += [_section("keys and values", values), _FOOTER if rows else ""]
    return "\n\n".join(filter(None, blocks))


def _described(config_name: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """The head of a verb's yaml, and the comments of its groups and of its keys."""
    files = {name: _lines(name) for name in (*_SHARED, config_name)}
    shared: dict[str, str] = {}
    for lines in files.values():
        shared.update((m[1], m[2]) for line in lines if (m := _GROUP.fullmatch(line)))
    own = files[config_name]
    head = [line[2:] for line in itertools.takewhile(lambda line: line.startswith("#"), own)]
    bases = [name for name in _SHARED if f"  - {name}" in own]
    keys: dict[str, str] = {}
    for name in (*bases, config_name):
        keys.update(_of_keys(files[name]))
    return _wrapped(head), shared, keys


def _lines(config_name: str) -> list[str]:
    return (conf_dir() / f"{config_name}.yaml").read_text(encoding="utf-8").splitlines()


def _wrapped(lines: Sequence[str]) -> str:
    """Text wrapped to the width of the screen; indented lines are examples and stay as they are."""
    paragraphs = itertools.groupby(lines, key=lambda line: line[:1].isspace() or not line)
    return "\n".join(
        line
        for example, group in paragraphs
        for line in (group if example else textwrap.wrap(" ".join(group), _columns()))
    )


def _columns() -> int:
    return min(_MOST_COLUMNS, shutil.get_terminal_size((_MOST_COLUMNS, 24)).columns)


def _of_keys(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Keys of the top level with the comment right above them."""
    above: list[str] = []
    for line in lines:
        if line.startswith("#"):
            above.append(line.lstrip("# "))
            continue
        match = _KEY.match(line)
        if match and match[1] != "defaults" and above:
            yield match[1], " ".join(above)
        above = []


def _count(group: str, loader: RunAwareLoader) -> int:
    return len(options_of(group, loader.repository))


def _value(config: DictConfig, name: str) -> str:
    try:
        value = config[name]
    except OmegaConfBaseException:  # to be given
        return ""
    if OmegaConf.is_config(value):
        return ""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _section(title: str, rows: Iterable[tuple[str, str, str]]) -> str:
    """Names, values and comments in three columns; long comments are wrapped."""
    margin = 2 + _LEFT + _CHOSEN
    shown = []
    for name, value, text in rows:
        start = f"  {name:<{_LEFT}}{value:<{_CHOSEN - 1}} "
        words = textwrap.wrap(
            text, _columns(), initial_indent=start, subsequent_indent=" " * margin
        )
        shown += words or [start.rstrip()]
    return "\n".join([f"{title}:", *shown]) if shown else ""
