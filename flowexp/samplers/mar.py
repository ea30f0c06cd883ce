"""Sampling of masked autoregressive models: some tokens at a time, in a random order."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.requirements import Parts, Unmet, all_of, within
from flowexp.samplers.base import Sampler, Samples, StepObserver
from flowexp.samplers.speculation import tokens_per_step
from flowexp.samplers.tokens import Canvas, TokenDraws, Tokens
from flowexp.seeding import Noise

__all__ = ["MaskedAutoregressive", "on_tokens"]


class MaskedAutoregressive(Sampler):
    """MAR: every step draws some unknown tokens, each from its law given the known ones.

    The order is random, another one for each sample. After step s of N remain
    ``max(1, min(m_{s-1} - 1, floor(L cos(pi/2 (s + 1)/N))))`` of L tokens. A step evaluates the
    backbone once; the head is then sampled by ``tokens``. ``nfe`` counts evaluations of the
    backbone, of which guidance needs two a step; the head's are the fact ``head evaluations``.

    Args:
        tokens: The sampler of the tokens of a step; its steps are the head's.
        steps: N, between 1 and L; None = L, one token a step.

    Source: Li et al., MAR, 2024, arXiv 2406.11838, and their code.
    """

    def __init__(self, *, tokens: Sampler, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"steps is {steps}; expected at least 1, or null")
        self.tokens = tokens
        self.steps = steps

    @property
    def adds_noise(self) -> bool:
        """It does: the order of the tokens is drawn."""
        return True

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network with tokens, and what the tokens' sampler needs."""
        name = type(self).__name__
        inner = within("tokens", self.tokens.needs(parts))
        yield from all_of(super().needs(parts), on_tokens(parts, name=name), inner)

    def check(self, model: Model) -> None:
        """Refuse a model without tokens, or fewer of them than steps."""
        super().check(model)
        found = Tokens(model, key="sampler", device=torch.device("cpu"))
        self.tokens.check(found.model)
        self._counts(found.network.tokens)

    def describe(self) -> str:
        steps = "one token a step" if self.steps is None else f"{self.steps} steps"
        return f"{super().describe()}, {steps} by {self.tokens.describe()}"

    def _counts(self, tokens: int) -> list[int]:
        if self.steps is not None and self.steps > tokens:
            raise ValueError(f"steps is {self.steps}; the images have {tokens} tokens")
        return tokens_per_step(tokens, self.steps or tokens)

    @torch.inference_mode()
    def sample(
        self,
        model: Model,
        e: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Images token by token; ``on_step`` gets the share of unknown tokens as the time."""
        if noise is None:
            raise ValueError(f"{type(self).__name__} draws an order, but noise is None")
        found = Tokens(model, key="sampler", device=e.device)
        network, labels = found.network, conditions.get("labels")
        draws = TokenDraws(network.to_tokens(e), noise)
        canvas, order = Canvas.blank(draws.start), draws.order()
        known = calls = 0
        for count in (0, *self._counts(network.tokens)):
            if count:
                places = order[:, known : known + count]
                context = found.context(canvas.tokens, canvas.known, labels)
                rows = torch.arange(len(e), device=e.device)[:, None]
                drawn = self.tokens.sample(
                    found.model,
                    draws.starts(rows[:, 0], places).flatten(0, 1),
                    noise=draws.of(places),
                    context=context[rows, places].flatten(0, 1),
                    labels=None if labels is None else labels.repeat_interleave(count),
                )
                canvas = canvas.filled(places, drawn.x.reshape(*places.shape, -1))
                known, calls = known + count, calls + 1
            if on_step is not None:
                share = torch.tensor(1.0 - known / network.tokens, dtype=torch.float64)
                on_step(share.to(e.device), network.to_images(canvas.tokens))
        nfe = torch.full((len(e),), calls * found.model.evaluations_per_call, dtype=torch.int64)
        facts = {"head evaluations": found.head_evaluations(len(e))}
        return Samples(network.to_images(canvas.tokens), nfe, facts)


def on_tokens(parts: Parts, *, name: str) -> Iterator[Unmet]:
    """The network must draw tokens one after the other, as ``name`` does."""
    if not parts.network.draws_tokens:
        problem = f"{name} draws an image token by token, which the network does not."
        yield Unmet(".", problem, "Train a model with network=mar task=masked_tokens.")
