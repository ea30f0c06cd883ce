"""How pictures become squares of one size."""

import numpy as np
import pytest
from PIL import Image

from flowexp.data.cropping import CROPS, adm, center, none, pad
from flowexp.data.image_decoding import NotDecodedError

BLACK = (0, 0, 0)


def columns(width, height):
    """A picture whose pixel values are their columns."""
    return Image.fromarray(np.tile(np.arange(width, dtype=np.uint8), (height, 1)))


@pytest.mark.parametrize("name", sorted(CROPS))
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_result_has_the_size_and_the_mode(name, mode):
    size = (40, 40) if name == "none" else (40, 30)
    image = Image.new(mode, size, 77 if mode == "L" else (7, 8, 9))
    made = CROPS[name].make(image, 16, BLACK)
    assert (made.size, made.mode) == ((16, 16), mode)


@pytest.mark.parametrize("name", sorted(CROPS))
def test_a_picture_of_the_size_is_not_changed(name):
    image = columns(16, 16)
    assert np.array_equal(CROPS[name].make(image, 16, BLACK), image)


def test_center_takes_the_middle_as_edm_does():
    # EDM: img[(h - crop) // 2 : (h + crop) // 2, (w - crop) // 2 : (w + crop) // 2]
    assert np.array_equal(np.asarray(center(columns(21, 8), 8, BLACK))[0], np.arange(6, 14))


def test_adm_halves_by_the_mean_of_blocks():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    blocks = pixels.reshape(4, 2, 4, 2).astype(float).mean((1, 3))
    made = np.asarray(adm(Image.fromarray(pixels), 4, BLACK)).astype(float)
    # Pillow rounds the sums of rows and of columns.
    assert np.abs(made - blocks).max() <= 1.0
    assert np.array_equal(np.asarray(adm(columns(20, 8), 8, BLACK))[0], np.arange(6, 14))


def test_pad_keeps_the_whole_picture_on_the_background():
    made = np.asarray(pad(Image.new("RGB", (16, 8), (200, 200, 200)), 8, (1, 2, 3)))
    assert (made[2:6] == 200).all()
    assert (made[[0, 1, 6, 7]] == (1, 2, 3)).all()
    assert CROPS["pad"].fitted((16, 8)) == 16


def test_none_refuses_what_is_not_square():
    with pytest.raises(NotDecodedError, match="is 9x8, not square"):
        none(columns(9, 8), 8, BLACK)
