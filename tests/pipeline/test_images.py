"""Picture files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.data import to_unit_range
from flowexp.pipeline import (
    class_grid_image,
    grid_image,
    save_grid,
    save_images,
    scatter_image,
)


@pytest.mark.parametrize("channels", [1, 3])
def test_files_hold_the_exact_levels(tmp_path: Path, channels: int) -> None:
    levels = torch.arange(2 * channels * 64, dtype=torch.int64).remainder(256)
    levels = levels.to(torch.uint8).reshape(2, channels, 8, 8)
    paths = save_images(tmp_path, to_unit_range(levels), [7, 12])
    assert [path.name for path in paths] == ["000007.png", "000012.png"]
    read = np.asarray(Image.open(paths[1]))
    expected = levels[1].permute(1, 2, 0).numpy()
    assert np.array_equal(read, expected[..., 0] if channels == 1 else expected)


def test_cells_are_a_pixel_apart() -> None:
    x = -torch.ones(5, 3, 32, 32)
    grid = np.asarray(grid_image(x))
    assert grid.shape == (2 * 33 + 1, 3 * 33 + 1, 3)
    assert (grid[::33] == 255).all()
    assert (grid[:, ::33] == 255).all()
    assert (grid[1:33, 1:33] == 0).all()
    assert (grid[34:66, 67:99] == 255).all(), "the sixth cell is empty"


def test_tiny_pictures_are_enlarged_by_whole_pixels() -> None:
    grid = np.asarray(grid_image(-torch.ones(2, 1, 8, 8), columns=1))
    assert grid.shape == (19 * 8, 10 * 8)
    assert set(np.unique(grid)) == {0, 255}


def test_points_become_dots_where_they_are(tmp_path: Path) -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [float("nan"), 0.0]])
    path = save_grid(tmp_path / "points.png", points)
    dark = np.argwhere(np.asarray(Image.open(path)).sum(axis=2) < 600)
    rows = sorted(set(dark[:, 0].tolist()))
    # The point (1, 1) is drawn at the upper right, (0, 0) at the lower left.
    upper, lower = dark[dark[:, 0] == rows[0]], dark[dark[:, 0] == rows[-1]]
    assert upper[:, 1].min() > 400
    assert lower[:, 1].max() < 112


def test_no_finite_point_is_an_empty_plot() -> None:
    assert np.asarray(scatter_image(torch.full((3, 2), float("inf")))).min() == 255


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (2, 3, 4), (4, 3)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="have shape"):
        save_grid(tmp_path / "x.png", torch.zeros(shape))


def test_as_many_seeds_as_samples(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 seeds for 2 samples"):
        save_images(tmp_path, torch.zeros(2, 1, 4, 4), [0])


def test_classes_have_rows_with_their_names() -> None:
    """The samples keep their order within a class; what is left of its last row stays white."""
    shades = torch.tensor([-1.0, 0.0, -0.5, 0.5]).reshape(4, 1, 1, 1)
    labels = torch.tensor([2, 0, 2, 2])
    made = class_grid_image(
        shades.expand(4, 1, 32, 32), labels, class_names=("coat", "bag", "boot"), columns=2
    )
    grid = np.asarray(made)
    rows, width = 3, 2 * 33 + 1
    assert grid.shape[0] == rows * 33 + 1
    cells = grid[:, -width:][16::33, 16::33]
    assert cells.tolist() == [[128, 255], [0, 64], [191, 255]]
    names = [grid[r * 33 + 1 : (r + 1) * 33, :-width] for r in range(rows)]
    assert [bool((name < 100).any()) for name in names] == [True, True, False]
    longer = class_grid_image(
        shades.expand(4, 1, 32, 32), labels, class_names=("coat", "bag", "ankle boot"), columns=2
    )
    assert longer.width > made.width


def test_unnamed_classes_are_numbered_and_columns_are_bounded() -> None:
    grid = class_grid_image(torch.zeros(23, 3, 8, 8), torch.tensor([7] * 22 + [-1]))
    assert grid.height == (3 + 1) * 9 * 8 + 8


def test_a_row_for_every_sample_is_no_grid_of_classes(tmp_path: Path) -> None:
    x = -torch.ones(9, 1, 8, 8)
    plain = grid_image(x)
    for labels in (None, torch.arange(9)):
        with Image.open(save_grid(tmp_path / "x.png", x, labels=labels)) as image:
            assert image.size == plain.size
    with Image.open(save_grid(tmp_path / "x.png", x, labels=torch.arange(9) % 3)) as image:
        assert image.size > plain.size
        assert image.height == plain.height


def test_as_many_labels_as_samples() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 samples"):
        class_grid_image(torch.zeros(2, 1, 8, 8), torch.zeros(1))
