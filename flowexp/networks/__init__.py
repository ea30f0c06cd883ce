"""Networks: raw functions F(x, c_noise, labels, augment_labels) without any preconditioning."""

from flowexp.networks.adm import DhariwalUNet
from flowexp.networks.arflow import ARFlow
from flowexp.networks.base import ImageNetwork, Network, label_vectors
from flowexp.networks.caption import CaptionedNetwork, TextEncoder, WordEncoder
from flowexp.networks.dit import DiT
from flowexp.networks.easycontrol import EasyControl
from flowexp.networks.edm2 import EDM2UNet
from flowexp.networks.mar import MAR
from flowexp.networks.mlp import MLP
from flowexp.networks.songunet import SongUNet
from flowexp.networks.unet import UNet

__all__ = [
    "ARFlow",
    "CaptionedNetwork",
    "MAR",
    "MLP",
    "DiT",
    "DhariwalUNet",
    "EDM2UNet",
    "EasyControl",
    "ImageNetwork",
    "Network",
    "SongUNet",
    "TextEncoder",
    "UNet",
    "WordEncoder",
    "label_vectors",
]
