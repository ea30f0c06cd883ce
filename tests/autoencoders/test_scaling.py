"""The affine map to the latents of a flow, and back."""

import pytest
import torch

from flowexp.autoencoders import Factor, PerChannel, Statistics

MEASURED = Statistics(mean=(0.3, -2.0, 5.0), std=(0.1, 4.0, 1.7))
GIVEN = PerChannel(mean=[1.0, 0.0, -3.0], std=[2.0, 0.5, 1.0], multiplier=0.5)


def latents() -> torch.Tensor:
    return 5.0 * torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scaling", [Factor(0.18215, shift=0.1), PerChannel(), GIVEN])
def test_there_and_back(scaling) -> None:
    z = latents()
    y = scaling.scaled(z, MEASURED)
    assert torch.allclose(scaling.unscaled(y, MEASURED), z, rtol=1e-6, atol=2e-6)
    # the width of a posterior scales as the differences of latents do
    moved = scaling.scaled(z + 0.25, MEASURED) - y
    assert torch.allclose(scaling.spread(torch.full_like(z, 0.25), MEASURED), moved, atol=1e-5)


def test_published_constants() -> None:
    z = latents()[:, :1]
    assert torch.allclose(Factor(0.18215).scaled(z, None), 0.18215 * z, rtol=1e-6)
    edm2 = PerChannel(mean=[5.81], std=[4.17], multiplier=0.5)
    assert torch.allclose(edm2.scaled(z, None), (z - 5.81) / 4.17 * 0.5, atol=1e-6)


def test_identity_is_that_of_the_numbers() -> None:
    names = {s.identity() for s in (Factor(0.1), Factor(0.2), PerChannel(), GIVEN)}
    assert len(names) == 4


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="factor"):
        Factor(0.0)
    with pytest.raises(ValueError, match="both"):
        PerChannel(mean=[1.0])
    with pytest.raises(ValueError, match="std"):
        PerChannel(mean=[1.0], std=[0.0])
    with pytest.raises(ValueError, match="multiplier"):
        PerChannel(multiplier=0.0)
    with pytest.raises(ValueError, match="measured"):
        PerChannel().scaled(latents(), None)
    with pytest.raises(ValueError, match="channels"):
        GIVEN.scaled(latents()[:, :2], None)
