"""Conditions of a network that are more than a label: images, masks, semantic maps, sets, frames.

Each becomes channels that are added to the network's input, at the size of the input; c_in does not
scale them. One convention says "none" for all of them, as for labels: zeros where the values are
floats, -1 where they are integers; "none" gives channels of zeros. In training a condition is
replaced by "none" with its own probability, and noise may be added to it; the draws come from
torch's global generator, like those of dropout, which the training loop seeds for every step.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Condition",
    "FrameStack",
    "Image",
    "ImageSet",
    "Mask",
    "SemanticMap",
    "nearest",
    "without_condition",
]

_NONE = -1


def without_condition(value: Tensor) -> Tensor:
    """The value for "none", shaped like ``value``: zeros for floats, -1 for integers."""
    return torch.full_like(value, 0 if value.is_floating_point() else _NONE)


def nearest(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, h, w) resized to ``size`` by nearest neighbours; themselves if they fit."""
    return value if value.shape[-2:] == size else F.interpolate(value, size=size, mode="nearest")


def _resized(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, h, w) resized to ``size`` bilinearly; themselves if they fit."""
    if value.shape[-2:] == size:
        return value
    wide = value.to(torch.float32)
    return F.interpolate(wide, size=size, mode="bilinear", antialias=True)


class Condition(nn.Module, ABC):
    """A condition as ``channels`` further channels of a network's input.

    Args:
        channels: How many channels it adds, >= 1.
        dropout: Probability in [0, 1) with which a row has none in training, as guidance needs.
        noise: Standard deviation, >= 0, of Gaussian noise added in training to images that are
            given, so that the network does not rely on their details (condition augmentation: Ho et
            al., Cascaded Diffusion Models, 2021, arXiv 2106.15282).

    Attributes:
        encoded: Whether a flow on latents is given the latent of the value, which is an image.

    Raises:
        ValueError: An argument is out of range.
    """

    encoded: ClassVar[bool] = False

    def __init__(self, *, channels: int, dropout: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels={channels}; allowed: integers >= 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}; allowed: [0, 1)")
        if not noise >= 0.0:
            raise ValueError(f"noise={noise}; allowed: numbers >= 0")
        self.channels = channels
        self.dropout = dropout
        self.noise = noise

    def forward(self, value: Tensor | None, x: Tensor, *, uniforms: Tensor | None = None) -> Tensor:
        """The channels, (B, channels, H, W), for an input ``x``, (B, C, H, W), in its dtype.

        In training, rows with a uniform number below ``dropout`` have none.

        Args:
            value: (B, ...), or None for "none" everywhere.
            x: Gives size, dtype and device.
            uniforms: Numbers in [0, 1), (B,), which several conditions may share; None = new ones.

        Raises:
            ValueError: ``value`` has a shape or dtype that does not fit.
        """
        if value is None:
            return x.new_zeros(len(x), self.channels, *x.shape[2:])
        if len(value) != len(x):
            name = type(self).__name__
            raise ValueError(f"{name} has {len(value)} rows; allowed: {len(x)}, those of x")
        value = value.to(x.device)
        if self.training:
            value = self._dropped(self._noised(value), uniforms)
        height, width = x.shape[-2:]
        return self.encode(value, (height, width)).to(x.dtype)

    def _noised(self, value: Tensor) -> Tensor:
        """The value with noise on every image in it that is given, that is, not all zeros."""
        if self.noise == 0.0 or not value.is_floating_point():
            return value
        given = value.ne(0).flatten(-3).any(dim=-1)[..., None, None, None]
        return value + self.noise * torch.randn_like(value) * given

    def _dropped(self, value: Tensor, uniforms: Tensor | None) -> Tensor:
        if self.dropout == 0.0:
            return value
        drawn = torch.rand(len(value), device=value.device) if uniforms is None else uniforms
        rows = (drawn < self.dropout).reshape(-1, *([1] * (value.ndim - 1)))
        return torch.where(rows, without_condition(value), value)

    @abstractmethod
    def encode(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        """The channels, (B, channels, *size), of values of which "none" gives zeros."""

    def _refuse(self, value: Tensor, allowed: str) -> ValueError:
        dtype = str(value.dtype).removeprefix("torch.")
        name = type(self).__name__
        return ValueError(f"{name} is {dtype} {tuple(value.shape)}; allowed: {allowed}")


class Image(Condition):
    """An image, (B, channels, h, w), float; resized bilinearly with antialiasing if need be.

    For a flow on latents it is the latent of the image.
    """

    encoded = True

    def encode(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        if value.ndim != 4 or value.shape[1] != self.channels or not value.is_floating_point():
            raise self._refuse(value, f"float (B, {self.channels}, h, w)")
        return _resized(value, size)


class Mask(Condition):
    """A mask, (B, 1, h, w), float: +1 in the hole, -1 outside; nearest neighbours if resized.

    Source: Dao et al., Flow Matching in Latent Space, 2023, arXiv 2307.08698, and their code.
    """

    def __init__(self, *, dropout: float = 0.0, noise: float = 0.0) -> None:
        super().__init__(channels=1, dropout=dropout, noise=noise)

    def encode(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        if value.ndim != 4 or value.shape[1] != 1 or not value.is_floating_point():
            raise self._refuse(value, "float (B, 1, h, w)")
        return nearest(value, size)


class SemanticMap(Condition):
    """A map of classes, (B, h, w), integer: one-hot, halved bilinearly, and a learned projection.

    The one-hot map is halved until it has the size of the input, three times for the latents of an
    autoencoder with factor 8, and a 1 x 1 convolution without bias turns the ``classes`` channels
    into ``channels``. It is learned with the network; the authors' code
    evaluates it without gradients, so that theirs stays as initialized. Pixels of -1 are zeros, and
    so are those of a class that does not exist, where classes are not checked (on an accelerator).

    Args:
        classes: Number of classes, >= 1; values are 0 .. classes - 1, or -1 for "none".

    Source: Dao et al., Flow Matching in Latent Space, 2023, arXiv 2307.08698, SpatialRescaler of
    their code.
    """

    def __init__(self, *, classes: int, channels: int = 4, dropout: float = 0.0) -> None:
        super().__init__(channels=channels, dropout=dropout)
        if classes < 1:
            raise ValueError(f"classes={classes}; allowed: integers >= 1")
        self.classes = classes
        self.project = nn.Conv2d(classes, channels, 1, bias=False)

    def rescaled(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        """The one-hot map, halved until it is no larger: (B, classes, *size), float32."""
        if value.ndim != 3 or value.is_floating_point():
            raise self._refuse(value, "integer (B, h, w)")
        self._check_classes(value)
        classes = torch.arange(self.classes, device=value.device)
        maps = (value[:, None] == classes[:, None, None]).to(torch.float32)
        while maps.shape[-1] > size[-1]:
            maps = F.interpolate(maps, scale_factor=0.5, mode="bilinear")
        return maps

    def _check_classes(self, value: Tensor) -> None:
        """Refuse classes outside -1 .. classes - 1, where reading them is cheap."""
        if value.device.type != "cpu" or torch.compiler.is_compiling():
            return
        if bool(((value < _NONE) | (value >= self.classes)).any()):
            raise ValueError(
                f"SemanticMap has classes {int(value.min())} .. {int(value.max())}; allowed: -1 to "
                f"{self.classes - 1}"
            )

    def encode(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        maps: Tensor = self.project(self.rescaled(value, size).to(self.project.weight.dtype))
        if maps.shape[-2:] != size:
            raise self._refuse(value, f"h, w = {size[0]}, {size[1]} times a power of 2")
        return maps


class FrameStack(Condition):
    """Frames of a clip, (B, frames, C, h, w), float, one after the other in the channels.

    A frame of zeros is none.

    Args:
        frames: Number of frames, >= 1.
        channels: Channels of all frames together, a multiple of ``frames``.
    """

    def __init__(
        self, *, frames: int, channels: int, dropout: float = 0.0, noise: float = 0.0
    ) -> None:
        super().__init__(channels=channels, dropout=dropout, noise=noise)
        if frames < 1 or channels % frames:
            raise ValueError(f"frames={frames}; allowed: divisors of channels={channels}")
        self.frames = frames

    def encode(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        each = self.channels // self.frames
        fits = value.ndim == 5 and value.shape[1:3] == (self.frames, each)
        if not fits or not value.is_floating_point():
            raise self._refuse(value, f"float (B, {self.frames}, {each}, h, w)")
        return _resized(value.flatten(1, 2), size)


class ImageSet(Condition):
    """A set of images, (B, N, C, h, w), float: the mean of a learned encoding, in any order.

    Every image goes through two convolutions without bias with a SiLU in between; an image of
    zeros is not counted, so that sets of different sizes can be filled up.

    Args:
        image_channels: C, >= 1.
    """

    def __init__(
        self, *, image_channels: int, channels: int = 8, dropout: float = 0.0, noise: float = 0.0
    ) -> None:
        super().__init__(channels=channels, dropout=dropout, noise=noise)
        if image_channels < 1:
            raise ValueError(f"image_channels={image_channels}; allowed: integers >= 1")
        self.image_channels = image_channels
        self.enter = nn.Conv2d(image_channels, 4 * channels, 3, padding=1, bias=False)
        self.leave = nn.Conv2d(4 * channels, channels, 3, padding=1, bias=False)

    def encode(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        fits = value.ndim == 5 and value.shape[1] > 0 and value.shape[2] == self.image_channels
        if not fits or not value.is_floating_point():
            raise self._refuse(value, f"float (B, N, {self.image_channels}, h, w)")
        there = (value != 0).flatten(2).any(dim=2)
        images = _resized(value.flatten(0, 1), size).to(self.enter.weight.dtype)
        encoded = self.leave(F.silu(self.enter(images))).unflatten(0, value.shape[:2])
        counted = encoded * there[:, :, None, None, None]
        mean: Tensor = counted.sum(1) / there.sum(1).clamp(min=1)[:, None, None, None]
        return mean
