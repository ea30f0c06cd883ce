"""Every random draw as a function of (seed, stream, index).

Nothing in flowexp keeps random state between steps: a draw asks for the generator of its seed,
its stream (what the draw is for: ``"order"``, ``"source"``, ``"time"``, ``"latents"`` ...) and its
index (a training step, an epoch, the number of a sample). A run that was killed therefore continues
exactly, and sample ``i`` is the same for every batch size and number of processes.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["SampleNoise", "Noise", "derive_seed", "generator", "open_uniform", "StackedGenerators"]

_HALF_STEP = 2.0**-54


def derive_seed(seed: int, stream: str, *index: int) -> int:
    """A 63-bit seed for one draw: the first 8 bytes of BLAKE2b over seed, stream and index.

    Args:
        seed: The run's seed, or a sample's own seed.
        stream: What the draw is for; streams never share draws.
        index: Step, epoch, rank or sample number; any number of integers.
    """
    text = "/".join([str(int(seed)), stream, *(str(int(i)) for i in index)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(
    seed: int, stream: str, *index: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator for the draw (seed, stream, index); see :func:`derive_seed`.

    CPU and CUDA generators give different numbers.
    """
    return torch.Generator(device=device).manual_seed(derive_seed(seed, stream, *index))


def open_uniform(shape: Sequence[int], *, rng: torch.Generator) -> Tensor:
    """Uniform draws in the open interval (0, 1), float64, on the generator's device.

    ``torch.rand`` includes 0, where quantile functions with infinite support are infinite; the
    draws are moved up by half of their spacing, which keeps their law and excludes both ends.
    """
    u = torch.rand(*shape, dtype=torch.float64, generator=rng, device=rng.device)
    return (u + _HALF_STEP).clamp_(max=1.0 - 2.0**-53)


class Noise(Protocol):
    """Standard normal noise for samplers that inject it: one draw per step."""

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """Noise of step ``step`` with shape, dtype and device of ``like``."""


class SampleNoise:
    """Normal noise that belongs to the samples, not to the batch they happen to be in.

    Row ``j`` at step ``i`` is drawn on the CPU from (``seeds[j]``, ``stream``, ``i``), in float32,
    which is half of what float64 draws cost and rounds them by less than one in ten million.
    """

    def __init__(self, seeds: Sequence[int], *, stream: str = "churn") -> None:
        self.seeds = list(seeds)
        self.stream = stream

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """Noise of step ``step`` with shape, dtype and device of ``like``."""
        if like.shape[0] != len(self.seeds):
            raise ValueError(
                f"like has {like.shape[0]} rows, but there are {len(self.seeds)} seeds"
            )
        drawn = torch.empty(like.shape, dtype=torch.float32)
        for row, seed in zip(drawn.unbind(), self.seeds, strict=True):
            torch.randn(like.shape[1:], generator=generator(seed, self.stream, step), out=row)
        return drawn.to(device=like.device, dtype=like.dtype)


class StackedGenerators:
    """One torch generator per sample, seeded with the sample's own number modulo 2^32.

    The published FIDs of EDM and its descendants use seeds 0-49999, 50000-99999 and 100000-149999
    in this way: latents (float32) first, then the class label, then noise per step (float64). As a
    source of per-step noise it ignores the step's number: call it once per step, in order. CPU and
    CUDA generators give different numbers.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, appendix F.1 and the authors' generate.py.
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.generators = [
            torch.Generator(device=device).manual_seed(int(seed) % 2**32) for seed in seeds
        ]

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normal draws, (B, *shape)."""
        draws = [
            torch.randn(*shape, generator=g, dtype=dtype, device=g.device) for g in self.generators
        ]
        return torch.stack(draws)

    def integers(self, high: int) -> Tensor:
        """Uniform integers in [0, high), (B,), int64."""
        draws = [torch.randint(high, (), generator=g, device=g.device) for g in self.generators]
        return torch.stack(draws)

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """The next normal draws, of the shape, dtype and device of ``like``."""
        if like.shape[0] != len(self.generators):
            raise ValueError(
                f"like has {like.shape[0]} rows, but there are {len(self.generators)} seeds"
            )
        return self.normal(like.shape[1:], dtype=like.dtype).to(like.device)
