"""The labels of image files, from ``dataset.json`` or else from the folders that hold the images.

``dataset.json`` is at the top of the ZIP or the folder::

    {"labels": [["00000/img00000000.png", 0], ["00000/img00000001.png", 2], ...],
     "class_names": ["daisy", "rose", "tulip"]}

``labels`` has one pair per image: its name with ``/`` between folders, and its class index from 0
or a vector of numbers, of the same length for all images. It is null for images without labels.
``class_names`` is optional; entry k is the name of class k. EDM's own reader ignores it.

Without ``dataset.json`` every image must be in a folder, ``rose/a.jpg``, ``rose/old/b.jpg``,
``tulip/c.jpg``: the first folders below the common one, at least two, are the classes, in
alphabetical order. The numbered folders of EDM's layout are not classes.

Source: Karras et al. 2022 (arXiv 2206.00364), dataset_tool.py, for all except ``class_names``.
"""

import json
import math
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from flowexp.data.digests import Array

__all__ = ["LABEL_FILE", "LabelsError", "LabelsOfImages", "class_folders", "json_labels",
           "looked_up"]  # fmt: skip

LABEL_FILE = "dataset.json"

_EDM_NAME = re.compile(r"(.*/)?\d{5}/img\d{8}\.\w+")
_MOST_CLASS = np.iinfo(np.int64).max
_SHOWN_LABEL = 60


class LabelsError(ValueError):
    """Wrong labels.

    Args:
        problem: The end of a sentence that begins with the name of the file.
        incomplete: Whether images lack labels, or labels lack images.
    """

    def __init__(self, problem: str, *, incomplete: bool = False) -> None:
        super().__init__(problem)
        self.incomplete = incomplete


@dataclass(frozen=True)
class LabelsOfImages:
    """The label of every image.

    Attributes:
        values: Classes (N,), int64, or vectors (N, L), float32, in the order of the images.
        class_names: Names of the classes 0, 1, ..., or None.
    """

    values: Array
    class_names: tuple[str, ...] | None

    def at(self, positions: Sequence[int]) -> "LabelsOfImages":
        """The labels of some of the images."""
        return LabelsOfImages(self.values[np.array(positions, dtype=np.int64)], self.class_names)

    @property
    def num_classes(self) -> int:
        """The number of classes with a name or an image, or the length of the vectors."""
        if self.values.ndim == 2:
            return int(self.values.shape[1])
        return max(int(self.values.max()) + 1, len(self.class_names or ()))


def class_folders(names: Sequence[str]) -> LabelsOfImages | None:
    """Labels by the folders that hold the images; None if these are not classes."""
    folders = [posixpath.dirname(looked_up(name)).split("/") for name in names]
    if all(_EDM_NAME.fullmatch(name) for name in names):
        return None
    shared = len(posixpath.commonprefix(folders))
    if any(len(folder) == shared or folder == [""] for folder in folders):
        return None
    own = [folder[shared] for folder in folders]
    classes = sorted(set(own))
    number = {name: k for k, name in enumerate(classes)}
    values = np.array([number[name] for name in own], dtype=np.int64)
    return LabelsOfImages(values, tuple(classes))


def json_labels(content: bytes, names: Sequence[str]) -> LabelsOfImages | None:
    """The labels of images from the content of ``dataset.json``; None if they are null.

    Raises:
        LabelsError: Not every image has exactly one label; or labels are not all class indices from
            0, or all finite vectors; or the number of names is not that of the classes.
        ValueError: The content is invalid (likewise ``KeyError``, ``TypeError``).
    """
    table = json.loads(content, object_pairs_hook=_once)
    labels = table["labels"]
    if labels is None:
        return None
    pairs = labels.items() if isinstance(labels, Mapping) else labels
    by_name = _once((looked_up(str(name)), label) for name, label in pairs)
    values = _values(by_name, [looked_up(name) for name in names])
    found = LabelsOfImages(values, _class_names(table.get("class_names")))
    if found.class_names is not None and len(found.class_names) != found.num_classes:
        given = len(found.class_names)
        raise LabelsError(f"has {given} class_names for {found.num_classes} classes")
    return found


def _class_names(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise LabelsError("has class_names that are not a list of strings")
    return tuple(given)


def _values(by_name: Mapping[str, Any], names: Sequence[str]) -> Array:
    counts = f"has {len(by_name)} labels for {len(names)} images"
    missing = next((name for name in names if name not in by_name), None)
    if missing is not None:
        raise LabelsError(f"{counts}, and none for {missing}", incomplete=True)
    if extra := set(by_name) - set(names):
        raise LabelsError(f"{counts}; {min(extra)} has a label but is missing", incomplete=True)
    for name in names:
        if not _is_label(label := by_name[name]):
            _refuse(name, label)
    try:
        table = np.array([by_name[name] for name in names])
    except ValueError as error:
        raise LabelsError("mixes labels of several kinds") from error
    return table.astype(np.int64 if table.ndim == 1 else np.float32)


def _refuse(name: str, label: object) -> NoReturn:
    shown = json.dumps(label)[:_SHOWN_LABEL]
    if type(label) is int:
        raise LabelsError(f"gives {name} the class {shown}, but classes count from 0")
    kind = "labels that are neither integers nor vectors of finite numbers"
    raise LabelsError(f"holds {kind}: {shown} for {name}")


def looked_up(name: str) -> str:
    """A normalized name: without ``./``, with ``/`` between its folders."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Names and values as a mapping; ``ValueError`` if a name occurs twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it lists {name} twice")
        found[name] = value
    return found


def _is_label(label: object) -> bool:
    """Whether a label is a class index or a vector."""
    if isinstance(label, list):
        return bool(label) and all(type(x) in (int, float) and math.isfinite(x) for x in label)
    return type(label) is int and 0 <= label <= _MOST_CLASS
