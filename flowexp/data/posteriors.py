"""Items that are known up to a normal distribution, such as the latents of an autoencoder."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from flowexp.data.digests import Array

__all__ = ["Posteriors"]


class Posteriors(ABC):
    """A normal distribution per item, with independent components."""

    @abstractmethod
    def take(
        self, index: Array, *, mirrored: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Means and standard deviations of the items at ``index`` (B,), each (B, ...), copied.

        The standard deviations are None if an item is its mean. Where ``mirrored``, (B,), they are
        those of the mirrored image, which are not the mirrored ones.
        """
