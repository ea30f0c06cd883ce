"""The protocol of networks: F(x, c_noise, labels, augment_labels, scalars) and conditions by name.

A network is independent of path, kind of prediction and preconditioning. Its inputs are ``x``,
already scaled by c_in, and one number per sample, ``c_noise``, for the noise level of ``x``; the
parameterization defines that number (ln(sigma/alpha)/4, 1000 t, t ...).

Labels follow one convention in the whole package: int64 class indices of shape (B,), where -1 means
"no label", or float vectors of shape (B, label_dim), where zeros mean "no label".
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import (
    ClassVar,
    Protocol,
    Required,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    runtime_checkable,
)

import torch
from torch import Tensor, nn

from flowexp.networks.conditions import Condition, without_condition
from flowexp.networks.embedding import ScalarEmbedding
from flowexp.networks.memory import Memory
from flowexp.networks.padding import crop, pad_to_multiple
from flowexp.requirements import NetworkFacts

__all__ = [
    "BeforeStep",
    "ImageArguments",
    "ImageNetwork",
    "Network",
    "NetworkArguments",
    "crop",
    "facts_of",
    "label_dim_of",
    "label_vectors",
    "pad_to_multiple",
    "require_at_least",
    "with_new_scalars",
    "without_condition",
    "without_labels",
    "zeroed",
]

NO_LABEL = -1
LABELLING = ("labels", "tokens")
"""Names of the conditions that label dropout and guidance remove."""
_RESERVED = ("x", "c_noise", "labels", "augment_labels", "scalars", "tokens", "velocity")
Layer = TypeVar("Layer", bound=nn.Module)


def label_dim_of(network: nn.Module) -> int:
    """``label_dim`` of a network; 0 for a foreign module, which may lack the attribute."""
    return int(getattr(network, "label_dim", 0))


def facts_of(network: nn.Module) -> NetworkFacts:
    """The facts of a network; a foreign module may lack any of the attributes."""
    return NetworkFacts(
        label_dim_of(network),
        int(getattr(network, "augment_dim", 0)),
        bool(getattr(network, "takes_tokens", False)),
        getattr(network, "in_channels", None),
        getattr(network, "out_channels", None),
        getattr(network, "img_resolution", None),
        tuple(getattr(network, "scalars", ())),
        bool(getattr(network, "takes_scalars", hasattr(network, "scalars"))),
        float(getattr(network, "label_dropout", 0.0)),
        getattr(network, "condition_dropout", None),
        int(getattr(network, "sequence", 1)),
        bool(getattr(network, "remembers", False)),
        bool(getattr(network, "draws_tokens", False)),
        bool(getattr(network, "is_autoencoder", False)),
    )


def with_new_scalars(
    network: nn.Module, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A stored state dict, completed for a network that may have new ``scalars``.

    A :class:`ScalarEmbedding` without stored weights keeps those in ``own``, the network's state
    dict; at initialization it contributes nothing.
    """
    completed = dict(state)
    for name, module in network.named_modules():
        inner = f"{name}."
        new = isinstance(module, ScalarEmbedding) and not any(n.startswith(inner) for n in state)
        if new:
            completed |= {n: tensor for n, tensor in own.items() if n.startswith(inner)}
    return completed


def without_labels(
    conditions: Mapping[str, Tensor | None], *, names: Sequence[str] = LABELLING
) -> dict[str, Tensor | None]:
    """The conditions, with labels and captions, or others by ``names``, replaced by "none"."""
    return {
        name: without_condition(value) if value is not None and name in names else value
        for name, value in conditions.items()
    }


def label_vectors(
    labels: Tensor | None, *, label_dim: int, batch: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Labels of either form as vectors (batch, label_dim); "no label" gives zeros.

    Labels are int64 (B,) class indices, which become one-hot rows; float (B, label_dim) vectors; or
    None for "no label" everywhere. A leading dimension of 1 is repeated.

    Raises:
        ValueError: If the shape does not fit, an index lies outside -1 .. label_dim - 1, or labels
            are given although label_dim is 0.
    """
    if labels is None:
        return torch.zeros(batch, label_dim, dtype=dtype, device=device)
    vector = labels.is_floating_point()
    expected = (label_dim,) if vector else ()
    if labels.shape[1:] != expected or labels.ndim == 0 or labels.shape[0] not in (1, batch):
        raise ValueError(
            f"labels has shape {tuple(labels.shape)} and dtype {labels.dtype}; allowed are integer "
            f"({batch},) with -1 for no label, and float ({batch}, {label_dim})"
        )
    if vector:
        return labels.to(device=device, dtype=dtype).expand(batch, label_dim)
    _check_indices(labels, label_dim)
    # Column 0 is "no label" and is cut off: no branch on the values, and on an accelerator, where
    # they are not checked above, scatter still refuses a label out of range.
    one_hot = torch.zeros(batch, label_dim + 1, dtype=dtype, device=device)
    index = (labels.to(device=device, dtype=torch.int64) + 1)[:, None].expand(batch, 1)
    return one_hot.scatter(1, index, 1.0)[:, 1:]


def _check_indices(labels: Tensor, label_dim: int) -> None:
    """Refuse class indices outside -1 .. label_dim - 1, where reading them is cheap."""
    if labels.device.type == "meta" or (labels.device.type != "cpu" and label_dim > 0):
        return
    if bool(((labels < NO_LABEL) | (labels >= label_dim)).any()):
        allowed = f"-1 (no label) to {label_dim - 1}" if label_dim else "-1 (unconditional network)"
        raise ValueError(
            f"labels contains {int(labels.min())} .. {int(labels.max())} with label_dim="
            f"{label_dim}; allowed: {allowed}"
        )


def zeroed(layer: Layer) -> Layer:
    """The layer with weights and biases of zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def require_at_least(least: int, **arguments: int) -> None:
    """Refuse arguments of a constructor that are smaller than ``least``."""
    for name, value in arguments.items():
        if value < least:
            raise ValueError(f"{name}={value}; allowed: integers >= {least}")


@runtime_checkable
class BeforeStep(Protocol):
    """A module, or layer of one, that puts its weights in order before every training step.

    The training loop calls it on every such module in the network and among what an objective
    learns, in order of registration, before the first network call of a step. After a step,
    averages, snapshots and checkpoints hold the weights as the optimizer left them.
    """

    def before_step(self) -> None:
        """Change the weights in place; a function of the weights alone, with no random draw."""


class NetworkArguments(TypedDict, total=False):
    """The arguments of :class:`Network`, which every network takes."""

    in_channels: Required[int]
    out_channels: Required[int]
    label_dim: int
    label_dropout: float
    augment_dim: int
    scalars: Sequence[str]
    conditions: Mapping[str, Condition] | None


class ImageArguments(NetworkArguments, total=False):
    """The arguments that every :class:`ImageNetwork` takes."""

    img_resolution: Required[int]


class Network(nn.Module, ABC):
    """Raw function F(x, c_noise, labels, augment_labels, scalars, and conditions by name).

    Label dropout (Ho and Salimans 2022, arXiv 2207.12598) is implemented here only, so that every
    network can be trained for classifier-free guidance. It draws from torch's global generator like
    nn.Dropout; the training loop seeds it for every step.

    Args:
        in_channels: Channels (images) or coordinates (points) of the input.
        out_channels: The same for the output.
        label_dim: Number of classes or length of the label vectors; 0 = unconditional.
        label_dropout: Probability in [0, 1) with which the label of an example is replaced by "no
            label" while the network is in training mode.
        augment_dim: Length of the augmentation vectors (EDM's non-leaky augmentation); 0 = none.
        scalars: Names of further numbers per sample that it is conditioned on, such as the second
            time of a flow map; see :class:`flowexp.networks.embedding.ScalarEmbedding`.
        conditions: Images, masks, maps ... that it is conditioned on, by name: each adds channels
            to the input, see :mod:`flowexp.networks.conditions`; None = none. One number per row
            decides which are dropped: with dropout 0.1 and 0.2, a tenth of the rows has neither of
            two conditions, and another tenth only the first, as guidance by both needs.

    Attributes:
        input_channels: Channels of the input with those of the conditions.
        condition_dropout: The conditions' names, with the share of rows without them in training.
        takes_tokens: Whether it is conditioned on captions, under ``tokens``.
        takes_scalars: Whether it can have ``scalars``.
        draws_tokens: Whether its tokens can be drawn one after the other.
        is_autoencoder: Whether it reconstructs its input from latents, whatever the time.
        scalar_embedding: Their embedding; None without scalars, and in wrappers.
        img_resolution: Height and width of the images it was built for; None = any.
        sequence: Number of consecutive rows that are one example in training mode.
        remembers: Whether it can remember its calls; see :meth:`remembering`.

    Raises:
        ValueError: If an argument is out of range.
    """

    later_options: ClassVar[Mapping[str, object]] = {"scalars": [], "conditions": {}}
    takes_tokens: bool = False
    takes_scalars: bool = True
    draws_tokens: bool = False
    is_autoencoder: bool = False
    scalar_embedding: ScalarEmbedding | None
    img_resolution: int | None = None
    sequence: int = 1
    remembers: bool = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        label_dropout: float = 0.0,
        augment_dim: int = 0,
        scalars: Sequence[str] = (),
        conditions: Mapping[str, Condition] | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels, out_channels=out_channels)
        require_at_least(0, label_dim=label_dim, augment_dim=augment_dim)
        if not 0.0 <= label_dropout < 1.0:
            raise ValueError(f"label_dropout={label_dropout}; allowed: [0, 1)")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.label_dim = label_dim
        self.label_dropout = label_dropout
        self.augment_dim = augment_dim
        self.scalars = tuple(scalars)
        if len(set(self.scalars)) < len(self.scalars):
            raise ValueError(f"scalars={list(scalars)}; allowed: different names")
        if self.scalars and not self.takes_scalars:
            raise ValueError(f"scalars={list(scalars)}; allowed: none")
        self.scalar_embedding = None
        given = {name: conditions[name] for name in sorted(conditions)} if conditions else {}
        reserved = [name for name in given if name in _RESERVED or not name.isidentifier()]
        if reserved:
            raise ValueError(f"conditions has {', '.join(reserved)}; allowed: other names")
        self.condition_dropout = {name: condition.dropout for name, condition in given.items()}
        self.input_channels = in_channels + sum(condition.channels for condition in given.values())
        self.conditions = nn.ModuleDict(given)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        scalars: Mapping[str, Tensor] | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        """F, shaped as ``x`` with out_channels channels.

        Args:
            x: Input already scaled by c_in, (B, in_channels, H, W) or (B, in_channels), float32.
            c_noise: Noise condition, (B,).
            labels: int64 (B,) with -1 for "no label", float (B, label_dim), or None.
            augment_labels: Float (B, augment_dim); zeros and None mean "not augmented".
            scalars: Numbers (B,) by name, from ``self.scalars``; missing ones are 0.
            conditions: Those of ``self.conditions``, (B, ...); a missing one is "none".

        Raises:
            ValueError: If a shape does not fit, labels are given to an unconditional network, or it
                has no such condition.
        """
        if x.ndim < 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; dimension 1 must be in_channels={self.in_channels}"
            )
        if c_noise.shape != x.shape[:1]:
            raise ValueError(f"c_noise has shape {tuple(c_noise.shape)}; allowed: ({len(x)},)")
        if augment_labels is not None and augment_labels.shape[-1] != self.augment_dim:
            raise ValueError(
                f"augment_labels has shape {tuple(augment_labels.shape)}, but the network was "
                f"built with augment_dim={self.augment_dim}"
            )
        augment = augment_labels if self.augment_dim else None
        vectors = self._label_condition(labels, x)
        noise = c_noise if c_noise.dtype == torch.float64 else c_noise.float()
        x = self._joined(x, conditions)
        if not self.scalars and not scalars:
            return self._evaluated(x, noise, vectors, augment)
        return self._evaluated(x, noise, vectors, augment, self._columns(scalars or {}, noise))

    def _joined(self, x: Tensor, conditions: Mapping[str, Tensor | None]) -> Tensor:
        """The input, and after it the channels of the conditions in the order of the alphabet."""
        known = self.conditions
        unknown = [name for name, c in conditions.items() if c is not None and name not in known]
        if unknown:
            allowed = ", ".join(known) or "none"
            raise ValueError(f"conditions has {', '.join(unknown)}; allowed: {allowed}")
        if len(known) == 0:
            return x
        drops = self.training and any(self.condition_dropout.values())
        uniforms = torch.rand(len(x), device=x.device) if drops else None
        added = [one(conditions.get(name), x, uniforms=uniforms) for name, one in known.items()]
        return torch.cat([x, *added], dim=1)

    def _evaluated(self, x: Tensor, c_noise: Tensor, *inputs: Tensor | None) -> Tensor:
        """:meth:`evaluate` for inputs that were checked."""
        return self.evaluate(x, c_noise, *inputs)

    def remembering(self, memory: Memory) -> Self:
        """This network, its weights shared, with a memory of its calls.

        Raises:
            TypeError: It has none.
        """
        raise TypeError(f"{type(self).__name__} has no memory")

    def embed_scalars(self, channels: int) -> None:
        """Build the embedding of the scalars as vectors (B, channels), if there are any.

        Call it last in a constructor, so that a seed gives all other weights the same values as
        without scalars.
        """
        if self.scalars:
            self.scalar_embedding = ScalarEmbedding(channels, count=len(self.scalars))

    def scalar_vector(self, scalars: Tensor | None) -> Tensor | None:
        """The term added to the embedding of c_noise, (B, channels); None without scalars."""
        if self.scalar_embedding is None or scalars is None:
            return None
        vector: Tensor = self.scalar_embedding(scalars)
        return vector

    def _columns(self, scalars: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """The scalars as columns (B, len(self.scalars)) in the order of their names."""
        unknown = sorted(scalars.keys() - set(self.scalars))
        if unknown:
            raise ValueError(f"scalars has {', '.join(unknown)}; allowed: {list(self.scalars)}")
        zeros = torch.zeros_like(noise)
        found = [scalars.get(name, zeros).to(noise).expand_as(noise) for name in self.scalars]
        return torch.stack(found, dim=1)

    def _label_condition(self, labels: Tensor | None, x: Tensor) -> Tensor | None:
        """Label vectors after label dropout; None for an unconditional network."""
        dtype = x.dtype if x.is_floating_point() else torch.float32
        vectors = label_vectors(
            labels, label_dim=self.label_dim, batch=len(x), dtype=dtype, device=x.device
        )
        if self.label_dim == 0:
            return None
        if self.training and self.label_dropout > 0:
            examples = -(-len(x) // self.sequence)
            keep = torch.rand(examples, 1, device=x.device) >= self.label_dropout
            vectors = vectors * keep.repeat_interleave(self.sequence, dim=0)[: len(x)]
        return vectors

    @abstractmethod
    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        """The network itself, (B, out_channels, ...), on checked inputs.

        Args:
            x: Input, (B, input_channels, ...).
            c_noise: Noise condition, (B,), float32.
            label: Label vectors (B, label_dim), zeros = no label; None if label_dim is 0.
            augment: Augmentation vectors (B, augment_dim), or None.
            scalars: (B, len(self.scalars)), float32; not passed where there are none.
        """


class ImageNetwork(Network):
    """A network on images of any size: pads the input to fit its levels and crops the output.

    Sizes that are a multiple of ``min_multiple`` (all published square configurations) are
    unchanged; 28 x 28 images, for example, become 32 x 32 for four levels. Arguments not listed
    here are those of :class:`Network`.

    Args:
        img_resolution: Height and width of the images in pixels.
        min_multiple: Height and width are padded to a multiple of this.
    """

    img_resolution: int

    def __init__(
        self, *, img_resolution: int, min_multiple: int, **network: Unpack[NetworkArguments]
    ) -> None:
        super().__init__(**network)
        require_at_least(1, img_resolution=img_resolution)
        self.img_resolution = img_resolution
        self.min_multiple = min_multiple

    @property
    def padded_resolution(self) -> int:
        """Height and width after padding."""
        return self.img_resolution + -self.img_resolution % self.min_multiple

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        scalars: Mapping[str, Tensor] | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        if x.ndim != 4:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; allowed: (B, {self.in_channels}, H, W)"
            )
        return super().forward(x, c_noise, labels, augment_labels, scalars, **conditions)

    def _evaluated(self, x: Tensor, c_noise: Tensor, *inputs: Tensor | None) -> Tensor:
        padded, border = pad_to_multiple(x, multiple=self.min_multiple)
        return crop(self.evaluate(padded, c_noise, *inputs), border=border)
