"""How much of the network a training step of every preset asks, in rows."""

from collections import Counter

import pytest
import torch

from flowexp.couplings import Pairs
from tests.objectives.flow_map.labelled import CLASSES, D, Labelled, N
from tests.objectives.test_groups import build

EQUAL = 4  # rows with r = t
APART = N - EQUAL


class Counting(Labelled):
    """Counts the rows it evaluates, with and without gradient; it is its own average."""

    def __init__(self):
        super().__init__()
        self.rows = Counter()

    def average_velocity(self, x_t, t, r, **conditions):
        self.rows["gradient" if torch.is_grad_enabled() else "target"] += len(x_t)
        conditions.setdefault("labels", torch.zeros(len(x_t), dtype=torch.int64))
        return super().average_velocity(x_t, t, r, **conditions)

    def average(self, name):
        return self


# Rows without gradient; each row is evaluated once with gradient, unless noted here.
TARGETS = {
    "flow_map": 0,  # the whole way along the data's velocity: there is no second leg
    "alpha_flow": 0,  # the same at the start of the training
    "soflow": 0,  # the same
    "meanflow": APART,  # the derivative
    "meanflow_guided": APART + 2 * N,  # and the velocity with and without label
    # The three rows with t > 3/4 are outside the interval of guidance. v_c is evaluated again where
    # r < t: it is part of the guided velocity, and the direction.
    "improved_meanflow": APART + 2 * (N - 3) + APART,
    "split_mean_flow": 2 * APART,  # both legs
    "psd_m": 2 * APART,
    "psd_u": 2 * APART,
    "esd": 2 * APART,  # the driver, and the derivative along it
    "lsd": APART,  # the velocity at the end
    "ect": N,
    "tcm": N,
    "ict": N,
    "sct": N,
    "imm": N,
}


def batch_of(objective):
    rng = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, N, D, generator=rng, dtype=torch.float64)
    t = torch.linspace(0.3, 0.9, N, dtype=torch.float64)
    r, s = 0.4 * t, 0.8 * t
    r[:EQUAL] = t[:EQUAL]
    if objective.columns == ("t", "r", "s"):
        r = torch.zeros_like(t)
    columns = {"t": t, "r": r, "s": s, "diagonal": s}
    times = torch.stack([columns[name] for name in objective.columns], dim=1).squeeze(1)
    uniforms = torch.full((N, objective.uniforms), 0.5, dtype=torch.float64)
    return Pairs(x, e, {"labels": torch.arange(N) % CLASSES}, uniforms=uniforms), times


def rows_of(objective):
    model = Counting()
    pairs, times = batch_of(objective)
    objective.loss(model, pairs, times, rng=torch.Generator())
    return model.rows


@pytest.mark.parametrize("name", TARGETS)
def test_no_row_is_asked_more_often_than_the_method_needs(name):
    rows = rows_of(build("objective", name))
    assert (rows["gradient"], rows["target"]) == (N, TARGETS[name])


def test_terminal_velocity_matching_asks_every_row_twice_with_gradient():
    """The end of the jump, and a row of flow matching beside it."""
    rows = rows_of(build("objective", "tvm"))
    assert (rows["gradient"], rows["target"]) == (2 * N, APART)


def test_the_shortest_steps_have_no_second_leg():
    rows = rows_of(build("objective", "shortcut"))
    assert (rows["gradient"], rows["target"]) == (N, 2 * APART)
