"""Parts of a config from outside flowexp: which source file each of them was."""

import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from flowexp.config.libraries import is_library, required
from flowexp.config.renamed import present
from flowexp.files import file_sha256
from flowexp.tree import nodes

__all__ = ["KEY", "changed_since", "outside_parts"]

KEY = "outside_parts"
"""Where a run's manifest holds them."""

_SHOWN = 12


def outside_parts(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The modules of a config's classes, and of their bases, that flowexp does not require.

    Of those that have been imported, by name: ``file``, without its folder, ``sha256`` of the
    source, and ``version`` of the distribution where it is installed.
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
    """A sentence for each outside part whose source is not what a run's manifest says."""
    stored = manifest.get(KEY)
    before = stored if isinstance(stored, Mapping) else {}
    for module, now in outside_parts(config).items():
        old = before.get(module)
        if isinstance(old, Mapping) and old.get("sha256") != now["sha256"]:
            yield (
                f"{now['file']} (module {module}) has changed since the run began: sha256 "
                f"{str(old.get('sha256'))[:_SHOWN]} then, {now['sha256'][:_SHOWN]} now"
            )


def _modules(config: Mapping[str, Any]) -> Iterator[str]:
    targets = {present(str(n["_target_"])) for _, n in nodes(dict(config)) if "_target_" in n}
    for target in targets:
        module, _, name = target.rpartition(".")
        if module.partition(".")[0] in required():
            continue
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
