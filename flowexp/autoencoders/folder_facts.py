"""What an autoencoder's folder tells without its weights: ``${derived:...}`` values of configs.

The folder is a run directory of ours, with ``config.yaml``, or a VAE in the layout of the diffusers
library, with ``config.json``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowexp.config.run_folders import is_run
from flowexp.config.sources import CONFIG
from flowexp.config.stored import read_stored
from flowexp.data.locations import data_dir
from flowexp.errors import UsageError
from flowexp.files import expanded

__all__ = ["CONFIG_JSON", "channels", "factor", "located", "read_json", "resolution"]

CONFIG_JSON = "config.json"
_KEY = "autoencoder"
_KL = "KLAutoencoder"


def channels(folder: str) -> int:
    """Channels of the latents.

    Raises:
        UsageError: There is no such folder, or it holds no autoencoder.
    """
    return int(_facts(folder).get("latent_channels", 4))


def factor(folder: str) -> int:
    """Pixels of an image along one side of a pixel of its latent; raises as :func:`channels`."""
    levels = _facts(folder).get("block_out_channels", [64])
    return int(2 ** (len(levels) - 1))


def resolution(folder: str, of_images: int) -> int:
    """Height and width of the latents of images of a size; raises as :func:`channels`."""
    return -(-int(of_images) // factor(folder))


def located(folder: str) -> Path:
    """The folder by its name, in the working directory or in ``$FLOWEXP_DATA``.

    Raises:
        UsageError: It is in neither.
    """
    path, own = expanded(folder), data_dir()
    if not path.is_dir() and own is not None:
        path = own / path
    if not path.is_dir():
        raise UsageError(
            f"there is no folder {folder}.",
            key=_KEY,
            remedy="Name a run of experiment=.../autoencoder, or a folder with a VAE in diffusers' "
            "layout; if it was moved, its new place with autoencoder.folder=PATH.",
        )
    return path


def _facts(folder: str) -> Mapping[str, Any]:
    path = located(folder)
    if is_run(path):
        network = read_stored(path / CONFIG, key=_KEY).get("network")
        target = network.get("_target_") if isinstance(network, Mapping) else None
        if not isinstance(network, Mapping) or not str(target).endswith(f".{_KL}"):
            raise UsageError(
                f"{folder} is a run of {str(target).rpartition('.')[2]}, which is no autoencoder.",
                key=_KEY,
                remedy="Train one with experiment=fashion10k/autoencoder, or name another run.",
            )
        return network
    return read_json(path)


def read_json(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a VAE in diffusers' layout.

    Raises:
        UsageError: There is none, or it is that of another model.
    """
    file = folder / CONFIG_JSON
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{folder} is neither a run directory nor a VAE in diffusers' layout: it holds no "
            f"{CONFIG} and no {CONFIG_JSON}.",
            key=_KEY,
            remedy="Name the folder that holds one of them; in a diffusers pipeline it is vae/.",
        ) from error
    except ValueError as error:
        raise UsageError(f"{file} cannot be read: {error}.", key=_KEY) from error
    kind = content.get("_class_name") if isinstance(content, dict) else None
    if kind != "AutoencoderKL":
        raise UsageError(
            f"{file} describes {kind or 'no class'}, not AutoencoderKL.",
            key=_KEY,
            remedy="In the folder of a diffusers pipeline, the VAE is vae/.",
        )
    return dict(content)
