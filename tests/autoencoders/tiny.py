"""An autoencoder with random weights, in memory."""

import torch

from flowexp.autoencoders import LatentAutoencoder, PerChannel
from flowexp.autoencoders.base import Codec
from flowexp.autoencoders.kl import KLCodec
from flowexp.tree import digest


class Random(LatentAutoencoder):
    """A :class:`KLCodec` that halves the size, with the initial weights of a seed."""

    def __init__(self, *, side: int = 4, seed: int = 0, **options) -> None:
        super().__init__(
            channels=2,
            resolution=-(-side // 2),
            image_channels=1,
            image_resolution=side,
            scaling=options.pop("scaling", PerChannel(multiplier=0.5)),
            batch_size=options.pop("batch_size", 16),
            **options,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.made = KLCodec(
                in_channels=1,
                out_channels=1,
                latent_channels=2,
                block_out_channels=[4, 8],
                norm_num_groups=2,
                mid_block_add_attention=False,
            ).eval()

    def codec(self, device: torch.device) -> Codec:
        return self.made

    def weights_identity(self) -> str:
        weights = {n: p.tolist() for n, p in self.made.state_dict().items()}
        return f"random, sha256 {digest(weights)}"
