"""The training of a KL autoencoder: reconstruction, and a weak pull of the posterior to N(0, 1)."""

from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.perceptual_regression import (
    PerceptualDistance,
    check_files,
    compared_images,
)
from flowexp.requirements import Parts, Unmet, all_of

__all__ = ["Autoencoding"]


class Reconstructs(Protocol):
    """What the loss needs of a network."""

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents of images."""

    def images(self, z: Tensor) -> Tensor:
        """The images of latents."""


class Autoencoding(Objective):
    """``mean |x - D(z)|^p + kl_weight KL + perceptual_weight d(D(z), x)``, ``z = mean + std n``.

    ``KL = (mean^2 + std^2 - 1 - log std^2) / 2`` is summed over the latent and divided by the
    number of values of the image, so that ``kl_weight`` compares nats with nats of a likelihood of
    unit width. n is drawn from the generator of the step. Source draw and time are not used.

    Args:
        absolute: Whether p = 1; otherwise 2.
        kl_weight: Weight of KL, >= 0; Stable Diffusion's autoencoder has 1e-6 against a sum over
            pixels.
        perceptual: A distance of images, or None.
        perceptual_weight: Its weight, >= 0.

    Raises:
        ValueError: A weight is negative.

    Source: Kingma and Welling, 2013, arXiv 1312.6114; Rombach et al., 2021, arXiv 2112.10752,
    appendix G, without their adversarial term.
    """

    def __init__(
        self,
        *,
        absolute: bool = True,
        kl_weight: float = 1e-6,
        perceptual: PerceptualDistance | None = None,
        perceptual_weight: float = 1.0,
    ) -> None:
        if kl_weight < 0.0:
            raise ValueError(f"kl_weight is {kl_weight}; allowed: numbers >= 0")
        if perceptual_weight < 0.0:
            raise ValueError(f"perceptual_weight is {perceptual_weight}; allowed: numbers >= 0")
        self.absolute = absolute
        self.kl_weight = kl_weight
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """An autoencoder, in full precision, on images as they are."""
        yield from all_of(
            super().needs(parts),
            self._network(parts),
            self._precision(parts),
            compared_images(parts, self.perceptual) if self.perceptual is not None else (),
        )

    def _network(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.network.is_autoencoder:
            problem = "it trains encoder and decoder, which the network does not have."
            yield Unmet("objective", problem, "Use network=kl_autoencoder.")

    def _precision(self, parts: Parts) -> Iterator[Unmet]:
        settings = parts.trainer
        if settings.precision.endswith("-mixed"):
            problem = f"{settings.precision} has no effect on encoder and decoder."
            yield Unmet("trainer.precision", problem, "Use 32-true or tf32.")
        if settings.compile:
            problem = "encoder and decoder are not compiled."
            yield Unmet("trainer.compile", problem, "Set trainer.compile=false.")

    def check(self) -> None:
        if self.perceptual is not None:
            check_files(self.perceptual)

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One pass through encoder and decoder, with the noise of the posterior from ``rng``."""
        network = cast("Reconstructs", getattr(model, "network", None))
        x = pairs.x.to(torch.float32)
        mean, logvar = network.posterior(x)
        n = torch.randn(mean.shape, generator=rng, device=mean.device)
        found = network.images(torch.addcmul(mean, torch.exp(0.5 * logvar), n))
        difference = (found - x).abs() if self.absolute else (found - x).square()
        reconstruction = difference.flatten(1).mean(1)
        nats = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).sum(1)
        kl = nats / x[0].numel()
        total = reconstruction + self.kl_weight * kl
        metrics = {"reconstruction": reconstruction.detach().mean(), "kl": kl.detach().mean()}
        if self.perceptual is not None:
            distance = self.perceptual(found, x)
            total = total + self.perceptual_weight * distance
            metrics["perceptual"] = distance.detach().mean()
        return Loss(total, metrics)
