"""A trained autoencoder as a part of configs: a run of ours, or a VAE in diffusers' layout."""

from pathlib import Path
from typing import Self

import torch

from flowexp.autoencoders import LatentAutoencoder, Scaling
from flowexp.autoencoders.base import Codec, frozen
from flowexp.autoencoders.diffusers_vae import read_vae, weights_file
from flowexp.autoencoders.folder_facts import factor, located
from flowexp.autoencoders.kl import KLAutoencoder, KLCodec
from flowexp.config.run_folders import is_run, require_run
from flowexp.config.trust import Author
from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.runs.assemble import part_of
from flowexp.runs.run_directory import RunDirectory
from flowexp.runs.weights import first_average, load_weights

__all__ = ["FolderAutoencoder"]

_KEY = "autoencoder"


class FolderAutoencoder(LatentAutoencoder):
    """The autoencoder in a folder, whose weights are loaded when they are first needed.

    Nothing in the folder is executed: of a run, the network must be a :class:`KLAutoencoder`.
    Arguments not listed here are those of :class:`LatentAutoencoder`; ``channels`` and
    ``resolution`` must be those of the folder.

    Args:
        folder: A run directory of an autoencoder, or a folder in the layout of diffusers'
            ``AutoencoderKL``.
        weights: Of a run: name of an average, ``raw``, or None for the run's first average.

    Raises:
        ValueError: ``weights`` are named for a folder that is no run.
    """

    def __init__(
        self,
        folder: str,
        *,
        channels: int,
        resolution: int,
        image_channels: int,
        image_resolution: int,
        scaling: Scaling,
        weights: str | None = None,
        sample_posterior: bool = True,
        unit_range: bool = False,
        batch_size: int = 64,
    ) -> None:
        super().__init__(
            channels=channels,
            resolution=resolution,
            image_channels=image_channels,
            image_resolution=image_resolution,
            scaling=scaling,
            sample_posterior=sample_posterior,
            unit_range=unit_range,
            batch_size=batch_size,
        )
        self.folder = folder
        self.weights = weights
        self._codec: KLCodec | None = None
        self._identity: str | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """A frozen autoencoder does not change, and may be large."""
        return self

    def locate(self) -> None:
        path = located(self.folder)
        if is_run(path):
            require_run(path, key=_KEY)
        else:
            weights_file(path)

    @property
    def factor(self) -> int:
        return factor(self.folder)

    def codec(self, device: torch.device) -> Codec:
        if self._codec is None:
            path = located(self.folder)
            self._codec = self._of_run(path) if is_run(path) else read_vae(path)
        return self._codec.to(device)

    def weights_identity(self) -> str:
        if self._identity is None:
            path = located(self.folder)
            if is_run(path):
                run = RunDirectory.open(path, key=_KEY)
                digest = file_sha256(run.checkpoint("last"))
                self._identity = f"KL autoencoder, {self._name(run)}, sha256 {digest}"
            else:
                self._identity = f"diffusers VAE, sha256 {file_sha256(weights_file(path))}"
        return self._identity

    def _name(self, run: RunDirectory) -> str:
        return first_average(run.config()) if self.weights is None else self.weights

    def _of_run(self, path: Path) -> KLCodec:
        """The codec of a run, frozen."""
        run = RunDirectory.open(path, key=_KEY)
        by = Author.of(run.config_file)
        network = part_of(run.config(), "network", by=by, prefix=f"{_KEY}: ")
        if not isinstance(network, KLAutoencoder):
            raise UsageError(
                f"{path} is a run of {type(network).__name__}, which is no autoencoder.",
                key=_KEY,
                remedy="Name a run of experiment=.../autoencoder.",
            )
        load_weights(run, network, weights=self._name(run))
        frozen(network)
        return network.codec
