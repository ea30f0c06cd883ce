"""Augmentations: random changes of training images, on which the network is conditioned."""

from flowexp.augmentations.base import Augmentation, GeneratorDraws, NoAugmentation, RowDraws
from flowexp.augmentations.edm import EDMAugmentation

__all__ = ["Augmentation", "EDMAugmentation", "GeneratorDraws", "NoAugmentation", "RowDraws"]
