"""The digits of scikit-learn: 1,797 real handwritten digits, grey, 8 x 8, in the package's wheel.

Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits" (its test part).
"""

from pathlib import Path

import numpy as np

from flowexp.data.base import ImageArrays, SplitDataset, evenly_spaced
from flowexp.errors import UsageError
from flowexp.files import packaged

__all__ = ["Digits"]

_FILE = "datasets/data/digits.csv.gz"
_HELDOUT_PER_CLASS = 30


class Digits(SplitDataset):
    """1,497 images for training, 300 held out (30 of each class, evenly spaced in the file).

    The file's values 0..16 become levels round(v * 255 / 16). Arguments other than ``hflip`` only
    declare what is fixed.
    """

    class_names = tuple(str(digit) for digit in range(10))

    def __init__(
        self, *, resolution: int = 8, channels: int = 1, num_classes: int = 10, hflip: bool = False
    ) -> None:
        super().__init__(
            name="digits",
            shape=(channels, resolution, resolution),
            num_classes=num_classes,
            hflip=hflip,
        )
        self._require_declared(channels=[1], resolution=[8], num_classes=[10])

    def locate(self) -> None:
        if not self._file().is_file():
            raise UsageError(
                "the digits are part of scikit-learn, which is not installed.",
                key="dataset",
                remedy="Run: pip install scikit-learn",
            )

    @staticmethod
    def _file() -> Path:
        """The file in scikit-learn's package, found without the slow import."""
        return packaged("sklearn", _FILE) or Path("sklearn", _FILE)

    def _split(self, split: str) -> ImageArrays:
        table = np.loadtxt(self._file(), delimiter=",")
        images = np.rint(table[:, :-1] * (255.0 / 16.0)).astype(np.uint8).reshape(-1, *self.shape)
        labels = table[:, -1].astype(np.int64)
        mask = evenly_spaced(labels, per_class=_HELDOUT_PER_CLASS) == (split == "heldout")
        return self._arrays(images[mask], labels[mask], split=split)
