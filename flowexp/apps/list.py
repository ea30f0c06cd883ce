"""flowexp list [GROUP ...]: list all groups, or explain the options of some.

--config-dir DIR adds a folder of your own options.

flowexp list
flowexp list sampler sampler/time_grid
"""

from collections.abc import Sequence
from pathlib import Path

from flowexp.apps.terminal import beside
from flowexp.config import conf_dir
from flowexp.config.problems import did_you_mean
from flowexp.errors import UsageError

__all__ = ["main", "options"]

_NESTED = ("experiment", "table", "claim")


def main(arguments: Sequence[str]) -> None:
    """List the groups, or the options of some; ``--config-dir DIR`` adds a folder of groups."""
    names, folders = _split(list(arguments))
    groups = _groups(folders)
    if not names:
        for group, options in sorted(groups.items()):
            print(beside(f"{group:<20} ", ", ".join(sorted(options))))
        print("\nflowexp list GROUP explains the options; select with GROUP=OPTION.")
        return
    for name in names:
        if name not in groups:
            raise UsageError(f"there is no group {name!r}.", remedy=did_you_mean(name, groups))
        width = max(map(len, groups[name]))
        for option, file in sorted(groups[name].items()):
            print(beside(f"{option:<{width}}  ", _first_comment(file)))


def options(group: str) -> list[str]:
    """The options of one of flowexp's own groups, sorted."""
    return sorted(_groups([conf_dir()]).get(group, {}))


def _split(arguments: list[str]) -> tuple[list[str], list[Path]]:
    folders = [conf_dir()]
    names = []
    while arguments:
        argument = arguments.pop(0)
        if argument in ("--config-dir", "-cd") and arguments:
            folders.insert(0, Path(arguments.pop(0)))
        elif argument.startswith("-"):
            raise UsageError(
                f"list takes no option {argument}.", remedy="Write flowexp list GROUP."
            )
        else:
            names.append(argument)
    return names, folders


def _groups(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            parts = file.relative_to(folder).with_suffix("").parts
            if len(parts) < 2 or parts[0] == "hydra":
                continue
            deep = 1 if parts[0] in _NESTED else len(parts) - 1
            group, option = "/".join(parts[:deep]), "/".join(parts[deep:])
            found.setdefault(group, {}).setdefault(option, file)
    return found


def _first_comment(file: Path) -> str:
    lines = map(str.strip, file.read_text(encoding="utf-8").splitlines())
    comments = (line.lstrip("# ") for line in lines if line.startswith("#"))
    return next((text for text in comments if not text.startswith("@")), "")
