"""An autoencoder as a sampler: it gives the condition ``image`` back."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.requirements import ModelFacts, Parts, Unmet, all_of
from flowexp.samplers.base import CountedModel, Sampler, Samples, StepObserver
from flowexp.seeding import Noise

__all__ = ["Reconstruct"]


class Reconstruct(Sampler):
    """``x = D(image)``: the data prediction of the model at its earliest time; one evaluation.

    For a :class:`flowexp.autoencoders.kl.KLAutoencoder` with ``parameterization=data`` that is
    ``decode(mean of encode(image))``, since its network ignores the time.
    """

    reconstructs = True

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """An autoencoder, and an image to show it."""
        yield from all_of(self._network(parts), self._image(parts))

    def _network(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.network.is_autoencoder:
            problem = "it gives back the image that an autoencoder is shown; the network is none."
            yield Unmet("sampler", problem, "Use network=kl_autoencoder, or another sampler.")

    def _image(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.task.gives_image:
            problem = f"there is no image to give back in {type(parts.task).__name__}."
            yield Unmet("sampler", problem, "Use task=reconstruction.")

    def fits(self, model: ModelFacts) -> Iterator[Unmet]:
        yield from ()

    def sample(
        self,
        model: Model,
        e: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        image = conditions.pop("image", None)
        if image is None:
            raise ValueError("there is no image to reconstruct; take task=reconstruction")
        counted = CountedModel(model)
        t = torch.tensor(model.time_range[0], dtype=torch.float64, device=e.device)
        x = counted.denoise(image.to(e.dtype), t, **conditions)
        if on_step is not None:
            on_step(t, x)
        return Samples(x, torch.full((len(e),), counted.evaluations, dtype=torch.int64))

    def describe(self) -> str:
        return "reconstruction"
