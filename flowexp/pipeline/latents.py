"""Latents: a sample's random draws from flowexp's streams, or from the authors' generators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.paths import Source, StudentT
from flowexp.seeding import Noise, SampleNoise, StackedGenerators, generator

__all__ = ["LatentDraws", "FlowexpLatents", "Latents", "ReferenceLatents"]

_SEEDS = 2**32


@dataclass(frozen=True, eq=False)
class LatentDraws:
    """Everything random about some samples: source draws (B, ...), classes (B,), noise per step.

    ``e`` is float32, or float64 where the distribution needs it; ``labels`` are int64, or None to
    leave them to the task.
    """

    e: Tensor
    labels: Tensor | None
    noise: Noise


class Latents(ABC):
    """The rule by which seeds become draws; row ``j`` depends on ``seeds[j]`` only."""

    @abstractmethod
    def draw(
        self,
        seeds: Sequence[int],
        *,
        shape: Sequence[int],
        source: Source,
        num_classes: int = 0,
        device: torch.device | str = "cpu",
    ) -> LatentDraws:
        """The draws of samples of this shape with these seeds; without classes, no labels."""


class FlowexpLatents(Latents):
    """Latents from (seed, "latents") on the CPU: the same on every device; labels from the task."""

    def draw(
        self,
        seeds: Sequence[int],
        *,
        shape: Sequence[int],
        source: Source,
        num_classes: int = 0,
        device: torch.device | str = "cpu",
    ) -> LatentDraws:
        rows = [source.prior((1, *shape), rng=generator(seed, "latents")) for seed in seeds]
        return LatentDraws(torch.cat(rows).to(device), None, SampleNoise(seeds))


class ReferenceLatents(Latents):
    """The draws behind the published scores of EDM and PFGM++, sample by sample.

    One generator per sample, seeded with the sample's number modulo 2^32, gives the latents
    (float32 normal), then the class label, then noise per step. With a Student-t source (PFGM++),
    latents come from a second generator with the same seed: ``b ~ Beta(N/2, D/2)``, then ``g``
    normal, ``e = g/|g| sqrt(b/(1-b)) sqrt(D)``; the label is then the first draw of the first.

    CPU and CUDA generators give different numbers; the published scores are from CUDA.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, appendix F.1, and Xu et al., PFGM++, 2023,
    arXiv 2302.04265, both as in the authors' generate.py.
    """

    def draw(
        self,
        seeds: Sequence[int],
        *,
        shape: Sequence[int],
        source: Source,
        num_classes: int = 0,
        device: torch.device | str = "cpu",
    ) -> LatentDraws:
        """The authors' draws; ``ValueError`` unless the source is Gaussian or Student-t."""
        stacked = StackedGenerators(seeds, device=device)
        if source.is_gaussian:
            e = stacked.normal(shape)
        elif isinstance(source, StudentT):
            e = torch.stack([_student_t(s, shape, D=source.D, device=device) for s in seeds])
        else:
            raise ValueError(
                f"reference latents exist for Gaussian and Student-t sources, not for {source!r}"
            )
        labels = stacked.integers(num_classes) if num_classes else None
        return LatentDraws(e, labels, stacked)


def _student_t(seed: int, shape: Sequence[int], *, D: float, device: torch.device | str) -> Tensor:
    """PFGM++'s prior over its largest scale, (*shape), float64."""
    rng = torch.Generator(device=device).manual_seed(int(seed) % _SEEDS)
    count = torch.Size(shape).numel()
    half = torch.tensor([[count / 2.0, D / 2.0]], device=device)
    # What torch.distributions.Beta draws, which takes no generator.
    b = torch._sample_dirichlet(half, generator=rng)[0, 0].to(torch.float64)
    g = torch.randn(count, generator=rng, device=device).to(torch.float64)
    radius = torch.sqrt(b / (1.0 - b)) * D**0.5
    e: Tensor = g / torch.linalg.vector_norm(g) * radius
    return e.reshape(tuple(shape))
