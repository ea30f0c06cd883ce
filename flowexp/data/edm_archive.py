"""Writes ZIP archives in EDM's layout.

Members are ``NNNNN/imgNNNNNNNN.png`` and then ``dataset.json`` (:mod:`flowexp.data.image_labels`),
stored, with one fixed date, so that the same pictures give the same bytes.

Source: Karras et al. 2022 (arXiv 2206.00364), dataset_tool.py.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from flowexp.data.image_labels import LABEL_FILE, LabelsOfImages

__all__ = ["EdmArchive", "as_png", "edm_name"]

_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


def edm_name(index: int) -> str:
    """The name of an image in EDM's layout."""
    number = f"{index:08d}"
    return f"{number[:5]}/img{number}.png"


@dataclass(frozen=True)
class EdmArchive:
    """The content of an archive to write.

    Attributes:
        pictures: PNG files, in order.
        labels: Their labels, or None.
        mode: Pillow's mode that all are converted to, L or RGB.
    """

    pictures: Sequence[Path]
    labels: LabelsOfImages | None
    mode: str

    def write(self, file: Path) -> None:
        """Write the ZIP."""
        table: dict[str, Any] = {"labels": None}
        if self.labels is not None:
            values = self.labels.values.tolist()
            table["labels"] = [[edm_name(i), value] for i, value in enumerate(values)]
            if self.labels.class_names is not None:
                table["class_names"] = list(self.labels.class_names)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for i, picture in enumerate(self.pictures):
                _add(archive, edm_name(i), self._content(picture))
            _add(archive, LABEL_FILE, json.dumps(table, ensure_ascii=False).encode())

    def _content(self, picture: Path) -> bytes:
        content = picture.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            return content if image.mode == self.mode else as_png(image.convert(self.mode))


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _DATE)
    member.create_system = _UNIX
    member.external_attr = 0o644 << 16
    archive.writestr(member, content)


def as_png(image: Image.Image) -> bytes:
    """The bytes of an uncompressed PNG, which do not depend on the version of zlib."""
    stream = io.BytesIO()
    image.save(stream, format="png", compress_level=0, optimize=False)
    return stream.getvalue()
