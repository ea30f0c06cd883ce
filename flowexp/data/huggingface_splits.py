"""Splits of data sets of the Hugging Face library ``datasets``, an optional package.

Versions before 4 run scripts that come with a data set, and are refused.
"""

import importlib
from typing import Any

from flowexp.errors import UsageError
from flowexp.files import expanded

__all__ = ["class_names", "num_classes", "open_split", "require_datasets"]

_SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")
_OLDEST = 4


def require_datasets() -> Any:  # noqa: ANN401 - an optional, untyped package
    """The module ``datasets``.

    Raises:
        UsageError: It is not installed, or so old that it would run a data set's own code.
    """
    remedy = "Install it: pip install 'flowexp[huggingface]'"
    try:
        found = importlib.import_module("datasets")
    except ImportError as error:
        raise UsageError(
            "the package datasets is not installed.", key="dataset", remedy=remedy
        ) from error
    version = str(getattr(found, "__version__", "0"))
    if int(version.partition(".")[0]) < _OLDEST:
        raise UsageError(
            f"datasets {version} is too old, because it runs scripts that come with data sets.",
            key="dataset",
            remedy=remedy,
        )
    return found


def open_split(path: str, split: str, *, download: bool = False) -> Any:  # noqa: ANN401
    """A split of the data set in a folder, or with ``download`` of one on the hub.

    Raises:
        UsageError: There is no such folder or split, or it cannot be read.
    """
    datasets = require_datasets()
    folder = expanded(path)
    if not folder.is_dir() and not download:
        raise UsageError(
            f"there is no folder {path}.",
            key="dataset.path",
            remedy="Name one, or set dataset.download=true to fetch it from the Hugging Face hub.",
        )
    place = str(folder) if folder.is_dir() else path
    try:
        if any((folder / name).is_file() for name in _SAVED):
            saved = datasets.load_from_disk(place)
            return saved[split] if isinstance(saved, dict) else saved
        return datasets.load_dataset(place, split=split)
    except KeyError as error:
        raise UsageError(
            f"{path} has no split {split!r}.",
            key="dataset.split",
            remedy=f"It has {', '.join(map(str, saved))}.",
        ) from error
    except Exception as error:  # the library raises errors of many packages
        reason = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        raise UsageError(
            f"datasets cannot read {path}, split {split} ({reason}).", key="dataset.path"
        ) from error


def num_classes(path: str, split: str, label_column: str | None, download: bool) -> int:
    """The number of classes that the label column declares; 0 without one.

    Raises:
        UsageError: As in :func:`open_split`; or the column declares none.
    """
    names = class_names(path, split, label_column, download)
    return 0 if names is None else len(names)


def class_names(
    path: str,
    split: str,
    label_column: str | None,
    download: bool,
) -> list[str] | None:
    """The names of the classes that the label column declares; None without one.

    Raises:
        UsageError: As in :func:`num_classes`.
    """
    if label_column is None:
        return None
    features = open_split(path, split, download=download).features
    feature = features.get(label_column)
    names = getattr(feature, "names", None)
    if names is None:
        known = ", ".join(name for name, kind in features.items() if hasattr(kind, "names"))
        raise UsageError(
            f"{path} has no column {label_column!r} of classes.",
            key="dataset.label_column",
            remedy=f"Set dataset.label_column={known.partition(',')[0] or 'null'}.",
        )
    return [str(name) for name in names]
