"""Real images as an autoencoder gives them back: the floor that it sets for a flow on latents."""

import numpy as np
import torch

from flowexp.autoencoders import LatentAutoencoder
from flowexp.data import ImageArrays, as_data, quantize
from flowexp.pipeline import Pipeline
from flowexp.progress import counted
from flowexp.seeding import generator

__all__ = ["reconstructed"]


def reconstructed(pipeline: Pipeline, real: ImageArrays, *, count: int) -> ImageArrays | None:
    """At most ``count`` real images, as the autoencoder decodes draws from their posteriors.

    None without an autoencoder. The draw of image i is that of (i, "reconstruction").
    """
    autoencoder, size = pipeline.autoencoder, pipeline.batch_size
    if not isinstance(autoencoder, LatentAutoencoder):
        return None
    count = min(count, len(real))
    found = []
    with (
        counted("encoded and decoded", total=count, unit="real images") as task,
        torch.inference_mode(),
    ):
        for first in range(0, count, size):
            levels = torch.from_numpy(np.array(real.images[first : min(first + size, count)]))
            mean, std = autoencoder.encode(as_data(levels.to(pipeline.device)))
            rows = range(first, first + len(levels))
            streams = [generator(i, "reconstruction") for i in rows]
            n = torch.stack([torch.randn(mean.shape[1:], generator=rng) for rng in streams])
            found.append(quantize(autoencoder.decode(mean + std * n.to(mean))).cpu().numpy())
            task.advance(len(levels))
    return ImageArrays.of(
        np.concatenate(found),
        None,
        num_classes=0,
        name=f"{real.name}, decoded",
        notice=real.notice,
    )
