"""Outside parts of a config, and the source files that define them."""

import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from flowexp.config.libraries import is_library, required
from flowexp.config.renamed import present
from flowexp.files import file_sha256
from flowexp.tree import nodes

__all__ = ["KEY", "changed_since", "outside_parts", "outside_targets"]

KEY = "outside_parts"
"""Their key in a run's manifest."""

_SHOWN = 12


def outside_parts(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The imported modules of a config's classes and their bases that are outside parts.

    By module name: ``file`` without its folder, ``sha256`` of the source, and ``version`` of the
    distribution if it is installed.
    """
    found = {}
    for module in sorted(set(_modules(config))):
        file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
        if file.is_file():
            version = _version(module.partition(".")[0])
            found[module] = {"file": file.name, "sha256": file_sha256(file)}
            found[module] |= {"version": version} if version else {}
    return found


def changed_since(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each outside part whose source differs from that in a run's manifest."""
    stored = manifest.get(KEY)
    before = stored if isinstance(stored, Mapping) else {}
    for module, now in outside_parts(config).items():
        old = before.get(module)
        if isinstance(old, Mapping) and old.get("sha256") != now["sha256"]:
            yield (
                f"{now['file']} (module {module}) has changed since the run began: sha256 "
                f"{str(old.get('sha256'))[:_SHOWN]} then, {now['sha256'][:_SHOWN]} now"
            )


def outside_targets(config: Mapping[str, Any]) -> set[str]:
    """The classes of a config that belong neither to flowexp nor to its requirements."""
    named = {present(str(n["_target_"])) for _, n in nodes(dict(config)) if "_target_" in n}
    return {target for target in named if target.partition(".")[0] not in required()}


def _modules(config: Mapping[str, Any]) -> Iterator[str]:
    for target in outside_targets(config):
        module, _, name = target.rpartition(".")
        named = getattr(sys.modules.get(module), name, None)
        for cls in named.__mro__ if isinstance(named, type) else (named,):
            home = getattr(cls, "__module__", module)
            if home.partition(".")[0] not in required():
                yield home


def _version(package: str) -> str | None:
    """The version of the distribution that installed a package, if one did."""
    if not is_library(package):
        return None
    names = metadata.packages_distributions().get(package, [])
    return metadata.version(names[0]) if names else None
