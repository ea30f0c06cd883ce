"""The yaml files from which the options of groups were read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["NO_FILES", "OptionFiles"]


@dataclass(frozen=True)
class OptionFiles:
    """The files of the chosen options of a config.

    Attributes:
        choices: The chosen option of every group.
        config_dir: The user's own folder of groups, if given.
        run: The run directory whose stored config is used, if given.
    """

    choices: Mapping[str, str] = field(default_factory=dict)
    config_dir: Path | None = None
    run: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """The folders that the command names; the user's modules may be near them."""
        return [folder for folder in (self.config_dir, self.run) if folder is not None]

    def option_at(self, key: str) -> tuple[str, str] | None:
        """The innermost group, with its chosen option, that a key belongs to; None without one."""
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            group = "/".join(parts[:length])
            if self.choices.get(group) not in (None, "None"):
                return group, self.choices[group]
        return None

    def own(self, key: str) -> str | None:
        """The relative path of the user's yaml that sets a key; None if flowexp's sets it."""
        chosen = self.option_at(key)
        if chosen is None or self.config_dir is None:
            return None
        file = self.config_dir / chosen[0] / f"{chosen[1]}.yaml"
        return os.path.relpath(file) if file.is_file() else None


NO_FILES = OptionFiles()
