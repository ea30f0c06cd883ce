"""A data set of small pictures with partners, and tasks on it."""

import numpy as np

from flowexp.data import Dataset, ImageArrays
from flowexp.data.partners import StoredPartners
from flowexp.networks.conditions import Image, ImageSet, Mask, SemanticMap
from flowexp.tasks import (
    Box,
    ClassExamples,
    FromLevels,
    Inpainting,
    PairedImage,
    SemanticImages,
)

CLASSES, SIDE = 3, 6


class Pictures(Dataset):
    """Grey 6 x 6 pictures of three classes, whose partners are their negatives.

    Pixel (0, 0) is the position of a picture in its split, plus 100 where it is held out.
    """

    has_partners = True

    def __init__(self, *, heldout: int = 7):
        super().__init__(name="pictures", shape=(1, SIDE, SIDE), num_classes=CLASSES)
        self.count = heldout
        self.reads = 0

    def locate(self): ...

    def _read(self):
        return self._split(20, first=0)

    def _read_heldout(self):
        return self._split(self.count, first=100) if self.count else None

    def _split(self, count, *, first):
        self.reads += 1
        images = np.random.default_rng(first).integers(0, 256, (count, 1, SIDE, SIDE), np.uint8)
        images[:, 0, 0, 0] = first + np.arange(count)
        labels = np.arange(count) % CLASSES
        partners = StoredPartners(255 - images)
        return ImageArrays.of(
            images, labels, num_classes=CLASSES, name="pictures", partners=partners
        )


def inpainting(dataset=None, **options):
    inputs = {"image": Image(channels=1), "mask": Mask()}
    options = {"mask": Box(), "inputs": inputs} | options
    return Inpainting(dataset=dataset or Pictures(), **options)


def paired_image(dataset=None, **options):
    inputs = {"image": Image(channels=1)}
    return PairedImage(dataset=dataset or Pictures(), inputs=inputs, **options)


def semantic_images(dataset=None, **options):
    options = {"maps": FromLevels(classes=4)} | options
    inputs = {"map": SemanticMap(classes=4)}
    return SemanticImages(dataset=dataset or Pictures(), inputs=inputs, **options)


def class_examples(dataset=None, **options):
    inputs = {"examples": ImageSet(image_channels=1)}
    return ClassExamples(dataset=dataset or Pictures(), inputs=inputs, **options)


TASKS = {
    "inpainting": inpainting,
    "paired_image": paired_image,
    "semantic_map": semantic_images,
    "class_examples": class_examples,
}
