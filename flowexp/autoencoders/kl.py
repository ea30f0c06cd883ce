"""KL autoencoders: the network of Stable Diffusion's VAE, and a small one of flowexp's own.

The names of parameters are those of diffusers' ``AutoencoderKL``, so that one module reads its
files and our own runs.

Source: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2021,
arXiv 2112.10752; the layout of state dicts from huggingface/diffusers, models/autoencoders.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.autoencoders.base import HIGHEST_LOGVAR, LOWEST_LOGVAR
from flowexp.networks.base import (
    ImageArguments,
    ImageNetwork,
    require_at_least,
)
from flowexp.networks.padding import crop, pad_to_multiple

__all__ = ["KLAutoencoder", "KLCodec"]

_EPS = 1e-6


class ResnetBlock(nn.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))``, with a 1 x 1 shortcut to other channels."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same size, (B, out_channels, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        y: Tensor = h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)
        return y


class AttentionBlock(nn.Module):
    """Self-attention over all pixels with one head, added to its input."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, (B, C, H, W)."""
        rows = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(rows), self.to_k(rows), self.to_v(rows)
        found = F.scaled_dot_product_attention(q, k, v)
        y: Tensor = x + self.to_out[0](found).transpose(1, 2).reshape(x.shape)
        return y


class MidBlock(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them or without."""

    def __init__(self, channels: int, *, groups: int, attention: bool) -> None:
        super().__init__()
        blocks = [ResnetBlock(channels, channels, groups=groups) for _ in range(2)]
        self.resnets = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(
            [AttentionBlock(channels, groups=groups)] if attention else []
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, (B, C, H, W)."""
        x = self.resnets[0](x)
        for attend in self.attentions:
            x = attend(x)
        y: Tensor = self.resnets[1](x)
        return y


class Downsample(nn.Module):
    """Halves height and width with a convolution whose only padding is at the right and bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H / 2, W / 2)."""
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, and then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2 H, 2 W)."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


class Level(nn.Module):
    """The residual blocks of one resolution, and the change to the next, if there is one."""

    def __init__(
        self, channels: Sequence[int], *, groups: int, change: tuple[str, nn.Module] | None
    ) -> None:
        super().__init__()
        blocks = [ResnetBlock(a, b, groups=groups) for a, b in pairwise(channels)]
        self.resnets = nn.ModuleList(blocks)
        if change is not None:
            self.add_module(change[0], nn.ModuleList([change[1]]))
        self._change = None if change is None else change[0]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels[-1], ...)."""
        for block in self.resnets:
            x = block(x)
        if self._change is not None:
            x = getattr(self, self._change)[0](x)
        return x


class Encoder(nn.Module):
    """Images to the parameters of the posterior; arguments as in :class:`KLCodec`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        block_out_channels: Sequence[int],
        layers_per_block: int,
        groups: int,
        attention: bool,
    ) -> None:
        super().__init__()
        widths, last = list(block_out_channels), len(block_out_channels) - 1
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        levels, before = [], widths[0]
        for i, width in enumerate(widths):
            change = ("downsamplers", Downsample(width)) if i < last else None
            channels = [before, *[width] * layers_per_block]
            levels.append(Level(channels, groups=groups, change=change))
            before = width
        self.down_blocks = nn.ModuleList(levels)
        self.mid_block = MidBlock(before, groups=groups, attention=attention)
        self.conv_norm_out = nn.GroupNorm(groups, before, eps=_EPS)
        self.conv_out = nn.Conv2d(before, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out_channels, h, w) of images (B, in_channels, H, W)."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.mid_block(x)
        y: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return y


class Decoder(nn.Module):
    """Latents to images, one residual block more per level; arguments as in :class:`KLCodec`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        block_out_channels: Sequence[int],
        layers_per_block: int,
        groups: int,
        attention: bool,
    ) -> None:
        super().__init__()
        widths, last = list(reversed(block_out_channels)), len(block_out_channels) - 1
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups=groups, attention=attention)
        levels, before = [], widths[0]
        for i, width in enumerate(widths):
            change = ("upsamplers", Upsample(width)) if i < last else None
            channels = [before, *[width] * (layers_per_block + 1)]
            levels.append(Level(channels, groups=groups, change=change))
            before = width
        self.up_blocks = nn.ModuleList(levels)
        self.conv_norm_out = nn.GroupNorm(groups, before, eps=_EPS)
        self.conv_out = nn.Conv2d(before, out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, out_channels, H, W) of latents (B, in_channels, h, w)."""
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        y: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return y


class KLCodec(nn.Module):
    """Encoder, posterior and decoder; each level but the last halves height and width.

    Args:
        in_channels: Channels of the images.
        out_channels: Channels of the decoded images.
        latent_channels: Channels of the latents.
        block_out_channels: Channels of each level, the highest resolution first; multiples of
            ``norm_num_groups``.
        layers_per_block: Residual blocks of a level of the encoder; the decoder has one more.
        norm_num_groups: Groups of the group normalisations.
        mid_block_add_attention: Whether there is attention at the lowest resolution.
        use_quant_conv: Whether a 1 x 1 convolution follows the encoder.
        use_post_quant_conv: Whether one precedes the decoder.

    Attributes:
        factor: Pixels of an image along one side of a pixel of its latent.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        block_out_channels: Sequence[int] = (64,),
        layers_per_block: int = 1,
        norm_num_groups: int = 32,
        mid_block_add_attention: bool = True,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
    ) -> None:
        super().__init__()
        shape = {
            "block_out_channels": block_out_channels,
            "layers_per_block": layers_per_block,
            "groups": norm_num_groups,
            "attention": mid_block_add_attention,
        }
        moments = 2 * latent_channels
        self.encoder = Encoder(in_channels, moments, **shape)  # type: ignore[arg-type]
        self.decoder = Decoder(latent_channels, out_channels, **shape)  # type: ignore[arg-type]
        if use_quant_conv:
            self.quant_conv = nn.Conv2d(moments, moments, 1)
        if use_post_quant_conv:
            self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.factor = 2 ** (len(block_out_channels) - 1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and clamped log-variance of the posterior, each (B, latent_channels, h, w)."""
        moments = self.encoder(images)
        if hasattr(self, "quant_conv"):
            moments = self.quant_conv(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(LOWEST_LOGVAR, HIGHEST_LOGVAR)

    def decode(self, z: Tensor) -> Tensor:
        """Images, (B, out_channels, H, W)."""
        if hasattr(self, "post_quant_conv"):
            z = self.post_quant_conv(z)
        images: Tensor = self.decoder(z)
        return images


class KLAutoencoder(ImageNetwork):
    """A KL autoencoder as a network: ``F(x) = decode(mean of encode(x))``, whatever the time.

    It is trained by ``objective=autoencoding``, which calls encoder and decoder apart, and used by
    ``autoencoder=RUN``. Arguments not listed here are those of :class:`ImageNetwork` and
    :class:`KLCodec`.

    Args:
        latent_channels: Channels of the latents, >= 1.
        block_out_channels: Channels of each level; each but the last halves height and width.
        layers_per_block: Residual blocks of a level, >= 1.
        norm_num_groups: Groups of the group normalisations.
        attention: Whether there is attention at the lowest resolution.

    Raises:
        ValueError: An argument is out of range.
    """

    is_autoencoder = True
    takes_scalars = False

    def __init__(
        self,
        *,
        latent_channels: int = 4,
        block_out_channels: Sequence[int] = (16, 32, 64),
        layers_per_block: int = 1,
        norm_num_groups: int = 8,
        attention: bool = False,
        **image: Unpack[ImageArguments],
    ) -> None:
        require_at_least(1, latent_channels=latent_channels, layers_per_block=layers_per_block)
        if not block_out_channels or any(c % norm_num_groups for c in block_out_channels):
            raise ValueError(
                f"block_out_channels is {list(block_out_channels)}; allowed: multiples of "
                f"norm_num_groups={norm_num_groups}"
            )
        super().__init__(min_multiple=2 ** (len(block_out_channels) - 1), **image)
        self.latent_channels = latent_channels
        self.codec = KLCodec(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            latent_channels=latent_channels,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=attention,
        )

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        return self.codec.decode(self.codec.encode(x)[0])

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of images of the size that it was built for, each (B, C, h, w)."""
        return self.codec.encode(pad_to_multiple(x, multiple=self.min_multiple)[0])

    def images(self, z: Tensor) -> Tensor:
        """The images of latents, cropped to the size that it was built for."""
        missing = self.padded_resolution - self.img_resolution
        before = missing // 2
        border = (before, missing - before, before, missing - before)
        return crop(self.codec.decode(z), border=border)
