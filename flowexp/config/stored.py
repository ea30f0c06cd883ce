"""Reading what flowexp has stored as YAML, which may have been changed or made by anybody."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from flowexp.config.later_options import LATER_GROUPS
from flowexp.config.renamed import with_present_arguments
from flowexp.config.run_folders import MANIFEST
from flowexp.errors import UsageError

__all__ = ["PAIRS_FORMAT", "choices_of", "read_manifest_of_pairs", "read_stored"]

PAIRS_FORMAT = "flowexp-pairs-1"
"""The format of pair stores, as recorded in their manifests."""


def read_stored(file: Path, *, key: str = "run", kind: type = dict) -> Any:  # noqa: ANN401
    """The plain values in a stored file, at the top a mapping or a list; messages name ``key``.

    Arguments that were renamed since the file was written have their present names.

    Raises:
        UsageError: The file cannot be read, holds something else, or refers to parts of itself: a
            few such lines can stand for more than any memory holds.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    # ValueError: no UTF-8, or no date
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read: {error}", key=key) from error
    if not isinstance(content, kind):
        what = f"it holds a {type(content).__name__}, not a {kind.__name__}"
        raise UsageError(f"{file} cannot be read: {what}.", key=key)
    return with_present_arguments(content)


def choices_of(run: Path | str) -> dict[str, str]:
    """The options that a run's manifest records, by group; empty if it cannot be read.

    Groups that there were not when it was written have the option that leaves the run as it was.
    """
    with suppress(OSError, ValueError, AttributeError, TypeError):
        manifest = json.loads((Path(run) / MANIFEST).read_text(encoding="utf-8"))
        found = {str(group): str(option) for group, option in manifest.get("choices", {}).items()}
        return {**LATER_GROUPS, **found} if found else {}
    return {}


def read_manifest_of_pairs(folder: Path, *, key: str = "pairs") -> dict[str, Any]:
    """The unchanged manifest of a pair store.

    Raises:
        UsageError: The folder is not a pair store; the message names ``key``.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != PAIRS_FORMAT:
            found = content.get("format") if isinstance(content, dict) else None
            raise ValueError(f"its format is {found!r}, not {PAIRS_FORMAT!r}")
    except (OSError, ValueError) as error:
        reason = "it has no manifest.json" if isinstance(error, OSError) else error
        raise UsageError(
            f"{folder} is not a pair store ({reason}).",
            key=key,
            remedy="Make one with flowexp pairs run=DIR, which writes the folder DIR/pairs.",
        ) from error
    return content


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            what = "it refers to a part of itself (*NAME)"
            where = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, what, where)
        return super().compose_node(parent, index)
