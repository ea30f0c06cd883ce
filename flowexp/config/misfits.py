"""Options that take a value from an option of another group that lacks the key."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from flowexp.config.option_files import OptionFiles
from flowexp.config.problems import Problem, nearest
from flowexp.config.signatures import UnknownTargetError, signature_of
from flowexp.tree import leaves, select

__all__ = ["misfits"]


def misfits(
    failed: Sequence[tuple[str, str]], *, config: Mapping[str, Any], files: OptionFiles
) -> list[Problem]:
    """One problem per pair of groups, with the yaml file in which the key is missing.

    Args:
        failed: Keys, each with the key that its value should come from.
        config: The resolved part of the config.
        files: The yaml files of the chosen options.
    """
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for key, wanted in failed:
        pairs[key.partition(".")[0], wanted.partition(".")[0]].append((key, wanted))
    return [
        _misfit(own, other, members, config=config, files=files)
        for (own, other), members in pairs.items()
    ]


def _misfit(
    own: str,
    other: str,
    members: Sequence[tuple[str, str]],
    *,
    config: Mapping[str, Any],
    files: OptionFiles,
) -> Problem:
    key = members[0][0]
    taken = ", ".join(dict.fromkeys(key.partition(".")[2] for key, _ in members))
    wanted = list(dict.fromkeys(name for _, name in members))
    text = (
        f"the chosen {own} takes {taken} from {', '.join(wanted)}, but the chosen {other} has no "
        "such key."
    )
    there = {name for name, _ in leaves(config.get(other), other)}
    guess = nearest(wanted[0], there) if files.own(key) and not files.own(wanted[0]) else None
    if guess is not None:
        return Problem(key, text, f"Did you mean ${{{guess}}} in {files.own(key)}?")
    places = [_place(name, config=config, files=files) for name in wanted]
    if None in places:
        remedy = f"Choose another {own} or another {other}; these two do not fit together."
        return Problem(key, text, remedy)
    added: dict[str, list[str]] = defaultdict(list)
    for name, place in zip(wanted, map(str, places), strict=True):
        added[place].append(name.partition(".")[2])
    add = "; add ".join(f"{' and '.join(names)} to {place}" for place, names in added.items())
    given = " ".join(f"{key}=VALUE" for key, _ in members)
    return Problem(key, text, f"Add {add}; or give {given}.")


def _place(wanted: str, *, config: Mapping[str, Any], files: OptionFiles) -> str | None:
    """Where a missing key must be added; None if only options of flowexp are involved."""
    node_key, _, name = wanted.rpartition(".")
    node = select(config, node_key)
    target = node.get("_target_") if isinstance(node, Mapping) else None
    file = files.own(wanted)
    foreign = isinstance(target, str) and not target.startswith("flowexp.")
    if file is None and not foreign:
        return None
    where = file or f"the command ({wanted}=VALUE)"
    return where if target is None or _takes(str(target), name) else f"{where} and to {target}"


def _takes(target: str, name: str) -> bool:
    """Whether a class takes an argument; True if its source does not tell."""
    try:
        signature = signature_of(target)
    except UnknownTargetError:
        return True
    return signature is None or signature.open_ended or name in signature.parameters
