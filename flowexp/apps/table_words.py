"""The words of ``flowexp table`` as overrides: which table or claims, which rows."""

import shlex
from collections.abc import Sequence
from typing import Any

from flowexp.config.override_text import command, override
from flowexp.config.problems import did_you_mean
from flowexp.errors import UsageError
from flowexp.tables.plan import matching

__all__ = ["VERBS", "as_overrides", "chosen_kind", "require_matching"]

VERBS = ("train", "pairs", "calibrate", "eval")
_QUOTES = "'\""


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments of the verb as overrides.

    The first word is a name, or ``claims`` followed by a text that their names contain. ``VERB:``
    arguments are collected per verb. The value of ``only`` is taken literally, with the words that
    follow it.
    """
    given = list(arguments)
    words = _leading_words(given)
    result: list[str] = []
    extra: dict[str, list[str]] = {verb: [] for verb in VERBS}
    if words[:1] == ["claims"]:
        result += ["kind=claims", *([_only(" ".join(words[1:]))] if words[1:] else [])]
    elif words:
        kind, name, *more = words if words[0] in ("table", "claim") and words[1:] else ["", *words]
        result += [*([f"kind={kind}"] if kind else []), override("name", name), *more]
    while given:
        text = given.pop(0)
        verb, colon, rest = text.partition(":")
        key, equals, value = text.partition("=")
        if colon and verb in extra:
            extra[verb].append(rest)
        elif key in ("table", "claim") and equals:
            result += [f"kind={key}", override("name", value)]
        elif key == "only" and equals:
            result.append(_only(" ".join([value, *_leading_words(given)])))
        else:
            result.append(text)
    for verb, texts in extra.items():
        if texts:
            result.append(override(f"{verb}.overrides", texts))
    return result


def _leading_words(given: list[str]) -> list[str]:
    """Remove and return the leading words that are neither overrides nor options."""
    words: list[str] = []
    while given and "=" not in given[0] and not given[0].startswith(("-", "~")):
        words.append(given.pop(0))
    return words


def _only(text: str) -> str:
    """The override for this text, whether or not it is also quoted for Hydra."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        text = text[1:-1].replace(f"\\{text[0]}", text[0])
    return override("only", None if text in ("", "null") else text)


def chosen_kind(config: dict[str, Any], config_dir: str | None) -> str:
    """``table``, ``claim`` or ``claims``; a bare name of a claim is accepted.

    Raises:
        UsageError: No name is given, or the name is unknown.
    """
    from flowexp.tables.table_files import names

    kind, name = config["kind"], config["name"]
    if kind not in ("table", "claim", "claims"):
        remedy = "Use table, claim or claims."
        raise UsageError(f"unknown kind {kind!r}.", key="kind", remedy=remedy)
    if kind == "claims":
        return "claims"
    if name is None:
        raise UsageError("no table is named.", key="name", remedy="List them: flowexp table list.")
    tables, claims = (names(one, config_dir=config_dir) for one in ("table", "claim"))
    if kind == "claim":
        if name not in claims:
            raise UsageError(
                f"there is no claim {name!r}.", key="claim", remedy=_near(name, tables, claims)
            )
        return "claim"
    if name not in tables and name not in claims:
        raise UsageError(
            f"there is no table {name!r}.", key="table", remedy=_near(name, tables, claims)
        )
    if name in claims:
        also = " as well" if name in tables else ""
        print(f"{name} is a claim{also}: {command('table', claim=name)}")
    return "table" if name in tables else "claim"


def _near(name: str, tables: Sequence[str], claims: Sequence[str]) -> str:
    """The tables and claims of a paper that was named alone, or the nearest name."""
    own = [table for table in tables if table.startswith(f"{name}/")]
    ours = [claim for claim in claims if claim.startswith(f"{name}/")]
    said = f"Its tables: {', '.join(own)}. " if own else ""
    if ours:
        said += f"Its claims: {command('table claims', only=name)}."
    return said.strip() or f"{did_you_mean(name, [*tables, *claims])} All: flowexp table list."


def require_matching(only: str | None, labels: Sequence[str], *, what: str) -> list[str]:
    """The labels that contain the text ``only`` or, if it has a ``*``, match it.

    Raises:
        UsageError: No label matches; ``what`` is what they label, such as ``row``.
    """
    found = matching(only, labels)
    if found or only is None:
        return found
    guess = did_you_mean(only, labels)
    example = shlex.quote(f"only={labels[0] if labels else 'TEXT'}")
    raise UsageError(
        f"no {what} matches {only!r}.",
        key="only",
        remedy=f"It picks every {what} whose name contains the text (* matches anything), e.g. "
        f"{example}. {guess}",
    )
