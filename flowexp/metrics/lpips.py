"""LPIPS: features of a classification network compared with learned weights per channel.

    d(a, b) = sum_l mean_{h, w} sum_c w_lc (f_lc(a) - f_lc(b))^2,   f unit long over channels

with f the ReLU outputs before each pooling (VGG16) or after each convolution (AlexNet) of images
normalised by ImageNet's mean and deviation. The backbone's weights are a file of torchvision's; the
learned weights come with torchmetrics.

Source: Zhang et al. 2018, arXiv 1801.03924, eq. 1 (version 0.1 of the authors' linear weights). The
authors' code divides by |f| + 1e-10, whose gradient is not finite where all channels are dead; we
follow torchmetrics and divide by sqrt(|f|^2 + 1e-8).

The values are those of torchmetrics, which is not used because its LPIPS downloads its backbone,
takes no local file, and has neither average pooling nor a resize.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.files import file_sha256, packaged
from flowexp.metrics.perceptual import FeatureDistance, unit_vectors
from flowexp.metrics.pretrained import IMAGENET_DEVIATION, IMAGENET_MEAN
from flowexp.metrics.weight_files import fill, found_file, read_state

_PREFIX = "features."


class _Backbone(NamedTuple):
    """What LPIPS takes of a torchvision network: its file, and where each compared layer ends."""

    name: str
    file: str
    ends: tuple[int, ...]
    smallest: int
    constructor: str


_BACKBONES = {
    "vgg": _Backbone("VGG16", "vgg16-397923af.pth", (4, 9, 16, 23, 30), 16, "vgg16"),
    "alex": _Backbone("AlexNet", "alexnet-owt-7be5be79.pth", (2, 5, 8, 10, 12), 31, "alexnet"),
}


class LPIPS(FeatureDistance):
    """Learned perceptual distance, as metric and as loss.

    Rectified flow++'s loss is ``net="vgg", replace_pooling=True, resize=224``: images enlarged to
    224 and then mapped by v / 2 + 1 / 2 before ImageNet's normalisation, which is the same affine
    map as applied here to [-1, 1] directly.

    Args:
        weights: torchvision's state dict of the backbone (``vgg16-397923af.pth``,
            ``alexnet-owt-7be5be79.pth``) or its directory; None looks in ``$FLOWEXP_WEIGHTS`` and
            torch's hub folders.
        heads: Learned weights per channel (keys ``lin0.model.1.weight`` ...); None takes
            torchmetrics'.
        net: Backbone, ``vgg`` or ``alex``.
        replace_pooling: Whether average pooling takes the place of max pooling.

    Raises:
        ValueError: If ``net`` or ``resize`` is impossible.

    Source: pooling and size of Lee et al. 2024, arXiv 2405.20320.
    """

    def __init__(
        self,
        *,
        weights: Path | str | None = None,
        heads: Path | str | None = None,
        net: Literal["vgg", "alex"] = "vgg",
        replace_pooling: bool = False,
        resize: int | None = None,
    ) -> None:
        if net not in _BACKBONES:
            raise ValueError(f"net must be one of {sorted(_BACKBONES)}, got {net!r}")
        self._backbone = _BACKBONES[net]
        self.smallest = self._backbone.smallest
        super().__init__(resize=resize)
        self.net = net
        self.weights = weights
        self.heads = heads
        self.replace_pooling = replace_pooling
        self.metric = f"LPIPS ({self._backbone.name})"

    @property
    def features_name(self) -> str:
        """Backbone, pooling, and which files are not the published ones, as far as they exist."""
        name = self._backbone.name + (", average pooling" if self.replace_pooling else "")
        try:
            digest = file_sha256(self._found_weights())[:8]
            name += "" if self._backbone.file.endswith(f"-{digest}.pth") else ", other weights"
        except UsageError:
            pass  # without the file there is nothing to say of it
        return name if self.heads is None else f"{name}, other heads"

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the backbone's file, a plus, and that of the learned weights."""
        return f"{file_sha256(self._found_weights())}+{file_sha256(self._heads_file())}"

    def check(self) -> None:
        self._found_weights()
        self._heads_file()

    def build(self) -> nn.Module:
        import torchvision

        file, heads = self._found_weights(), self._heads_file()
        construct: Callable[..., Any] = getattr(torchvision.models, self._backbone.constructor)
        with torch.device("meta"):
            layers: nn.Sequential = construct(weights=None).features
        stored = read_state(file, key="weights")
        state = {k.removeprefix(_PREFIX): v for k, v in stored.items() if k.startswith(_PREFIX)}
        fill(layers, state, file=file, key="weights")
        if self.replace_pooling:
            layers = nn.Sequential(*(_averaging(layer) for layer in layers))
        slices = [layers[i:j] for i, j in itertools.pairwise((0, *self._backbone.ends))]
        return _Compared(slices, _head_weights(heads, count=len(slices)))

    def compare(self, network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        distance: Tensor = network(a, b)
        return distance

    def _found_weights(self) -> Path:
        return found_file(
            self._backbone.file,
            given=self.weights,
            what=self._backbone.name,
            key="weights",
            remedy=f"Get {self._backbone.file} from torchvision's download site and put it there, "
            "or use the EfficientNet-Lite0 distance, which needs no file.",
        )

    def _heads_file(self) -> Path:
        return found_file(
            f"{self.net}.pth",
            given=self.heads or packaged("torchmetrics", "functional/image/lpips_models"),
            what="LPIPS",
            key="heads",
            remedy="Install torchmetrics, which ships them, or give a local copy.",
        )


class _Compared(nn.Module):
    """Both images through the backbone, compared at the end of each slice."""

    shift: Tensor
    scale: Tensor

    def __init__(self, slices: list[nn.Sequential], heads: list[Tensor]) -> None:
        super().__init__()
        self.slices = nn.ModuleList(slices)
        for i, head in enumerate(heads):
            self.register_buffer(f"head{i}", head)
        mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_DEVIATION)
        self.register_buffer("shift", (2 * mean - 1)[:, None, None])
        self.register_buffer("scale", (2 * deviation)[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = (a - self.shift) / self.scale, (b - self.shift) / self.scale
        total = torch.zeros(len(a), device=a.device)
        for i, part in enumerate(self.slices):
            x, y = part(x), part(y)
            head = self.get_buffer(f"head{i}")
            weighted = head * (unit_vectors(x) - unit_vectors(y)).square()
            total = total + weighted.sum(1).mean((1, 2))
        return total


def _averaging(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.MaxPool2d):
        return layer
    return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)


def _head_weights(file: Path, *, count: int) -> list[Tensor]:
    stored = read_state(file, key="heads")
    names = [f"lin{i}.model.1.weight" for i in range(count)]
    missing = [name for name in names if name not in stored]
    if missing:
        raise UsageError(
            f"{file} has no {missing[0]}.",
            key="heads",
            remedy="Give the learned linear weights of LPIPS 0.1 for this backbone.",
        )
    return [stored[name].float().reshape(-1, 1, 1) for name in names]
