"""What the chosen parts refuse: their constructors' values, and each other.

Nothing is known here of any part. Every node of a config becomes a stand-in, which runs the part's
own constructor as far as that needs no import; then every part says what it needs of the others.
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowexp.config.problems import Problem, refusal
from flowexp.config.renamed import present
from flowexp.config.signatures import RESERVED
from flowexp.config.sources import CONFIG
from flowexp.config.stand_in import StandIn, evaluated, guarded
from flowexp.config.stored import read_stored
from flowexp.config.trust import STRANGER, USER, Author, problems_with
from flowexp.errors import UsageError
from flowexp.requirements import Parts, UnknownError, Unmet, all_of
from flowexp.tree import nodes

__all__ = ["check_rules", "labels_dropped", "missing_files", "stand_ins", "unmet_needs"]

Config = Mapping[str, Any]


def check_rules(config: Config, *, missing: Set[str] = frozenset()) -> list[Problem]:
    """What constructors of a plain config refuse, and what parts need of each other and lack.

    Nothing is concluded from ``missing``, the keys without a value.
    """
    builder = _Builder(missing)
    groups = builder.groups(config)
    problems = builder.problems + [
        Problem(unmet.key, unmet.problem, unmet.remedy, unmet.refuses, between_parts=True)
        for unmet in unmet_needs(groups, builder.inner, of=config)
    ]
    return list(dict.fromkeys(problems))


def stand_ins(config: Config) -> dict[str, Any]:
    """The parts of a plain config, by group, as far as they are known without importing them."""
    return _Builder(frozenset()).groups(config)


def missing_files(config: Config, checks: Mapping[str, str]) -> list[Problem]:
    """Problems that constructors, and methods that look for files, find on this computer.

    Args:
        config: Plain and resolved.
        checks: Group and method to call, ``dataset: locate``; in a group of named parts it is
            called on each.
    """
    builder = _Builder(frozenset(), reads=True)
    groups = builder.groups(config)
    problems = list(builder.problems)
    for group, method in checks.items():
        part = groups.get(group)
        named = {f"{group}.{n}": p for n, p in part.items()} if isinstance(part, dict) else {}
        for key, one in (named or {group: part}).items():
            try:
                with suppress(UnknownError), guarded(key):
                    getattr(one, method)() if isinstance(one, StandIn) else None
            except ValueError as error:
                problem = refusal(error, key=key)
                problems.append(replace(problem, key=_in_full(problem.key, group, config)))
    return problems


def _in_full(key: str, group: str, config: Config) -> str:
    """The full key in the config; a nested part may only name its own argument."""
    first = key.partition(".")[0]
    if first in config:
        return key
    owners = (name for name, node in nodes(config[group], group) if first in node)
    return f"{next(owners, group)}.{key}"


def unmet_needs(
    groups: Mapping[str, Any],
    inner: list[tuple[str, StandIn]] | None = None,
    *,
    of: Config | None = None,
) -> Iterator[Unmet]:
    """What the parts of a config need of each other and do not find, with keys from the root.

    Args:
        groups: Parts, or mappings of parts, by group; see :func:`stand_ins`.
        inner: Further parts and where they stand; one need is reported for each place.
        of: The plain config, which tells what its run was trained on.
    """
    parts = Parts(**groups) if of is None else _Composed(of, groups)
    for group, value in groups.items():
        named = {f"{group}.{n}": v for n, v in value.items()} if isinstance(value, dict) else {}
        for key, part in {group: value, **named}.items():
            if isinstance(part, StandIn):
                yield from (unmet.seen_from(key) for unmet in all_of(part.needs(parts)))
    reported = set()
    for key, part in inner or []:
        # A model within another part may be another run's.
        unmet = next(all_of(part.needs(Parts(**groups))), None)
        if unmet is not None and key not in reported:
            yield unmet.seen_from(key)
            reported.add(key)


class _Composed(Parts):
    """The parts of a plain config, and what it tells of the training of its network."""

    def __init__(self, config: Config, groups: Mapping[str, Any]) -> None:
        super().__init__(**groups)
        self.config = config

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        known = labels_dropped(self.config, by=USER) if name == "labels_dropped" else None
        if known is None:
            raise UnknownError(name)
        return known


def labels_dropped(
    config: Config, *, by: Author = STRANGER, seen: Set[str] = frozenset()
) -> bool | None:
    """Whether the network of a plain config is trained with and without label or caption.

    A run whose weights it has, or starts from, counts, but none that was ``seen`` already. None =
    that is not known (a network from elsewhere does not tell, and the source of what ``by`` may not
    name is not evaluated), or the network takes neither.
    """
    if config.get("run"):
        return _of_run(config["run"], seen)
    named = {n: config[n] for n in ("network", "objective") if n in config}
    if problems_with(named, by=by):
        return None
    parts = stand_ins(named)
    network: Any = parts.get("network")
    try:
        takes = network is not None and (network.label_dim > 0 or network.takes_tokens)
        dropped = not takes or network.label_dropout > 0.0
    except (UnknownError, AttributeError):  # a mapping without a class has no attributes
        return None
    if not takes:
        return None
    with suppress(UnknownError, AttributeError):
        dropped = dropped or ("objective" in parts and parts["objective"].label_dropout > 0.0)
    if dropped or "objective" not in config:
        return dropped or None
    return _of_run(config["init"], seen) if config.get("init") else False


def _of_run(run: object, seen: Set[str]) -> bool | None:
    """The same of a run; None if its config cannot be read."""
    folder = Path(str(run)).resolve()
    try:
        found = read_stored(folder / CONFIG)
    except UsageError:
        return None
    if str(folder) in seen:
        return None
    by = Author.of(folder / CONFIG)
    return labels_dropped(found, by=by, seen={*seen, str(folder)})


class _Builder:
    """Turns the nodes of a config into stand-ins, but for the keys that are ``missing``.

    Attributes:
        problems: What constructors refused.
        inner: Arguments of targets that cannot be read, with the key of the target: a function that
            chooses among parts does not hide what these need.
    """

    def __init__(self, missing: Set[str], *, reads: bool = False) -> None:
        self.missing = missing
        self.reads = reads
        self.problems: list[Problem] = []
        self.inner: list[tuple[str, StandIn]] = []

    def groups(self, config: Config) -> dict[str, Any]:
        """Parts by group; a group of named parts as a mapping of those that are known."""
        found: dict[str, Any] = {}
        for key, node in config.items():
            if isinstance(node, Mapping) and "_target_" not in node:
                found[key] = self._known(node, key)
            else:
                found |= self._known({key: node}, "")
        return found

    def _known(self, nodes: Config, key: str) -> dict[str, Any]:
        """The values of a mapping that are known."""
        found = {}
        for name, node in nodes.items():
            where = f"{key}.{name}" if key else str(name)
            try:
                if where not in self.missing:
                    found[name] = self._value(node, where)
            except UnknownError:
                continue
        return found

    def _value(self, node: Any, key: str) -> Any:  # noqa: ANN401 - a config value
        if isinstance(node, list):
            return [self._value(item, f"{key}[{i}]") for i, item in enumerate(node)]
        if not isinstance(node, Mapping):
            return node
        if "_target_" not in node:
            return {name: self._value(item, f"{key}.{name}") for name, item in node.items()}
        arguments = self._known({n: v for n, v in node.items() if n not in RESERVED}, key)
        if not isinstance(node["_target_"], str):
            raise UnknownError(key)
        try:
            # A partial is built only to find what it refuses; it gets more arguments later.
            made = evaluated(present(node["_target_"]), arguments, reads=self.reads)
            if not node.get("_partial_"):
                return made
        except UnknownError:
            self.inner += [(key, part) for part in _within(arguments)]
            raise
        except ValueError as error:
            self.problems.append(refusal(error, key=key, arguments=node))
            raise UnknownError(key) from error
        raise UnknownError(key)


def _within(value: object) -> Iterator[StandIn]:
    """The parts of a mapping or list."""
    if isinstance(value, StandIn):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _within(item)
