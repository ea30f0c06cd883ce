"""Images from the images that are stored with them: restoration and translation by conditioning."""

from torch import Tensor

from flowexp.data import DataBatch
from flowexp.tasks.held_out import TowardsImages

__all__ = ["PairedImage"]


class PairedImage(TowardsImages):
    """The partner of each image as the condition ``image``, (B, C, h, w) in [-1, 1].

    A partner is what the data store with an image: a degraded version, a picture of another kind.
    The samples start from noise, whatever the partner, and are compared with the image.

    Source: Saharia et al., Palette, 2021, arXiv 2111.05826, section 3: the network is given the
    source image by concatenation.
    """

    given_names = ("image",)
    of_partners = True

    def made_of(
        self, batch: DataBatch, x: Tensor, uniforms: Tensor, *, split: str
    ) -> dict[str, Tensor | None]:
        return {"image": batch.partner}
