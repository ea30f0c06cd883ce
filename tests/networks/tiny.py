"""Tiny networks of every kind, and weights without the zeros that training starts from."""

from collections.abc import Callable

import torch
from torch import nn

from flowexp.networks import (
    MLP,
    ARFlow,
    DhariwalUNet,
    DiT,
    EDM2UNet,
    Network,
    SongUNet,
    UNet,
)

LABELS = 3
AUGMENT = 9


def _song(**options: object) -> SongUNet:
    sizes: dict[str, object] = {
        "img_resolution": 28,
        "in_channels": 1,
        "out_channels": 1,
        "model_channels": 8,
        "channel_mult": (1, 2, 2, 2),
        "num_blocks": 1,
        "attn_resolutions": (16,),
        "dropout": 0.0,
        "label_dim": LABELS,
        "augment_dim": AUGMENT,
    }
    return SongUNet(**(sizes | options))


IMAGE = {
    "img_resolution": 28,
    "in_channels": 1,
    "out_channels": 1,
    "label_dim": LABELS,
    "augment_dim": AUGMENT,
}


def _adm(**options: object) -> DhariwalUNet:
    sizes: dict[str, object] = {
        "model_channels": 32,
        "channel_mult": (1, 1, 2, 2),
        "num_blocks": 1,
        "attn_resolutions": (8,),
        "dropout": 0.0,
    }
    return DhariwalUNet(**(IMAGE | sizes | options))


IMAGE_NETWORKS: dict[str, Callable[..., Network]] = {
    "ddpmpp": _song,
    "ncsnpp": lambda **o: _song(
        **{
            "embedding_type": "fourier",
            "encoder_type": "residual",
            "channel_mult_noise": 2,
            "resample_filter": (1, 3, 3, 1),
        }
        | o
    ),
    "song_skip": lambda **o: _song(**{"encoder_type": "skip", "decoder_type": "skip"} | o),
    "adm": lambda **o: _adm(**o),
    "ddpm": lambda **o: _adm(
        **{"adaptive_scale": False, "head_channels": None, "resample_kernel": 3, "ddpm": True} | o
    ),
    "adm_pooled": lambda **o: _adm(**{"head_channels": 16, "resample_kernel": 0} | o),
    "edm2": lambda **o: EDM2UNet(
        **IMAGE
        | {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "channels_per_head": 8}
        | {"attn_resolutions": (14,)}
        | o
    ),
    "unet": lambda **o: UNet(
        **IMAGE
        | {"model_channels": 8, "attn_resolutions": (7,), "head_dim": 8, "head_channels": 4}
        | o
    ),
    "unet_unfolded": lambda **o: UNet(**IMAGE | {"model_channels": 8, "pixel_unshuffle": 1} | o),
    "dit": lambda **o: DiT(
        **IMAGE | {"patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2} | o
    ),
    "arflow": lambda **o: ARFlow(
        **IMAGE
        | {"sequence": 2, "patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2}
        | o
    ),
}
NETWORKS: dict[str, Callable[..., Network]] = IMAGE_NETWORKS | {
    "mlp": lambda **o: MLP(
        **{
            "in_channels": 2,
            "out_channels": 2,
            "label_dim": LABELS,
            "augment_dim": AUGMENT,
            "hidden": 16,
            "depth": 2,
        }
        | o
    )
}


def perturb(network: nn.Module) -> nn.Module:
    """Replace every parameter by noise of its usual size, so that no branch is silent."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in network.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(noise / p[0].numel() ** 0.5)
            else:
                scale = ("norm" in name and "weight" in name) or name.endswith("gain")
                p.copy_(0.1 * noise + (1.0 if scale else 0.0))
    return network


def inputs(network: Network, batch: int = 4, size: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    """Random x and c_noise of the right shape."""
    generator = torch.Generator().manual_seed(3)
    shape = (size, size) if network.img_resolution else ()
    x = torch.randn(batch, network.in_channels, *shape, generator=generator)
    return x, torch.linspace(-1.5, 1.0, batch)
