import pytest
import torch

from flowexp.metrics.resize import (
    pil_bicubic,
    tf1_bilinear,
    torch_bicubic_antialias,
    torch_bilinear,
    torch_bilinear_antialias,
)

ALL = [tf1_bilinear, torch_bilinear, torch_bilinear_antialias, torch_bicubic_antialias, pil_bicubic]


def picture(height=9, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("resize", ALL)
def test_constants_stay_and_the_range_is_kept(resize):
    flat = torch.full((1, 1, 5, 6), 37, dtype=torch.uint8)
    torch.testing.assert_close(resize(flat, (11, 3)), torch.full((1, 1, 11, 3), 37.0))
    result = resize(picture(), (20, 31))
    assert result.shape == (2, 3, 20, 31)
    assert result.dtype == torch.float32
    assert 0 <= result.min() <= result.max() <= 255


@pytest.mark.parametrize("resize", ALL)
def test_the_same_size_changes_nothing(resize):
    torch.testing.assert_close(resize(picture(), (9, 7)), picture().float(), rtol=0, atol=1e-4)


def test_tf1_grid_starts_at_zero_and_is_held_at_the_end():
    row = torch.tensor([[[[10, 20]]]], dtype=torch.uint8)
    wanted = torch.tensor([[[[10.0, 15.0, 20.0, 20.0]]]])
    torch.testing.assert_close(tf1_bilinear(row, (1, 4)), wanted)
    centred = torch.tensor([[[[10.0, 12.5, 17.5, 20.0]]]])
    torch.testing.assert_close(torch_bilinear(row, (1, 4)), centred)


def test_rows_and_columns_are_not_exchanged():
    for resize in ALL:
        turned = resize(picture().mT.contiguous(), (13, 11)).mT
        torch.testing.assert_close(turned, resize(picture(), (11, 13)), rtol=0, atol=1e-3)
