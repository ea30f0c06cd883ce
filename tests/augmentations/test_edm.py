"""EDM's augmentation: exact cases of every transform, labels, probabilities, independence of rows.

Statistical tests have a fixed seed and a threshold of at least five standard errors: a correct
implementation fails for one seed in a million.
"""

import math
import re

import pytest
import torch

from flowexp.augmentations import EDMAugmentation, GeneratorDraws
from flowexp.seeding import generator
from tests.refusals import network_with, refusal_of

EDM = {
    "xflip": 1e8,
    "yflip": 1,
    "scale": 1,
    "rotate_frac": 1,
    "aniso": 1,
    "translate_frac": 1,
}
COLUMNS = {
    "xflip": 1,
    "yflip": 1,
    "rotate_int": 2,
    "translate_int": 2,
    "scale": 1,
    "rotate_frac": 2,
    "aniso": 2,
    "translate_frac": 2,
    "brightness": 1,
    "contrast": 1,
    "lumaflip": 1,
    "hue": 2,
    "saturation": 1,
}


class Chosen:
    """Draws that are given: parameters as they are, then a gate that is open."""

    def __init__(self, *values):
        self.values = [torch.as_tensor(value, dtype=torch.float64) for value in values]

    def take(self):
        return self.values.pop(0)

    def integers(self, high):
        return self.take().to(torch.int64)

    def uniform(self, *count):
        return self.take()

    def normal(self, *count):
        return self.take()


def rng(seed=0):
    return generator(seed, "augment")


def pictures(batch=4, channels=3, size=16, seed=1):
    drawn = torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return 2.0 * drawn - 1.0


def smooth(batch=1, size=32, channels=1):
    """A picture without fine detail, which resampling keeps."""
    axis = torch.linspace(-math.pi, math.pi, size)
    picture = torch.sin(axis)[None, :] * 0.4 + torch.cos(0.7 * axis)[:, None] * 0.3
    return picture.expand(batch, channels, size, size).clone()


def only(name, images, *draws, **options):
    """The one transform, with given draws and an open gate."""
    gates = 2 if name == "aniso" else 1
    augmentation = EDMAugmentation(p=1.0, **{name: 1.0}, **options)
    return augmentation.apply(images, Chosen(*draws, *[torch.zeros(len(images))] * gates))


def test_flips_are_exact():
    images = pictures(2)
    for name, axis in (("xflip", 3), ("yflip", 2)):
        changed, labels = only(name, images, [0, 1])
        assert torch.equal(changed[0], images[0])
        assert torch.equal(changed[1], images.flip(axis)[1])
        assert labels.tolist() == [[0.0], [1.0]]


def test_quarter_turns_are_rot90():
    images = pictures(4)
    changed, labels = only("rotate_int", images, [0, 1, 2, 3])
    for turns in range(4):
        assert torch.equal(changed[turns], torch.rot90(images[turns], turns, (1, 2)))
    assert labels.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    with pytest.raises(ValueError, match="square"):
        only("rotate_int", images[..., :8], [0, 1, 2, 3])


def test_whole_pixel_shift_reflects():
    images = pictures(2)
    # u = 1 is the largest shift: a quarter of 16 pixels to the right and up.
    changed, labels = only(
        "translate_int", images, [[1.0, 0.5], [1.0, 0.5]], translate_int_max=0.25
    )
    assert torch.equal(changed[0, :, :12, 4:], images[0, :, 4:, :12])
    assert torch.equal(changed[0, :, :12, :4], images[0, :, 4:, 1:5].flip(2))
    assert torch.equal(changed[0, :, 12:, 4:], images[0, :, 11:15, :12].flip(1))
    assert torch.equal(changed[1], images[1])
    assert labels.tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_fractional_shift_by_whole_pixels_is_that_shift():
    images = pictures(1)
    # w std W = 2 pixels to the right, 3 down.
    changed, labels = only("translate_frac", images, [[1.0], [1.5]])
    torch.testing.assert_close(changed[0, :, 3:, 2:], images[0, :, :-3, :-2], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        changed[0, :, 3:, :2], images[0, :, :-3, 1:3].flip(2), rtol=0, atol=1e-5
    )
    assert labels.tolist() == [[1.0, 1.5]]


def test_fractional_rotation_by_a_right_angle_is_rot90():
    images = smooth()
    # u = 3/4 is w = pi/2; pixels are fetched from R(w), y down. The filter is not quite symmetric.
    changed, labels = only("rotate_frac", images, [0.75])
    torch.testing.assert_close(changed[0], torch.rot90(images[0], 1, (1, 2)), rtol=0, atol=2e-2)
    torch.testing.assert_close(labels, torch.tensor([[-1.0, 1.0]]), rtol=0, atol=1e-6)


def test_magnification_by_two():
    size = 32
    changed, labels = only("scale", smooth(size=size), [5.0])
    axis = torch.linspace(-math.pi, math.pi, size) / 2
    expected = torch.sin(axis)[None, :] * 0.4 + torch.cos(0.7 * axis)[:, None] * 0.3
    torch.testing.assert_close(changed[0, 0], expected, rtol=0, atol=3e-3)
    assert labels.tolist() == [[5.0]]


def test_stretching_along_x_and_along_y():
    """r = 0 stretches x by s and shrinks y by s; a quarter turn exchanges them."""
    size = 32
    axis = torch.linspace(-math.pi, math.pi, size)
    # u = 1/2 is r = 0, u = 3/4 is r = pi/2; w = 5/2 is s = sqrt 2.
    changed, labels = only("aniso", smooth(2, size), [2.5, 2.5], [0.5, 0.75])
    inner = slice(6, -6)
    for row, (across, down) in enumerate([(0.5**0.5, 2**0.5), (2**0.5, 0.5**0.5)]):
        expected = (
            torch.sin(across * axis)[None, :] * 0.4 + torch.cos(down * 0.7 * axis)[:, None] * 0.3
        )
        torch.testing.assert_close(
            changed[row, 0, inner, inner], expected[inner, inner], rtol=0, atol=6e-3
        )
    torch.testing.assert_close(labels, torch.tensor([[2.5, 0.0], [0.0, 2.5]]), rtol=0, atol=1e-6)


def test_colors():
    images = pictures(1)
    luma = images.mean(1, keepdim=True)
    cases = {
        ("brightness", 2.0): images + 0.4,
        ("contrast", 2.0): 2.0 * images,
        ("saturation", 1.0): luma + 2.0 * (images - luma),
        ("lumaflip", 1.0): images - 2.0 * luma,
    }
    for (name, w), expected in cases.items():
        changed, labels = only(name, images, [w])
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)
        assert labels.tolist() == [[w]]
    # u = 5/6 is w = 2 pi / 3: red becomes green, green blue, blue red.
    changed, labels = only("hue", images, [5.0 / 6.0])
    torch.testing.assert_close(changed, images[:, [2, 0, 1]], rtol=0, atol=1e-6)
    torch.testing.assert_close(labels, torch.tensor([[-1.5, 0.75**0.5]]), rtol=0, atol=1e-6)


def test_colors_of_grey_pictures():
    """The map of grey, averaged over channels; hue and saturation change nothing."""
    grey = pictures(1, channels=1)
    for name, w, expected in (
        ("brightness", 2.0, grey + 0.4),
        ("contrast", 2.0, 2.0 * grey),
        ("lumaflip", 1.0, -grey),
        ("saturation", 1.0, grey),
        ("hue", 0.8, grey),
    ):
        torch.testing.assert_close(only(name, grey, [w])[0], expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        only("brightness", pictures(1, channels=2), [1.0])


def test_columns_stand_in_the_order_of_the_arguments():
    everything = EDMAugmentation(p=1.0, **dict.fromkeys(COLUMNS, 1.0))
    assert everything.augment_dim == sum(COLUMNS.values()) == 19
    assert EDMAugmentation(p=0.12, **EDM).augment_dim == 9
    _, labels = everything(pictures(64), rng=rng())
    assert labels.shape == (64, 19)
    assert labels.dtype == torch.float32
    start = 0
    for name, width in COLUMNS.items():
        alone = EDMAugmentation(p=1.0, **{name: 1.0})
        assert alone.augment_dim == width
        own = labels[:, start : start + width]
        if name in ("xflip", "yflip", "rotate_int", "lumaflip"):
            assert set(own.unique().tolist()) == {0.0, 1.0}
        if name in ("rotate_frac", "hue"):
            radius = (own[:, 0] + 1.0) ** 2 + own[:, 1] ** 2
            torch.testing.assert_close(radius, torch.ones(64))
        start += width


def test_probability_zero_leaves_pictures_bit_identical():
    images = pictures(16)
    augmentation = EDMAugmentation(p=0.0, **dict.fromkeys(COLUMNS, 1e8) | {"xflip": 1.0})
    changed, labels = augmentation(images, rng=rng())
    assert torch.equal(changed, images)
    assert not labels.any()
    assert labels.shape == (16, 19)


def test_rows_with_zero_labels_are_bit_identical_and_the_input_is_left_alone():
    images = pictures(256, size=8)
    before = images.clone()
    changed, labels = EDMAugmentation(p=0.12, **EDM)(images, rng=rng())
    unchanged = ~labels.any(dim=1)
    assert 20 < int(unchanged.sum()) < 200
    assert torch.equal(changed[unchanged], images[unchanged])
    assert (changed[~unchanged] != images[~unchanged]).flatten(1).any(1).all()
    assert torch.equal(images, before)


def test_rows_do_not_depend_on_each_other():
    """Up to rounding: the padding is that of the row that reaches furthest."""

    class Some(GeneratorDraws):
        def __init__(self, rows):
            super().__init__(rng(3), rows=32)
            self.own = rows

    images = pictures(32)
    augmentation = EDMAugmentation(p=0.7, **dict.fromkeys(COLUMNS, 1.0))
    whole, labels = augmentation.apply(images, Some(slice(0, 32)))
    for row in (0, 7, 31):
        part = slice(row, row + 1)
        alone, label = augmentation.apply(images[part], Some(part))
        assert torch.equal(label, labels[part])
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=2e-5)


def test_processes_share_the_draws_of_the_global_batch():
    images = pictures(8)
    augmentation = EDMAugmentation(p=0.5, **EDM)
    _, whole = augmentation(images, rng=rng(2))
    for rank in (0, 1):
        own = slice(4 * rank, 4 * rank + 4)
        _, labels = augmentation(images[own], rng=rng(2), rank=rank, world_size=2)
        assert torch.equal(labels, whole[own])


def test_draws_are_a_function_of_the_generator():
    images = pictures(8)
    augmentation = EDMAugmentation(p=0.5, **EDM)
    first, again, other = (augmentation(images, rng=rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


@pytest.mark.statistical
def test_laws_of_the_labels():
    p, n = 0.3, 40_000
    augmentation = EDMAugmentation(p=p, **EDM)
    labels = augmentation(torch.zeros(n, 1, 4, 4), rng=rng(5))[1].double()

    def share(column, expected):
        error = 5.0 * math.sqrt(expected * (1.0 - expected) / n)
        assert abs(float(labels[:, column].ne(0).double().mean()) - expected) < error

    # Flips are drawn with one half; xflip is always tried.
    for column, expected in enumerate([0.5, p / 2, p, p, p]):
        share(column, expected)
    for column in (2, 7, 8):
        kept = labels[labels[:, column] != 0, column]
        error = 5.0 / math.sqrt(len(kept))
        assert abs(float(kept.mean())) < error
        assert abs(float(kept.var()) - 1.0) < math.sqrt(2.0) * error
    stretched = labels[labels[:, 5:7].any(dim=1), 5:7]
    along_x = (stretched[:, 1] == 0).double().mean()
    assert abs(float(along_x) - 0.5) < 5.0 * 0.5 / math.sqrt(len(stretched))


def test_padding_is_at_most_the_picture_and_zeros_come_after_it():
    """A shift by three pictures fetches nothing but zeros; nothing is reflected twice."""
    changed, _ = only("translate_frac", pictures(1), [[24.0], [0.0]])
    assert changed.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"p": -0.1}, "p is -0.1"),
        ({"p": 0.1, "scale": -1.0}, "scale is -1.0"),
        ({"p": 0.1, "hue_max": math.inf}, "hue_max is inf"),
        ({"p": math.nan}, "p is nan"),
    ],
)
def test_impossible_arguments_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        EDMAugmentation(**options)


def test_a_network_of_another_number_of_columns_is_refused():
    augmentation = EDMAugmentation(p=0.12, **EDM)
    assert refusal_of(augmentation, network=network_with(9)) is None
    refusal = refusal_of(augmentation, network=network_with(0))
    assert re.search(r"9 label columns.*expects 0.*network\.augment_dim=9", refusal)


def test_points_are_refused():
    with pytest.raises(ValueError, match=r"images has shape \(5, 2\)"):
        EDMAugmentation(p=0.12, **EDM)(torch.zeros(5, 2), rng=rng())
