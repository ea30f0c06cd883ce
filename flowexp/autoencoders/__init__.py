"""Autoencoders: the space in which a flow lives, and the way from it to images and back.

With ``autoencoder=none`` that is the space of the data, :class:`~flowexp.autoencoders.base.Pixels`.
Otherwise a flow is learned on latents, which are encoded once and cached
(:mod:`flowexp.autoencoders.encoded`), and its samples are decoded before anybody sees them.

Names are imported when they are first used: a config check does without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowexp.autoencoders.base import Autoencoder, Codec, LatentAutoencoder, Pixels
    from flowexp.autoencoders.encoded import EncodedDataset
    from flowexp.autoencoders.scaling import Factor, PerChannel, Scaling, Statistics

__all__ = [
    "Autoencoder",
    "Codec",
    "EncodedDataset",
    "Factor",
    "LatentAutoencoder",
    "PerChannel",
    "Pixels",
    "Scaling",
    "Statistics",
]

_HOMES = {
    "Autoencoder": "base",
    "Codec": "base",
    "EncodedDataset": "encoded",
    "Factor": "scaling",
    "LatentAutoencoder": "base",
    "PerChannel": "scaling",
    "Pixels": "base",
    "Scaling": "scaling",
    "Statistics": "scaling",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- a class
    if name not in _HOMES:
        raise AttributeError(f"module 'flowexp.autoencoders' has no attribute {name!r}")
    return getattr(importlib.import_module(f"flowexp.autoencoders.{_HOMES[name]}"), name)
