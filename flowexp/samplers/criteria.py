"""When a drafted token is accepted: the criteria of speculative decoding with diffusion heads."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.parameterizations import Conditions
from flowexp.parameterizations.base import rows_of
from flowexp.requirements import Part
from flowexp.samplers.ancestral import Ancestral
from flowexp.samplers.speculation import Gaussian, log_acceptance, log_sigma

__all__ = ["Aligned", "Chain", "Criterion", "Drafts", "ExactGaussian", "Judgement", "Run"]


@dataclass(frozen=True)
class Run:
    """A trajectory of N tokens: ``y_{k-1} = mean_k + s_k n_k``, k = T .. 1, the token is y_0.

    Attributes:
        states: y_T .. y_0, (N, T + 1, D).
        means: mean_T .. mean_1, (N, T, D).
    """

    states: Tensor
    means: Tensor

    @property
    def token(self) -> Tensor:
        """y_0, (N, D)."""
        return self.states[:, -1]


class Chain:
    """The Gaussian steps in which :class:`Ancestral` draws tokens from a model.

    Attributes:
        times: The times between the steps, (T + 1,), float64.
        std: s_T .. s_1, (T, 1), > 0 except perhaps the last.
    """

    def __init__(self, rule: Ancestral, model: Model, *, device: torch.device) -> None:
        self.rule = rule
        self.model = model
        self.times = rule.times(model)
        c = model.path.schedule.coefficients(self.times)
        levels = list(zip(c.alpha.tolist(), c.sigma.tolist(), strict=True))
        self._levels = list(pairwise(levels))
        self._deviations = [rule.deviation(before=a, after=b) for a, b in self._levels]
        self.std = torch.tensor(self._deviations, dtype=rule.dtype, device=device)[:, None]
        self._evaluations = model.at(self.times[:-1].to(device))

    def start(self, e: Tensor) -> Tensor:
        """y_T of source draws (..., D)."""
        return self.model.path.start(e.to(self.rule.dtype), self.times[0])

    def run(self, e: Tensor, noise: Tensor, given: Conditions) -> Run:
        """Draw tokens: source draws (N, D), noise (N, T, D), ``given`` what the model is given."""
        y = self.start(e)
        states, means = [y], []
        for k, evaluate in enumerate(self._evaluations):
            mean = self._mean(k, y, evaluate(y, **given).data)
            y = torch.add(mean, noise[:, k].to(mean), alpha=self._deviations[k])
            states.append(y)
            means.append(mean)
        return Run(torch.stack(states, dim=1), torch.stack(means, dim=1))

    def means(self, states: Tensor, given: Conditions) -> Tensor:
        """The means of all steps from the states of other trajectories, in one evaluation."""
        steps = len(self._evaluations)
        times = self.times[:-1].to(states.device).repeat_interleave(len(states))
        every = {
            name: None if value is None else value.repeat(steps, *[1] * (value.ndim - 1))
            for name, value in given.items()
        }
        y = states[:, :-1].transpose(0, 1).flatten(0, 1)
        data = self.model.predict(y, times, **every).data.reshape(steps, len(states), -1)
        found = [self._mean(k, states[:, k], data[k]) for k in range(steps)]
        return torch.stack(found, dim=1)

    def _mean(self, k: int, y: Tensor, data: Tensor) -> Tensor:
        before, after = self._levels[k]
        return self.rule.mean(y, data, before=before, after=after)


@dataclass(frozen=True)
class Drafts:
    """N drafted tokens, with what the target needs to judge them.

    Attributes:
        run: The draft's trajectories.
        draft, target: The chains of the two models.
        given_draft, given_target: What the models are given for each token, (N, ...) each.
        start, noise: The draws that the draft used, (N, D) and (N, T, D).
        others: Makes such draws that are independent of them.
    """

    run: Run
    draft: Chain
    target: Chain
    given_draft: Conditions
    given_target: Conditions
    start: Tensor
    noise: Tensor
    others: Callable[[], tuple[Tensor, Tensor]]


class Judgement(ABC):
    """The target's judgement of some drafts.

    Attributes:
        log_ratio: ``log(p/q)`` of each draft, (N,): it is accepted with probability min(1, p/q).
        draws: Normal numbers that a proposal needs, a multiple of the token's length D.
    """

    log_ratio: Tensor
    draws: int

    @abstractmethod
    def propose(self, rows: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals in the place of rejected drafts, from p, with their own ``log(p/q)``.

        ``rows`` are (M,), numbers of drafts, which may repeat; ``draws`` (M, self.draws, D),
        standard normal. Returns tokens (M, D) and logarithms (M,). A proposal is to be accepted
        with probability ``max(0, 1 - q/p)``.
        """


class Criterion(Part, ABC):
    """How the target judges drafts."""

    @abstractmethod
    def judge(self, drafts: Drafts) -> Judgement:
        """Judge all drafts at once."""


class ExactGaussian(Criterion):
    """p and q are the densities of the draft's whole trajectory: the law is exactly the target's.

    Given the same y_T both are products of T Gaussians; ``p(Y)/q(Y)`` is evaluated on the draft's Y
    with all steps of the target's head in one call. Rejected trajectories are replaced from
    ``max(0, p(Y) - q(Y))/Z``, which draws new ones from the target until one is accepted. Since Y
    has the target's law, so has the token y_0. With one step this is the Gaussian law of the token
    itself.

    As T grows, log p/q tends to the integral of ``|D_p - D_q|^2`` over the signal-to-noise ratio up
    to that of the last step, so that heads that agree, and a last step with much noise, make it
    small. For heads of 100 steps whose last ones have little noise, the paper reports p/q of 5e-23.

    Source: Leviathan et al., 2022, arXiv 2211.17192 (accept and reject); the densities are those of
    Wang et al., Continuous Speculative Decoding, 2024, arXiv 2411.11925, before its alignment.
    """

    def judge(self, drafts: Drafts) -> Judgement:
        return _ExactJudgement(drafts)


class _ExactJudgement(Judgement):
    def __init__(self, drafts: Drafts) -> None:
        self.drafts = drafts
        self.draws = len(drafts.target.std) + 1
        means = drafts.target.means(drafts.run.states, drafts.given_target)
        self.log_ratio = self._log_ratio(drafts.run.states, target=means, draft=drafts.run.means)

    def propose(self, rows: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        given = rows_of(self.drafts.given_target, rows)
        run = self.drafts.target.run(draws[:, 0], draws[:, 1:], given)
        means = self.drafts.draft.means(run.states, rows_of(self.drafts.given_draft, rows))
        return run.token, self._log_ratio(run.states, target=run.means, draft=means)

    def _log_ratio(self, states: Tensor, *, target: Tensor, draft: Tensor) -> Tensor:
        p = Gaussian(target, self.drafts.target.std)
        return log_acceptance(states[:, 1:], target=p, draft=Gaussian(draft, self.drafts.draft.std))


class Aligned(Criterion):
    """The paper's ratio, ``Sigma N(x; mu_p(y_1^p), s_p^2)/N(x; mu_q(y_1^q), s_q^2)``: a heuristic.

    Each model follows a trajectory of its own to y_1, both from the same y_T with the same noise,
    whose exponents cancel; Sigma is the ratio of the deviations of those steps, which is 1 here,
    since the deviations of :class:`~flowexp.samplers.Ancestral` are not learned. A rejected x is
    replaced by one of ``max(0, Sigma N(mu_p, s_p^2) - N(mu_q, s_q^2))``, without another call.

    The ratio is not that of the marginal densities of x: trajectories of other noise lead to the
    same x. So samples follow the target's law only approximately, the better the closer the models.

    Args:
        share_noise: False = the target's trajectory has another y_T and other noise (the paper's
            comparison without alignment). The exponents are left out all the same: with them Sigma
            p may lie below q everywhere, and nothing would replace a rejected token.

    Source: Wang et al., Continuous Speculative Decoding, 2024, arXiv 2411.11925. Their code inverts
    Sigma, and divides the exponents by 42^2, so that almost all is accepted; neither is done here.
    """

    def __init__(self, *, share_noise: bool = True) -> None:
        self.share_noise = share_noise

    def judge(self, drafts: Drafts) -> Judgement:
        return _AlignedJudgement(drafts, share_noise=self.share_noise)


class _AlignedJudgement(Judgement):
    draws = 1

    def __init__(self, drafts: Drafts, *, share_noise: bool) -> None:
        start, noise = drafts.start, drafts.noise
        if not share_noise:
            start, noise = drafts.others()
        run = drafts.target.run(start, noise, drafts.given_target)
        stds = drafts.target.std, drafts.draft.std
        self.target = Gaussian(run.means[:, -1], stds[0][-1])
        self.draft = Gaussian(drafts.run.means[:, -1], stds[1][-1])
        target_log, draft_log = (std[:-1].log().sum().expand_as(run.token) for std in stds)
        self.log_sigma = log_sigma(draft_log, target_log)
        self.log_ratio = log_acceptance(
            drafts.run.token, target=self.target, draft=self.draft, log_sigma=self.log_sigma
        )

    def propose(self, rows: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        p = Gaussian(self.target.mean[rows], self.target.std)
        q = Gaussian(self.draft.mean[rows], self.draft.std)
        x = p.mean + p.std * draws[:, 0].to(p.mean)
        return x, log_acceptance(x, target=p, draft=q, log_sigma=self.log_sigma[rows])
