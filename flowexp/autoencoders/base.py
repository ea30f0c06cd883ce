"""The protocol of autoencoders, and the one that leaves the data as they are."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from flowexp.autoencoders.scaling import Scaling, Statistics
from flowexp.networks.padding import crop, pad_to_multiple
from flowexp.parameterizations import Conditions
from flowexp.requirements import Part, Parts, Unmet
from flowexp.seeding import Noise

if TYPE_CHECKING:
    from flowexp.data import Dataset
    from flowexp.tasks import Task

__all__ = ["Autoencoder", "Codec", "LatentAutoencoder", "Pixels"]

LOWEST_LOGVAR, HIGHEST_LOGVAR = -30.0, 20.0
"""The range to which the log-variance of a posterior is clamped, as in the code of latent
diffusion."""
_SHOWN_DIGITS = 12


class Codec(Protocol):
    """An encoder and a decoder as they come, without scaling."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and clamped log-variance of the posterior, each (B, C, h, w)."""

    def decode(self, z: Tensor) -> Tensor:
        """Images, (B, channels, H, W)."""


class Autoencoder(Part, ABC):
    """The space that a flow is learned in, and the way from images to it and back.

    Attributes:
        channels: Channels of that space; of points, their coordinates.
        resolution: Height and width there; 1 or None for points.
        encodes: Whether it is another space than that of the data.
        sample_posterior: Whether training draws from the posterior instead of taking its mean.
        device: Where data are encoded.
    """

    channels: int | None
    resolution: int | None
    encodes: bool = True
    sample_posterior: bool = False
    device: torch.device | str = "cpu"

    def locate(self) -> None:
        """Check cheaply that it is there; raises ``UsageError`` with the remedy."""
        return

    @abstractmethod
    def shape(self, of_data: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a sample of the flow, from that of the data."""

    @abstractmethod
    def decode(self, y: Tensor) -> Tensor:
        """Samples of the flow as images, (B, C, H, W), about [-1, 1], on the device of ``y``."""

    @abstractmethod
    def data(self, dataset: "Dataset") -> "Dataset":
        """The data set that the flow is trained on."""

    def conditions(self, given: Conditions, *, task: "Task", noise: Noise) -> Conditions:
        """What the network is conditioned on, from the conditions that a task makes of images.

        ``noise(k, mean)`` is that of the k-th encoded one.
        """
        return given

    @abstractmethod
    def identity(self) -> str | None:
        """What latents and samples depend on: weights and scaling; None for none."""

    def describe(self) -> str | None:
        """The identity, short, as protocols of scores state it."""
        return self.identity()


class Pixels(Autoencoder):
    """No autoencoder: the flow is learned on the data, images or points.

    Args:
        channels: Those of the data; None = not stated.
        resolution: Height and width of the data; None = not stated, or points.
    """

    encodes = False

    def __init__(self, *, channels: int | None = None, resolution: int | None = None) -> None:
        self.channels = channels
        self.resolution = resolution

    def shape(self, of_data: tuple[int, ...]) -> tuple[int, ...]:
        return of_data

    def decode(self, y: Tensor) -> Tensor:
        return y

    def data(self, dataset: "Dataset") -> "Dataset":
        return dataset

    def identity(self) -> str | None:
        return None


class LatentAutoencoder(Autoencoder):
    """A KL autoencoder: a posterior over latents for every image, and a decoder.

    ``y = scaling(mean + std n)`` is what the flow learns, ``decode(y)`` what is looked at. Images
    whose size is no multiple of the encoder's factor are padded with zeros (grey), as evenly as
    possible, and decoded images are cropped again. Codec and latents are computed in float32.

    Args:
        channels: Channels of the latents.
        resolution: Height and width of the latents.
        image_channels: Channels of the images.
        image_resolution: Height and width of the images.
        scaling: From the encoder's latents to those of the flow.
        sample_posterior: Draw from the posterior for every image and step of a training, as the
            published recipes do; otherwise its mean is taken.
        unit_range: Whether encoder and decoder take images in [0, 1], not [-1, 1].
        batch_size: Images per call of encoder and decoder; latents do not depend on it.

    Raises:
        ValueError: batch_size < 1.
    """

    channels: int
    resolution: int

    def __init__(
        self,
        *,
        channels: int,
        resolution: int,
        image_channels: int,
        image_resolution: int,
        scaling: Scaling,
        sample_posterior: bool = True,
        unit_range: bool = False,
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; allowed: integers >= 1")
        self.channels = channels
        self.resolution = resolution
        self.image_channels = image_channels
        self.image_resolution = image_resolution
        self.scaling = scaling
        self.sample_posterior = sample_posterior
        self.unit_range = unit_range
        self.batch_size = batch_size
        self.statistics: Statistics | None = None
        self._data: Dataset | None = None

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images of the size and channels that it was told, and constants for its channels."""
        for name in ("channels", "resolution"):
            there, told = getattr(parts.dataset, name), getattr(self, f"image_{name}")
            if there != told:
                problem = f"{told} does not fit the data, whose {name} is {there}."
                yield Unmet(f".image_{name}", problem, "Leave it out.")
        constants = self.scaling.channels
        if constants is not None and constants != self.channels:
            problem = f"it has constants for {constants} channels, but there are {self.channels}."
            remedy = "Use autoencoder/scaling=measured, or another autoencoder."
            yield Unmet(".scaling", problem, remedy)

    @abstractmethod
    def codec(self, device: torch.device) -> Codec:
        """Encoder and decoder on a device, loaded when they are first needed."""

    @abstractmethod
    def weights_identity(self) -> str:
        """sha256 of the weights, and which they are."""

    @property
    def factor(self) -> int:
        """Pixels of an image along one side of a pixel of its latent."""
        return -(-self.image_resolution // self.resolution)

    def shape(self, of_data: tuple[int, ...]) -> tuple[int, ...]:
        return (self.channels, self.resolution, self.resolution)

    def encoder_identity(self) -> str:
        """What moments depend on besides the images: they are cached under it."""
        what = "[0, 1]" if self.unit_range else "[-1, 1]"
        return f"{self.weights_identity()}, images in {what}"

    def identity(self) -> str:
        return f"{self.encoder_identity()}, {self.scaling.identity()}"

    def describe(self) -> str:
        digest = self.weights_identity().rpartition("sha256 ")[2][:_SHOWN_DIGITS]
        return f"autoencoder {digest}, {self.scaling.identity()}"

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the encoder's latents of images (B, C, H, W) in [-1, 1]."""
        x = (images + 1.0) / 2.0 if self.unit_range else images
        padded, _ = pad_to_multiple(x, multiple=self.factor)
        return self.codec(images.device).encode(padded)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the flow's latents, each (B, *shape)."""
        mean, logvar = self.moments(images)
        return (
            self.scaling.scaled(mean, self.statistics),
            self.scaling.spread(torch.exp(0.5 * logvar), self.statistics),
        )

    def decode(self, y: Tensor) -> Tensor:
        """Images of the flow's latents, in batches; what is not finite stays so."""
        codec = self.codec(y.device)
        parts = [self._decoded(codec, part) for part in torch.split(y.float(), self.batch_size)]
        return torch.cat(parts)

    def _decoded(self, codec: Codec, y: Tensor) -> Tensor:
        x = codec.decode(self.scaling.unscaled(y, self.statistics))
        missing = x.shape[-1] - self.image_resolution
        before = missing // 2
        x = crop(x, border=(before, missing - before, before, missing - before))
        return 2.0 * x - 1.0 if self.unit_range else x

    @torch.no_grad()
    def conditions(self, given: Conditions, *, task: "Task", noise: Noise) -> Conditions:
        """Images as their latents, drawn as in training; the others padded like images, by "none".

        So a mask or a map keeps its place in the latents.
        """
        found = dict(given)
        for number, name in enumerate(task.gives_encoded):
            if (image := given.get(name)) is not None:
                mean, std = self.encode(image)
                found[name] = mean + std * noise(number, mean) if self.sample_posterior else mean
        for name in set(task.gives) - set(task.gives_encoded):
            value = given.get(name)
            if value is not None and value.shape[-1] == self.image_resolution:
                none = 0.0 if value.is_floating_point() else -1
                found[name], _ = pad_to_multiple(value, multiple=self.factor, value=none)
        return found

    def data(self, dataset: "Dataset") -> "Dataset":
        """The latents of a data set; asking again gives the same object."""
        from flowexp.autoencoders.encoded import EncodedDataset

        if self._data is None:
            self._data = EncodedDataset(dataset, autoencoder=self)
        return self._data


def frozen(module: nn.Module) -> nn.Module:
    """A module for evaluation, in float32, without trainable parameters."""
    return module.float().eval().requires_grad_(False)
