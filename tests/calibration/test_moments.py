import torch

from flowexp.calibration.statistics_pass import SlopeMoments


def pairs():
    rng = torch.Generator().manual_seed(0)
    f = 1e6 + torch.randn(50, 3, dtype=torch.float64, generator=rng)
    noise = torch.randn(50, 3, dtype=torch.float64, generator=rng)
    return f, 2.0 * f - 5.0 + 0.1 * noise


def test_least_squares_line():
    f, d = pairs()
    s, b = SlopeMoments.of(f, d, size=f).line()
    for j in range(3):
        design = torch.stack([f[:, j] - 1e6, torch.ones(50, dtype=torch.float64)], dim=1)
        slope, shifted = torch.linalg.lstsq(design, d[:, j]).solution
        torch.testing.assert_close(s[j], slope, rtol=1e-9, atol=0)
        torch.testing.assert_close(b[j], shifted - 1e6 * slope, rtol=1e-7, atol=0)


def test_batches_merge_to_the_whole():
    f, d = pairs()
    whole = SlopeMoments.of(f, d, size=f)
    merged = SlopeMoments.of(f[:7], d[:7], size=f[:7])
    for rows in (slice(7, 30), slice(30, 50)):
        merged = merged.merged(SlopeMoments.of(f[rows], d[rows], size=f[rows]))
    assert merged.count == 50
    for name in ("f", "d", "ff", "fd", "size"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-9, atol=0)


def test_constant_f_has_no_slope():
    """0/0 where f does not vary, as for Gaussian data: s = 0, b = E[f']."""
    f = torch.full((20, 2), 0.3, dtype=torch.float64)
    f[:, 0] += 1e-16 * torch.arange(20)
    d = torch.arange(40, dtype=torch.float64).reshape(20, 2)
    s, b = SlopeMoments.of(f, d, size=torch.ones_like(f)).line()
    assert s.tolist() == [0.0, 0.0]
    torch.testing.assert_close(b, d.mean(0))
