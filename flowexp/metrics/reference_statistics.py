"""Published mean and covariance of a reference set, in place of the set itself.

Such files carry no protocol (EDM's hold ``mu`` and ``sigma`` only), so extractor and resize are
declared in the config and compared with the metric's: statistics of one resize with features of
another give a plausible, wrong number.
"""

import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.metrics.base import Extractor
from flowexp.metrics.frechet import FrechetReference


class ReferenceStatistics:
    """An npz file with ``mu``, (d,), and ``sigma``, (d, d), float64, with its protocol.

    Args:
        file: The file.
        extractor: Declared features, by their full name.
        resize: Declared resize.
        key: Config key of the metric.
    """

    def __init__(self, file: Path, *, extractor: str | None, resize: str | None, key: str) -> None:
        self.file = file
        self.declared = {"extractor": extractor, "resize": resize}
        self._key = key

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return file_sha256(self.file)

    def check(self, extractor: Extractor) -> None:
        """Raise ``UsageError`` unless the file is there and fits the extractor."""
        self._arrays(extractor)

    def read(self, extractor: Extractor) -> FrechetReference:
        """The reference; its sample count is unknown.

        Args:
            extractor: Whose features will be compared with it.

        Raises:
            UsageError: The file is missing, damaged, or of another protocol.
        """
        return FrechetReference.from_moments(*self._arrays(extractor))

    def _arrays(self, extractor: Extractor) -> tuple[Tensor, Tensor]:
        for part, actual in (("extractor", extractor.name), ("resize", extractor.resize)):
            declared = self.declared[part]
            if declared != actual:
                found = "is not declared" if declared is None else f"is {declared!r}"
                raise UsageError(
                    f"the {part} of {self.file} {found}, but this metric's is {actual!r}.",
                    key=f"{self._key}.reference_{part}",
                    remedy="Statistics of another protocol cannot be compared with; if the file is "
                    "of this one, declare it here.",
                )
        if not self.file.is_file():
            raise self._wrong(f"{self.file} does not exist.")
        try:
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                mean = torch.from_numpy(np.asarray(stored["mu"], dtype=np.float64))
                covariance = torch.from_numpy(np.asarray(stored["sigma"], dtype=np.float64))
        except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise self._wrong(f"{self.file} holds no mu and sigma ({error}).") from error
        dim = len(mean) if extractor.dim is None else extractor.dim
        if mean.shape != (dim,) or covariance.shape != (dim, dim):
            raise self._wrong(
                f"{self.file} holds mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)}, "
                f"but {extractor.name} has {dim} features."
            )
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise self._wrong(f"{self.file} holds values that are not finite.")
        return mean, covariance

    def _wrong(self, problem: str) -> UsageError:
        return UsageError(
            problem,
            key=f"{self._key}.reference_statistics",
            remedy="Give an npz with mu and sigma of these features, or null for the data set's.",
        )
