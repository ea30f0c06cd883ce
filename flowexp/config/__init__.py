"""Configuration: where it lives, what is allowed in it, and how it becomes objects.

With ``flowexp.apps`` and ``flowexp.cli`` this is the only package that imports Hydra.
"""

from pathlib import Path

__all__ = ["conf_dir"]


def conf_dir() -> Path:
    """The folder with the config groups.

    In an installed wheel it is ``flowexp/conf``; in a checkout ``conf`` beside the package.

    Raises:
        FileNotFoundError: Neither exists, so the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"no config groups beside {package}; reinstall flowexp")
