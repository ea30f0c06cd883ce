"""The network of KL autoencoders, and the loss that trains it."""

import math

import pytest
import torch

from flowexp.autoencoders.kl import KLAutoencoder, KLCodec
from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.objectives import Autoencoding
from flowexp.parameterizations import DataPrediction
from flowexp.paths import Linear, Path
from flowexp.samplers import Reconstruct
from flowexp.seeding import generator
from flowexp.tasks import Reconstruction
from tests.training.tiny import Tiles


def network(side: int = 10) -> KLAutoencoder:
    torch.manual_seed(0)
    return KLAutoencoder(
        img_resolution=side,
        in_channels=1,
        out_channels=1,
        latent_channels=2,
        block_out_channels=[4, 4, 8],
        norm_num_groups=2,
        attention=True,
    )


def model(side: int = 10) -> FlowModel:
    rule = DataPrediction(time_scale=1.0, min_sigma=1e-3)
    return FlowModel(Path(Linear()), network=network(side), parameterization=rule)


def images(side: int = 10, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_sizes_that_do_not_fit_are_padded_and_cropped() -> None:
    ours, x = network(), images()
    mean, logvar = ours.posterior(x)
    assert mean.shape == logvar.shape == (3, 2, 3, 3)
    assert ours.images(mean).shape == x.shape
    assert torch.allclose(ours(x, torch.zeros(3)), ours.images(mean), atol=1e-6)


def test_the_log_variance_is_clamped() -> None:
    codec = KLCodec(block_out_channels=[4], norm_num_groups=2, latent_channels=1)
    with torch.no_grad():
        codec.quant_conv.bias.copy_(torch.tensor([0.0, 1e4]))
    assert codec.encode(torch.zeros(1, 3, 4, 4))[1].max() == 20.0
    with torch.no_grad():
        codec.quant_conv.bias.copy_(torch.tensor([0.0, -1e4]))
    assert codec.encode(torch.zeros(1, 3, 4, 4))[1].min() == -30.0


@pytest.mark.parametrize("absolute", [True, False])
def test_the_loss_is_what_its_formula_says(absolute: bool) -> None:
    made, x = model(), images()
    pairs = Pairs(x, torch.zeros_like(x), {})
    loss = Autoencoding(absolute=absolute, kl_weight=0.5)
    found = loss.loss(made, pairs, torch.zeros(3), rng=generator(0, "objective"))
    mean, logvar = made.network.posterior(x)
    n = torch.randn(mean.shape, generator=generator(0, "objective"))
    difference = made.network.images(mean + logvar.mul(0.5).exp() * n) - x
    error = difference.abs() if absolute else difference.square()
    std = torch.distributions.Normal(mean, logvar.mul(0.5).exp())
    nats = torch.distributions.kl_divergence(std, torch.distributions.Normal(0.0, 1.0))
    expected = error.mean((1, 2, 3)) + 0.5 * nats.sum((1, 2, 3)) / 100
    assert torch.allclose(found.per_sample, expected, rtol=1e-5)
    mean_nats = float(nats.detach().sum((1, 2, 3)).mean())
    assert math.isclose(float(found.metrics["kl"]), mean_nats / 100, rel_tol=1e-5)
    assert found.per_sample.requires_grad


def test_weights_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="kl_weight"):
        Autoencoding(kl_weight=-1.0)
    with pytest.raises(ValueError, match="perceptual_weight"):
        Autoencoding(perceptual_weight=-1.0)
    with pytest.raises(ValueError, match="norm_num_groups"):
        KLAutoencoder(img_resolution=4, in_channels=1, out_channels=1, block_out_channels=[3])


def test_reconstruction_gives_the_image_of_a_seed_back() -> None:
    task = Reconstruction(dataset=Tiles(), split="train")
    stored = torch.from_numpy(Tiles().train().images)
    targets = task.targets([5, 64 + 5, 1])
    assert torch.equal(targets, stored[[5, 5, 1]])
    conditions = task.conditions([5, 64 + 5, 1])
    assert torch.allclose(conditions["image"], targets.float() / 127.5 - 1.0)
    made = model(side=4).network.eval()
    whole = model(side=4)
    found = Reconstruct().sample(whole, torch.zeros(3, 1, 4, 4), **conditions)
    assert torch.allclose(found.x, made(conditions["image"], torch.zeros(3)), atol=1e-5)
    assert found.nfe.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="task=reconstruction"):
        Reconstruct().sample(whole, torch.zeros(3, 1, 4, 4))
