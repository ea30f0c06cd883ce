import math

import pytest
import torch

from flowexp.metrics import psnr, psnr_pooled, ssim_interior, ssim_reflected, ssim_uniform

SSIMS = [ssim_interior, ssim_reflected, ssim_uniform]


def picture(seed=0, n=2):
    return torch.rand(n, 3, 16, 20, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_known_error():
    target = torch.zeros(2, 1, 4, 4)
    prediction = torch.stack([torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 0.01)])
    torch.testing.assert_close(
        psnr(prediction, target, data_range=1.0),
        torch.tensor([20.0, 40.0], dtype=torch.float64),
        rtol=1e-6,
        atol=0,
    )
    pooled = psnr_pooled(prediction, target, data_range=1.0)
    assert pooled == pytest.approx(-10 * math.log10((0.01 + 0.0001) / 2), rel=1e-6)
    assert psnr(target, target, data_range=1.0).isinf().all()


def test_the_wrong_range_costs_six_decibel():
    a, b = picture(), picture(1)
    centred = psnr(2 * a - 1, 2 * b - 1, data_range=2.0)
    torch.testing.assert_close(centred, psnr(a, b, data_range=1.0), rtol=1e-6, atol=0)
    lost = centred - psnr(2 * a - 1, 2 * b - 1, data_range=1.0)
    torch.testing.assert_close(lost, torch.full_like(lost, 20 * math.log10(2)))


@pytest.mark.parametrize("ssim", SSIMS)
def test_ssim_identities(ssim):
    a, b = picture(), picture(1)
    one = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(ssim(a, a, data_range=1.0), one)
    torch.testing.assert_close(ssim(a, b, data_range=1.0), ssim(b, a, data_range=1.0))
    torch.testing.assert_close(
        ssim(255 * a.double(), 255 * b.double(), data_range=255.0), ssim(a, b, data_range=1.0)
    )
    noisy = [ssim(a + sd * (b - 0.5), a, data_range=1.0).mean() for sd in (0.1, 0.5)]
    assert 1 > noisy[0] > noisy[1]


@pytest.mark.parametrize("ssim", SSIMS)
def test_ssim_of_flat_images_is_the_luminance_term(ssim):
    a, b = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    wanted = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(a, b, data_range=1.0).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("measure", [psnr, psnr_pooled, *SSIMS])
def test_bad_input(measure):
    with pytest.raises(ValueError, match="one shape"):
        measure(picture(), picture(n=1), data_range=1.0)
    with pytest.raises(ValueError, match="data_range"):
        measure(picture(), picture(), data_range=0.0)


def test_too_small_for_the_window():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim_interior(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), data_range=1.0)
