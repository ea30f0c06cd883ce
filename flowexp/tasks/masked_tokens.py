"""Images of which some tokens are known: the training of masked autoregressive models."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.data import DataBatch
from flowexp.seeding import open_uniform
from flowexp.tasks.base import Generation

__all__ = ["MaskedTokens"]

LEAST, STD = 0.7, 0.25


class MaskedTokens(Generation):
    """Generation by a network that is trained to complete images, token by token.

    In training each image has a share r of unknown tokens, rounded up to whole tokens, which are
    drawn uniformly: ``r = 1 - |n|/4`` with n standard normal, given r >= 0.7. The conditions are
    ``image``, the known tokens among zeros, and ``mask``, (B, 1, H, W), +1 where unknown and -1
    where known. In sampling nothing is known, and neither is given; ``sampler=mar`` adds token to
    token. Of a flow on latents the tokens are those of the latents. Arguments not listed here are
    those of :class:`Generation`.

    Args:
        patch_size: Height and width of a token in pixels, >= 1, a divisor of the images' size.

    Source: Li et al., MAR, 2024, arXiv 2406.11838, and their code (a normal law of mean 1 and
    standard deviation 0.25, truncated to [0.7, 1]; theirs is drawn once per batch).
    """

    gives = ("image", "mask")
    made_of_latents = True

    def __init__(
        self, *, patch_size: int = 4, num_classes: int = 0, label: int | None = None
    ) -> None:
        super().__init__(num_classes=num_classes, label=label)
        if patch_size < 1:
            raise ValueError(f"patch_size is {patch_size}; allowed: integers >= 1")
        self.patch_size = patch_size

    def of_data(
        self,
        batch: DataBatch,
        x: Tensor,
        labels: Tensor | None,
        *,
        rng: torch.Generator,
        rank: int = 0,
        world_size: int = 1,
    ) -> dict[str, Tensor | None]:
        """Besides the labels, ``image`` (B, C, H, W) and ``mask`` (B, 1, H, W).

        Raises:
            ValueError: H or W is no multiple of ``patch_size``.
        """
        size, patch = tuple(x.shape[-2:]), self.patch_size
        if any(side % patch for side in size):
            raise ValueError(f"images of {size} pixels have no tokens of {patch} x {patch}")
        height, width = (side // patch for side in size)
        tokens = height * width
        total, rows = world_size * len(x), slice(rank * len(x), (rank + 1) * len(x))
        unknown = torch.ceil(tokens * self.shares(total, rng=rng))
        turn = torch.rand(total, tokens, generator=rng).argsort(dim=1).argsort(dim=1)
        grid = torch.where(turn < unknown[:, None], 1.0, -1.0)[rows].reshape(-1, 1, height, width)
        mask = F.interpolate(grid, scale_factor=patch, mode="nearest").to(x)
        known = torch.where(mask < 0.0, x, torch.zeros_like(x))
        return {**super().of_data(batch, x, labels, rng=rng), "image": known, "mask": mask}

    def shares(self, count: int, *, rng: torch.Generator) -> Tensor:
        """Shares of unknown tokens, (count,), float64, by the inverse of their distribution."""
        low = torch.special.ndtr(torch.tensor((LEAST - 1.0) / STD, dtype=torch.float64))
        u = open_uniform((count,), rng=rng)
        shares: Tensor = 1.0 + STD * torch.special.ndtri(low + u * (0.5 - low))
        return shares
