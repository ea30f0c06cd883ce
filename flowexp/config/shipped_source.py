"""flowexp's own groups as a source of config options, read once per process.

A table composes hundreds of command lines from the same files, and Hydra asks the file system, for
every option of every one of them, where it is and what it says.
"""

import pickle
from functools import cache

from hydra.plugins.config_source import ConfigResult

from flowexp.config.hydra_internals import FileConfigSource, register_source

__all__ = ["ShippedSource"]


class ShippedSource(FileConfigSource):
    """A folder of groups that nobody changes while the process lives: ``shipped://DIR``."""

    @staticmethod
    def scheme() -> str:
        """The prefix of this source in the search path."""
        return "shipped"

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a folder."""
        return _is_group(self.path, config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file."""
        return _is_config(self.path, config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        """What the file says; a copy, since Hydra changes what it is given."""
        # Reading a pickle takes a fifth of the time of a deep copy.
        found: ConfigResult = pickle.loads(_loaded(self.path, config_path))
        found.provider, found.path = self.provider, f"{self.scheme()}://{self.path}"
        return found


def _files(path: str) -> FileConfigSource:
    return FileConfigSource("main", path)


@cache
def _is_group(path: str, config_path: str) -> bool:
    return bool(_files(path).is_group(config_path))


@cache
def _is_config(path: str, config_path: str) -> bool:
    return bool(_files(path).is_config(config_path))


@cache
def _loaded(path: str, config_path: str) -> bytes:
    return pickle.dumps(_files(path).load_config(config_path))


register_source(ShippedSource)
