"""Holes are functions of their own draws, and lie inside the image."""

import pytest
import torch

from flowexp.tasks import Box, Half, RandomPixels, Strokes

LAWS = {
    "box": Box(sides=(0.25, 0.5)),
    "half": Half(),
    "strokes": Strokes(count=2, segments=3),
    "random_pixels": RandomPixels(share=0.9),
}
every = pytest.mark.parametrize("kind", sorted(LAWS))


def draws(law, count, height, width, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, law.uniforms(height, width), generator=rng)


@every
def test_a_hole_depends_on_its_own_row_and_never_fills_the_image(kind):
    law = LAWS[kind]
    uniforms = draws(law, 64, 12, 20)
    holes = law.holes(uniforms, 12, 20)
    assert holes.shape == (64, 12, 20)
    assert holes.dtype == torch.bool
    assert torch.equal(holes[5:6], law.holes(uniforms[5:6], 12, 20))
    share = holes.flatten(1).float().mean(1)
    assert ((share > 0.0) & (share < 1.0)).all()


def test_boxes_are_rectangles_with_sides_in_range_that_reach_every_border():
    holes = LAWS["box"].holes(draws(LAWS["box"], 500, 12, 20), 12, 20)
    for hole in holes:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None, :])
        assert 3 <= int(rows.sum()) <= 6
        assert 5 <= int(columns.sum()) <= 10
        assert int(rows.nonzero().diff(dim=0).max()) == 1
    assert holes[:, 0].any()
    assert holes[:, -1].any()
    assert holes[..., 0].any()
    assert holes[..., -1].any()


def test_extreme_draws_stay_inside():
    for value in (0.0, 1.0 - 2**-24):
        for law in (*LAWS.values(), Box(sides=(1.0, 1.0)), Box(sides=(0.01, 0.01))):
            uniforms = torch.full((1, law.uniforms(7, 9)), value)
            assert law.holes(uniforms, 7, 9).any()


@pytest.mark.statistical
def test_each_half_is_as_frequent():
    """Chi-square of 2000 in 4 classes; 21.1 is exceeded by chance once in 10,000 tests."""
    holes = Half().holes(draws(Half(), 2000, 4, 6), 4, 6)
    corners = holes[:, [0, 0, 3, 3], [0, 5, 0, 5]].long()
    kind = corners @ torch.tensor([1, 2, 4, 8])
    counts = torch.stack([(kind == k).sum() for k in (3, 12, 5, 10)])
    assert int(counts.sum()) == 2000
    assert float(((counts - 500.0) ** 2 / 500.0).sum()) < 21.1


def test_the_share_of_random_pixels_is_exact():
    holes = RandomPixels(share=0.9).holes(draws(RandomPixels(), 8, 7, 9), 7, 9)
    assert holes.flatten(1).sum(1).tolist() == [int(0.9 * 63)] * 8
    assert not torch.equal(holes[0], holes[1])


def test_a_stroke_is_a_band_around_its_segments():
    """One horizontal segment: pixels at most half a thickness from it, and no others."""
    law = Strokes(count=1, segments=1, length=(0.5, 0.5), thickness=(0.2, 0.2))
    uniforms = torch.tensor([[0.5, 0.25, 0.0, 0.0, 0.0]])
    hole = law.holes(uniforms, 20, 20)[0]
    y, x = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(20) + 0.5, indexing="ij")
    away = torch.stack([y - 10.0, x - x.clamp(5.0, 15.0)]).norm(dim=0)
    assert torch.equal(hole, away <= 2.0)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Box(sides=(0.0, 0.5)), "sides is"),
        (lambda: Box(sides=(0.6, 0.5)), "sides is"),
        (lambda: Box(sides=(0.5,)), "sides is"),
        (lambda: RandomPixels(share=1.0), "share is 1.0"),
        (lambda: Strokes(count=0), "count is 0"),
        (lambda: Strokes(segments=0), "segments is 0"),
        (lambda: Strokes(thickness=(0.1, 2.0)), "thickness is"),
    ],
)
def test_bad_values_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
