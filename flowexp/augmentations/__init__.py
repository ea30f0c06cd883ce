"""Augmentations: random changes of training images, on which the network is conditioned."""

from flowexp.augmentations.base import Augmentation
from flowexp.augmentations.draws import Draws, GeneratorDraws
from flowexp.augmentations.edm import EDMAugmentation
from flowexp.augmentations.none import NoAugmentation

__all__ = ["Augmentation", "Draws", "EDMAugmentation", "GeneratorDraws", "NoAugmentation"]
