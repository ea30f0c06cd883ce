"""Speculative decoding of masked autoregressive models: a draft proposes, the target verifies."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.models import Model
from flowexp.requirements import Parts, Unmet, all_of, within
from flowexp.samplers.ancestral import Ancestral
from flowexp.samplers.base import Sampler, Samples, StepObserver
from flowexp.samplers.criteria import Chain, Criterion, Drafts, Judgement, Run
from flowexp.samplers.mar import on_tokens
from flowexp.samplers.speculation import log_residual_acceptance
from flowexp.samplers.tokens import Canvas, TokenDraws, Tokens
from flowexp.seeding import Noise, generator, open_uniform

__all__ = ["Speculative"]

ROUNDING = 1e-5
"""A log p/q below this is 0: float32 networks do not tell such p and q apart."""
_FIRST_BLOCK, _LARGEST_BLOCK = 8, 1024


class Speculative(Sampler):
    """Continuous speculative decoding: the law of ``sampler=mar`` at one token a step, by rounds.

    In a round the draft draws ``drafted`` tokens one after the other, each given those before. The
    target then reads all their prefixes in one pass of its backbone, and ``criterion`` accepts each
    with probability min(1, p/q). The first that is rejected is replaced from the residual
    ``max(0, p - q)/Z``, by proposals until one is accepted; what was drafted after it is discarded.
    If none is rejected, the target adds a token of its own. So a round adds one token more than it
    accepts. ``exact_gaussian`` gives exactly the target's law (up to a ratio of 1e-5 that counts as
    1, the rounding of the networks); ``aligned``, the paper's criterion, is a heuristic.

    Start, noise and order of a token belong to its place, so that a draft equal to the target gives
    the samples of ``sampler=mar`` bit for bit. ``nfe`` counts passes of the target's backbone; the
    facts count images within passes, the draft's passes, proposals and evaluations of the heads
    (their mean over the batch), and say what share was accepted.

    Args:
        model: The draft: tokens of the same size on the same path; guided as the target is.
        tokens: The steps of both heads. The last must add noise (end the time grid above 0), or
            tokens have no density.
        criterion: When a draft is accepted.
        drafted: Tokens that are drafted in a round (gamma), >= 1.
        prefill: Share in [0, 1] of the tokens that the target draws before the first is drafted,
            since early tokens are accepted least.
        draft: The draft's name, which belongs to the description of the samples; in a config the
            directory of its run.
        max_tries: Proposals for one token after which sampling gives up with an error, >= 1.

    Source: Wang et al., Continuous Speculative Decoding, 2024, arXiv 2411.11925; Leviathan et al.,
    2022, arXiv 2211.17192 (rounds, additional token). The authors' code keeps what was drafted
    after a rejection and leaves zeros after 100 tries, so that its samples have another law.
    """

    needs_gaussian = True

    def __init__(
        self,
        *,
        model: Model,
        tokens: Ancestral,
        criterion: Criterion,
        drafted: int = 4,
        prefill: float = 0.05,
        draft: str | None = None,
        max_tries: int = 100_000,
    ) -> None:
        for name, value in (("drafted", drafted), ("max_tries", max_tries)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if not 0.0 <= prefill <= 1.0:
            raise ValueError(f"prefill is {prefill}; expected a number in [0, 1]")
        if tokens.snr is not None or tokens.analytic_first_step:
            raise ValueError("tokens has snr or analytic_first_step; set them to null and false")
        self.model = model
        self.draft = draft
        self.tokens = tokens
        self.criterion = criterion
        self.drafted = drafted
        self.prefill = prefill
        self.max_tries = max_tries

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network with tokens, and what their steps and the criterion need."""
        name = type(self).__name__
        inner = within("tokens", self.tokens.needs(parts))
        rule = within("criterion", self.criterion.needs(parts))
        yield from all_of(super().needs(parts), on_tokens(parts, name=name), inner, rule)

    def describe(self) -> str:
        by = f" by {self.draft}" if self.draft else ""
        words = f"{self.drafted} drafted{by}, {type(self.criterion).__name__}"
        return f"{super().describe()}, {words}, tokens by {self.tokens.describe()}"

    def check(self, model: Model) -> None:
        """Refuse models without tokens, a draft that does not fit, and a last step without noise.

        Raises:
            UsageError: One of these.
        """
        super().check(model)
        self._pair(model, torch.device("cpu"))

    def _pair(self, model: Model, device: torch.device) -> "_Pair":
        target = Tokens(model, key="sampler", device=device)
        draft = Tokens(model.alongside(self.model), key="sampler.draft", device=device)
        self._require_fit(model, target, draft)
        self.tokens.check(target.model)
        self.tokens.check(draft.model)
        chains = [Chain(self.tokens, tokens.model, device=device) for tokens in (target, draft)]
        if not torch.equal(chains[0].times, chains[1].times):
            raise UsageError(
                "the steps of the draft's head lie at other times than the target's.",
                key="sampler.draft",
                remedy="Use a draft with the target's parameterization.",
            )
        if bool((chains[0].std == 0.0).any()):
            raise UsageError(
                "a step of the tokens adds no noise, so that tokens have no density.",
                key="sampler.tokens.time_grid.t_end",
                remedy="End above 0, for example at 0.02, and with fewer steps than noise levels.",
            )
        return _Pair(target, draft, *chains)

    def _require_fit(self, model: Model, target: Tokens, draft: Tokens) -> None:
        own, theirs = (
            {
                "patch_size": tokens.network.patch_size,
                "img_resolution": tokens.network.img_resolution,
                "in_channels": tokens.network.in_channels,
                "label_dim": tokens.network.label_dim,
            }
            for tokens in (target, draft)
        )
        for name, value in own.items():
            if theirs[name] != value:
                raise UsageError(
                    f"the draft has {name}={theirs[name]}, the target {value}.",
                    key="sampler.draft",
                    remedy="Train a draft on the same data with tokens of the same size.",
                )
        path, other = model.path.identity(), draft.model.path.identity()
        if path != other:
            raise UsageError(
                f"the draft's path is {other}, the target's {path}.",
                key="sampler.draft",
                remedy="Train a draft on the target's path.",
            )

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
        """Images round by round; ``on_step`` gets the share of unknown tokens as the time."""
        if noise is None:
            raise ValueError(f"{type(self).__name__} draws tokens, but noise is None")
        pair = self._pair(model, e.device)
        network = pair.target.network
        draws = TokenDraws(network.to_tokens(e), noise)
        work = _Decoding(self, pair, draws, conditions.get("labels"))
        while True:
            if on_step is not None:
                share = work.canvas.known.logical_not().double().mean()
                on_step(share, network.to_images(work.canvas.tokens))
            rows = (work.filled < network.tokens).nonzero()[:, 0]
            if not len(rows):
                break
            work.round(rows)
        per_pass = pair.target.model.evaluations_per_call
        nfe = (work.counts["target passes"] * per_pass).to("cpu", torch.int64)
        return Samples(network.to_images(work.canvas.tokens), nfe, work.facts())


@dataclass(frozen=True)
class _Pair:
    """Target and draft, with the chains of their heads."""

    target: Tokens
    draft: Tokens
    target_chain: Chain
    draft_chain: Chain


@dataclass(frozen=True)
class _Round:
    """The rows (A,) of a round, and the places (A, m + 1) of their next tokens, with their draws.

    Attributes:
        start: Source draws, (A, m + 1, D).
        noise: Noise, (A, m + 1, T, D).
    """

    rows: Tensor
    places: Tensor
    start: Tensor
    noise: Tensor


class _Decoding:
    """The state of decoding a batch: rows advance by different numbers of tokens in a round."""

    def __init__(
        self, sampler: Speculative, pair: _Pair, draws: TokenDraws, labels: Tensor | None
    ) -> None:
        self.sampler = sampler
        self.pair = pair
        self.draws = draws
        self.labels = labels
        self.order = draws.order()
        self.log_u = draws.log_uniform()
        self.seeds = draws.seeds()
        self.canvas = Canvas.blank(draws.start)
        batch, device = len(draws.start), draws.start.device
        self.filled = torch.zeros(batch, dtype=torch.int64, device=device)
        names = ("target passes", "images in target passes", "draft passes", "drafted", "judged",
                 "accepted", "proposals")  # fmt: skip
        self.counts = {
            name: torch.zeros(batch, dtype=torch.float64, device=device) for name in names
        }

    def facts(self) -> dict[str, Tensor]:
        """The counts of each sample, and the accepted share of drafted and of judged tokens."""
        counts = {name: value.cpu() for name, value in self.counts.items()}
        drafted, judged = counts.pop("drafted"), counts.pop("judged")
        accepted = counts.pop("accepted")
        shares = {
            "accepted share of drafted tokens": accepted / drafted.clamp(min=1.0),
            "accepted share of judged tokens": accepted / judged.clamp(min=1.0),
        }
        heads = {
            "head evaluations": self.pair.target.head_evaluations(len(self.filled)),
            "head evaluations of the draft": self.pair.draft.head_evaluations(len(self.filled)),
        }
        return {**counts, **heads, **shares}

    def round(self, rows: Tensor) -> None:
        """Add one or more tokens to each of these rows."""
        tokens = self.order.shape[1]
        filled = self.filled[rows]
        first = math.ceil(self.sampler.prefill * tokens)
        ahead = (tokens - 1 - filled).clamp(max=self.sampler.drafted) * (filled >= first)
        most = int(ahead.max())
        # Rows that draft fewer tokens than others draft their last token in vain.
        slots = filled[:, None] + torch.arange(most + 1, device=rows.device)
        places = self.order[rows].gather(1, slots.clamp(max=tokens - 1))
        work = _Round(rows, places, *self._draws(rows, places))
        prefixes, drafts = self._draft(work)
        context = self._target_context(work, prefixes)
        accepted, judged = torch.zeros_like(filled), None
        if drafts:
            judged = self._judge(work, drafts, context[:, :most])
            log_u = self.log_u[rows].gather(1, places[:, :most])
            ratio = judged.log_ratio.reshape(len(rows), most)
            ratio = torch.where(ratio.abs() < ROUNDING, 0.0, ratio)
            taken = (log_u <= ratio) & (torch.arange(most, device=rows.device) < ahead[:, None])
            accepted = taken.long().cumprod(dim=1).sum(dim=1)
        rejected = accepted < ahead
        added = self._fresh(work, accepted, context, ~rejected)
        if judged is not None and bool(rejected.any()):
            added[rejected] = self._replaced(work, accepted, rejected, judged)
        own = torch.arange(len(rows), device=rows.device)
        every = Canvas(
            torch.stack([prefix.tokens for prefix in prefixes], dim=1)[own, accepted],
            torch.stack([prefix.known for prefix in prefixes], dim=1)[own, accepted],
        )
        kept = every.filled(places.gather(1, accepted[:, None]), added[:, None].to(every.tokens))
        self.canvas.tokens[rows], self.canvas.known[rows] = kept.tokens, kept.known
        self.filled[rows] = filled + accepted + 1
        self._count(rows, ahead, accepted, rejected)

    def _draft(self, work: _Round) -> tuple[list[Canvas], list[tuple[Run, Tensor]]]:
        """Prefixes of 0, 1, .. drafts, and each draft with the context it was drawn in."""
        rows, places = work.rows, work.places
        prefixes, drafts = [self.canvas.rows(rows)], []
        for j in range(places.shape[1] - 1):
            canvas, place = prefixes[-1], places[:, j : j + 1]
            vectors = self.pair.draft.context(canvas.tokens, canvas.known, self._labels(rows))
            context = _at(vectors, place)[:, 0]
            given = self._given(context, rows)
            run = self.pair.draft_chain.run(work.start[:, j], work.noise[:, j], given)
            prefixes.append(canvas.filled(place, run.token[:, None].to(canvas.tokens)))
            drafts.append((run, context))
        return prefixes, drafts

    def _target_context(self, work: _Round, prefixes: list[Canvas]) -> Tensor:
        """The target's vectors at the place after each prefix, (A, m + 1, K, Z), in one pass."""
        count = len(prefixes)
        tokens = torch.cat([prefix.tokens for prefix in prefixes])
        known = torch.cat([prefix.known for prefix in prefixes])
        labels = self._labels(work.rows)
        every = None if labels is None else labels.repeat(count)
        vectors = self.pair.target.context(tokens, known, every)
        at = _at(vectors, work.places.transpose(0, 1).reshape(-1, 1))[:, 0]
        return at.reshape(count, len(work.rows), *at.shape[1:]).transpose(0, 1)

    def _judge(self, work: _Round, drafts: list[tuple[Run, Tensor]], context: Tensor) -> Judgement:
        most = len(drafts)
        states, means, own = (
            torch.stack(parts, dim=1).flatten(0, 1)
            for parts in zip(*[(r.states, r.means, c) for r, c in drafts], strict=True)
        )
        every = work.rows.repeat_interleave(most)

        def others() -> tuple[Tensor, Tensor]:
            start, noise = self._draws(work.rows, work.places[:, :most], other=True)
            return start.flatten(0, 1), noise.flatten(0, 1)

        drafted = Drafts(
            Run(states, means),
            self.pair.draft_chain,
            self.pair.target_chain,
            self._given(own, every),
            self._given(context.flatten(0, 1), every),
            work.start[:, :most].flatten(0, 1),
            work.noise[:, :most].flatten(0, 1),
            others,
        )
        return self.sampler.criterion.judge(drafted)

    def _fresh(self, work: _Round, accepted: Tensor, context: Tensor, where: Tensor) -> Tensor:
        """The target's own token after the accepted ones, (A, D), in the rows ``where``."""
        added = torch.empty_like(work.start[:, 0], dtype=self.sampler.tokens.dtype)
        fresh = where.nonzero()[:, 0]
        if len(fresh):
            at = accepted[fresh]
            given = self._given(context[fresh, at], work.rows[fresh])
            run = self.pair.target_chain.run(work.start[fresh, at], work.noise[fresh, at], given)
            added[fresh] = run.token
        return added

    def _replaced(
        self, work: _Round, accepted: Tensor, rejected: Tensor, judged: Judgement
    ) -> Tensor:
        """Tokens of the residual law for the rows that ``rejected`` a draft, (R, D).

        Proposals are drawn in blocks, each twice as long, so that many cost little more than one.
        """
        own, at = rejected.nonzero()[:, 0], accepted[rejected]
        rows, places = work.rows[own], work.places[own, at]
        numbers = own * (work.places.shape[1] - 1) + at
        dims, device = self.draws.start.shape[2], rows.device
        found = torch.empty(len(rows), dims, dtype=self.sampler.tokens.dtype, device=device)
        pending = torch.arange(len(rows), device=device)
        tried, block, index = 0, _FIRST_BLOCK, 0
        while len(pending):
            if tried >= self.sampler.max_tries:
                raise UsageError(
                    f"{tried} proposals for a rejected token were rejected as well.",
                    key="sampler.max_tries",
                    remedy="Allow more, or use another draft: this one is all but the target.",
                )
            streams = [
                generator(self.seeds[row], "replacement", place, index)
                for row, place in zip(rows[pending].tolist(), places[pending].tolist(), strict=True)
            ]
            shape = (block, judged.draws, dims)
            normal = torch.stack([torch.randn(shape, generator=stream) for stream in streams])
            log_u = torch.stack([open_uniform((block,), rng=stream).log() for stream in streams])
            each = numbers[pending].repeat_interleave(block)
            x, log_ratio = judged.propose(each, normal.to(device).flatten(0, 1))
            chance = log_residual_acceptance(log_ratio).reshape(-1, block)
            taken = log_u.to(device) < chance
            hit = taken.any(dim=1)
            chosen = torch.where(hit, taken.long().argmax(dim=1), block - 1)
            each = torch.arange(len(pending), device=device)
            found[pending[hit]] = x.reshape(-1, block, dims)[each, chosen][hit]
            self.counts["proposals"][rows[pending]] += chosen + 1.0
            pending = pending[~hit]
            tried, block, index = tried + block, min(2 * block, _LARGEST_BLOCK), index + 1
        return found

    def _draws(self, rows: Tensor, places: Tensor, *, other: bool = False) -> tuple[Tensor, Tensor]:
        """Start (A, m, D) and noise (A, m, T, D) of tokens; with ``other``, independent ones."""
        steps = self.sampler.tokens.steps
        if other:
            drawn = [self.draws.other(k, rows, places) for k in range(steps + 1)]
            return drawn[0], torch.stack(drawn[1:], dim=2)
        noise = [self.draws.at(k, rows, places) for k in range(steps)]
        return self.draws.starts(rows, places), torch.stack(noise, dim=2)

    def _labels(self, rows: Tensor) -> Tensor | None:
        return None if self.labels is None else self.labels[rows]

    def _given(self, context: Tensor, rows: Tensor) -> dict[str, Tensor | None]:
        return {"context": context, "labels": self._labels(rows)}

    def _count(self, rows: Tensor, ahead: Tensor, accepted: Tensor, rejected: Tensor) -> None:
        """Add a round to the counts."""
        added = {
            "target passes": torch.ones_like(ahead),
            "images in target passes": ahead + 1,
            "draft passes": ahead,
            "drafted": ahead,
            "judged": accepted + rejected.long(),
            "accepted": accepted,
        }
        for name, value in added.items():
            self.counts[name][rows] += value.double()


def _at(vectors: Tensor, places: Tensor) -> Tensor:
    """The vectors (B, L, ...) at places (B, m), as (B, m, ...)."""
    rows = torch.arange(len(vectors), device=vectors.device)[:, None]
    return vectors[rows, places]
