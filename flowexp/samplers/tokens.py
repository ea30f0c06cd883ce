"""What samplers of masked autoregressive models share: the model of tokens, and tokens' draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.models import Evaluation, FlowModel, Model
from flowexp.networks.mar import MAR
from flowexp.paths import Prediction
from flowexp.samplers.base import CountedModel
from flowexp.seeding import Noise, derive_seed

__all__ = ["Canvas", "TokenDraws", "TokenModel", "Tokens"]

# Numbers of draws beyond those of any sampler's steps.
_ORDER, _ACCEPTANCE, _SEED, _OTHER = 3_000_000, 3_000_001, 3_000_002, 4_000_000


class TokenModel(Model):
    """The model of single tokens, (N, D), given the backbone's vectors as ``context``.

    ``context`` is (N, K, Z): the vectors with the label and, if K = 2, those without, which belong
    to the rows whose label is -1. So guidance, which calls a model with and without labels, guides
    tokens too. Any sampler can draw tokens from it.

    Attributes:
        rows: How many tokens were predicted so far, each at one time.
    """

    def __init__(self, flow: FlowModel, network: MAR) -> None:
        self.network = network
        self.head = FlowModel(
            flow.path, network=network.head, parameterization=flow.parameterization
        )
        self.path = flow.path
        self.time_range = flow.time_range
        self.labels_dropped = flow.labels_dropped
        self.rows = 0

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        return self._evaluated(partial(self.head.predict, t=t), x_t, **conditions)

    def at(self, times: Tensor) -> list[Evaluation]:
        return [partial(self._evaluated, evaluate) for evaluate in self.head.at(times)]

    def nearest_time(self, t: Tensor) -> Tensor:
        return self.head.nearest_time(t)

    def _evaluated(
        self,
        evaluate: Evaluation,
        /,
        x_t: Tensor,
        *,
        context: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Prediction:
        if context is None:
            raise ValueError("tokens are predicted from the backbone's vectors; context is missing")
        self.rows += len(x_t)
        chosen = context[:, 0]
        if labels is not None and context.shape[1] > 1:
            chosen = torch.where((labels < 0)[:, None], context[:, -1], chosen)
        return evaluate(x_t, context=chosen)


class Tokens:
    """A model as a backbone, which reads the known tokens, and a model of the next ones.

    Args:
        model: A model with ``network=mar``, perhaps guided.
        key: Config key of the part that needs it, for messages.
        device: Where the network shall be.

    Attributes:
        network: The network of the model.
        model: The model of tokens, with the guidance of ``model``; it counts its evaluations.

    Raises:
        UsageError: The network has no tokens.
    """

    def __init__(self, model: Model, *, key: str, device: torch.device) -> None:
        flow = model.unwrapped(device)
        network = getattr(flow, "network", None)
        if not isinstance(flow, FlowModel) or not isinstance(network, MAR):
            name = type(model if network is None else network).__name__
            raise UsageError(
                f"{name} draws no tokens one after the other.",
                key=key,
                remedy="Use a model that was trained with network=mar task=masked_tokens.",
            )
        self.network = network
        self._heads = TokenModel(flow, network)
        self.model = CountedModel(model.alongside(self._heads))

    def head_evaluations(self, batch: int) -> Tensor:
        """Evaluations of the head so far per sample of a batch, (B,) float64, all its mean."""
        return torch.full((batch,), self._heads.rows / batch, dtype=torch.float64)

    def context(self, tokens: Tensor, known: Tensor, labels: Tensor | None) -> Tensor:
        """The backbone's vectors of all tokens, (B, L, K, Z), K as guidance needs it.

        ``tokens`` are (B, L, D), ``known`` (B, L) bool, ``labels`` (B,) int64 or None.
        """
        vectors = self.network.context(tokens, known, labels)
        if not self.model.asks_without_label:
            return vectors[:, :, None]
        return torch.stack([vectors, self.network.context(tokens, known)], dim=2)


@dataclass(frozen=True)
class Canvas:
    """Images that are drawn token by token: all tokens, and which of them are known already.

    Attributes:
        tokens: (B, L, D).
        known: (B, L), bool.
    """

    tokens: Tensor
    known: Tensor

    @classmethod
    def blank(cls, like: Tensor) -> "Canvas":
        """Nothing is known of tokens shaped like (B, L, D)."""
        known = torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device)
        return cls(torch.zeros_like(like), known)

    def rows(self, rows: Tensor) -> "Canvas":
        """Those of some rows, as new tensors."""
        return Canvas(self.tokens[rows], self.known[rows])

    def filled(self, places: Tensor, values: Tensor) -> "Canvas":
        """The same with tokens ``values``, (B, m, D), at ``places``, (B, m)."""
        index = places[..., None].expand_as(values)
        return Canvas(self.tokens.scatter(1, index, values), self.known.scatter(1, places, True))


class TokenDraws:
    """The random numbers of tokens, which belong to the sample and the place of the token.

    A token has the same start and noise whichever model draws it and however many are drawn
    together, so that a draft and its target can share them.

    Args:
        start: Source draws of the tokens, (B, L, D).
        noise: The samples' noise.
    """

    def __init__(self, start: Tensor, noise: Noise) -> None:
        self.start = start
        self.noise = noise
        self._drawn: dict[int, Tensor] = {}

    def order(self) -> Tensor:
        """A random order of the places of each sample, (B, L)."""
        return self.noise(_ORDER, self.start[..., 0]).argsort(dim=1)

    def log_uniform(self) -> Tensor:
        """``log u`` of each place, (B, L), u uniform in (0, 1)."""
        log_u: Tensor = torch.special.log_ndtr(self.noise(_ACCEPTANCE, self.start[..., 0]))
        return log_u

    def seeds(self) -> list[int]:
        """A number of each sample, for further generators."""
        bits = self.noise(_SEED, self.start.new_empty(len(self.start), 8, dtype=torch.float32))
        rows: Sequence[Sequence[int]] = bits.cpu().view(torch.int32).tolist()
        return [derive_seed(0, "tokens", *row) for row in rows]

    def at(self, step: int, rows: Tensor, places: Tensor) -> Tensor:
        """Noise of a step for tokens of the samples ``rows`` (N,), (N, m, D): ``places`` (N, m)."""
        return self._table(step)[rows[:, None], places]

    def other(self, step: int, rows: Tensor, places: Tensor) -> Tensor:
        """Draws as of :meth:`at` that are independent of them."""
        return self.at(_OTHER + step, rows, places)

    def of(self, places: Tensor) -> Noise:
        """The noise of the tokens at ``places``, (B, m), for a sampler of states (B m, D)."""
        rows = torch.arange(len(places), device=places.device)

        def noise(step: int, like: Tensor) -> Tensor:
            return self.at(step, rows, places).flatten(0, 1).to(like)

        return noise

    def starts(self, rows: Tensor, places: Tensor) -> Tensor:
        """The source draws of tokens, as in :meth:`at`."""
        return self.start[rows[:, None], places]

    def _table(self, step: int) -> Tensor:
        if step not in self._drawn:
            self._drawn[step] = self.noise(step, self.start)
        return self._drawn[step]
