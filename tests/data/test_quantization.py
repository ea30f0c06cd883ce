"""The 256 levels survive the way to [-1, 1] and back; everything else is clipped or refused."""

import pytest
import torch

from flowexp.data.quantization import as_data, quantize, to_unit_range


def levels() -> torch.Tensor:
    return torch.arange(256, dtype=torch.int64).to(torch.uint8)


def test_all_levels_round_trip():
    assert torch.equal(quantize(to_unit_range(levels())), levels())


def test_all_levels_round_trip_in_float64():
    assert torch.equal(quantize(to_unit_range(levels()).double()), levels())


def test_levels_are_evenly_spaced_from_minus_one_to_one():
    x = to_unit_range(levels())
    assert x.dtype == torch.float32
    assert x[0] == -1.0
    assert x[255] == 1.0
    torch.testing.assert_close(x.diff(), torch.full((255,), 2 / 255), rtol=0, atol=2e-7)


def test_each_level_owns_the_interval_around_it():
    centre = to_unit_range(levels()).double()
    reach = 0.49 / 127.5
    assert torch.equal(quantize(centre + reach), levels())
    assert torch.equal(quantize(centre - reach), levels())
    assert torch.equal(quantize(centre[:-1] + 0.51 / 127.5), levels()[1:])


def test_outside_is_clipped():
    x = torch.tensor([-torch.inf, -7.0, -1.01, 1.01, 7.0, torch.inf])
    assert quantize(x).tolist() == [0, 0, 0, 255, 255, 255]


def test_half_precision_is_computed_in_single():
    x = torch.linspace(-1, 1, 1001)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(quantize(x.to(dtype)), quantize(x.to(dtype).float()))


def test_refusals():
    with pytest.raises(ValueError, match=r"uint8.*float32"):
        to_unit_range(torch.zeros(2))
    with pytest.raises(ValueError, match=r"floating point.*uint8"):
        quantize(levels())
    with pytest.raises(ValueError, match="NaN"):
        quantize(torch.tensor([0.0, torch.nan]))


def test_as_data_scales_pictures_and_leaves_points():
    points = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert as_data(points) is points
    assert torch.equal(as_data(levels()), to_unit_range(levels()))
