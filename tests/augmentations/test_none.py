"""No augmentation: the pictures themselves, and no label columns."""

import re

import pytest
import torch

from flowexp.augmentations import NoAugmentation
from flowexp.seeding import generator
from tests.refusals import network_with, refusal_of


def test_pictures_and_generator_are_left_alone():
    images = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    rng = generator(0, "augment")
    state = rng.get_state()
    changed, labels = NoAugmentation()(images, rng=rng)
    assert changed is images
    assert labels.shape == (2, 0)
    assert torch.equal(rng.get_state(), state)


def test_a_network_with_columns_is_refused():
    assert refusal_of(NoAugmentation(), network=network_with(0)) is None
    refusal = refusal_of(NoAugmentation(), network=network_with(9))
    assert re.search(r"expects 9.*network\.augment_dim=0", refusal)


def test_zeros_for_a_network_that_was_trained_with_columns():
    images = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    augmentation = NoAugmentation(augment_dim=9)
    assert refusal_of(augmentation, network=network_with(9)) is None
    changed, labels = augmentation(images, rng=generator(0, "augment"))
    assert changed is images
    assert torch.equal(labels, torch.zeros(2, 9))
    with pytest.raises(ValueError, match="augment_dim is -1"):
        NoAugmentation(augment_dim=-1)
