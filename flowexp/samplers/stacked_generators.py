"""Per-sample generators seeded by the sample's number: the draws of EDM's published scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["StackedGenerators"]


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
