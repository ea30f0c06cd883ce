"""RF-Solver's grid, sampling, inversion and sharing of features against the authors' code."""

import numpy as np
import torch
from torch import nn

from flowexp.networks.attention_features import AttentionValues
from flowexp.paths import Linear, Path
from flowexp.samplers import Editing, Inversion, Midpoint, RFSolver, TokenShifted, Uniform
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
EXACT = {"rtol": 0, "atol": 0}
# where the finite difference of the paper's text looks ahead
PAPER_STEP = 0.01


class Probe(MixtureModel):
    """The analytic model, which also sends the number of each call through an attention layer."""

    def __init__(self, data):
        super().__init__(Path(Linear()), *(data[f"gmm_{key}"] for key in "wmc"))
        self.network = nn.Sequential(AttentionValues())
        self.received = []

    def predict(self, x_t, t, **conditions):
        number = torch.full((1, 1), float(len(self.received)))
        self.received.append(int(self.network(number)))
        return super().predict(x_t, t, **conditions)


def sampler_of(data, **options):
    steps = int(data["num_steps"])
    grid = TokenShifted(tokens=int(data["image_seq_len"])) if data["shift"] else Uniform()
    return RFSolver(steps=steps, time_grid=grid, **options)


def edited(data, inject):
    """The round trip, and for each call of it the number of the call whose features it got."""
    model = Probe(data)
    sampler = sampler_of(data)
    result = Editing(sampler, inject=inject).edit(
        model,
        model,
        torch.from_numpy(data["x_data"]),
        network=model.network,
        source_conditions={},
        target_conditions={},
    )
    return model, result


def check_walks(data):
    model = Probe(data)
    sampler = sampler_of(data)
    torch.testing.assert_close(
        sampler.times(model), torch.from_numpy(data["timesteps"]), rtol=0, atol=1e-14
    )
    x = sampler.sample(model, torch.from_numpy(data["x_src"]))
    torch.testing.assert_close(x.x, torch.from_numpy(data["sampled"]), **TOLERANCE)
    assert x.nfe.tolist() == [2 * sampler.steps] * len(x.nfe)
    midpoint = Midpoint(steps=sampler.steps, time_grid=sampler.time_grid)
    same = midpoint.sample(model, torch.from_numpy(data["x_src"]))
    torch.testing.assert_close(same.x, x.x, **EXACT)
    e = Inversion(sampler).invert(model, torch.from_numpy(data["x_data"]))
    torch.testing.assert_close(e.x, torch.from_numpy(data["inverted"]), **TOLERANCE)
    back = sampler.sample(model, e.x)
    torch.testing.assert_close(back.x, torch.from_numpy(data["reconstructed"]), **TOLERANCE)
    paper = sampler_of(data, fd_step=PAPER_STEP).sample(model, torch.from_numpy(data["x_src"]))
    torch.testing.assert_close(paper.x, torch.from_numpy(data["taylor_fd_dt001"]), **TOLERANCE)


def check_calls(data):
    """Rows (time, time in the key, inverse, second evaluation, inject) of every call."""
    steps, inject = int(data["num_steps"]), int(data["inject_step"])
    everywhere, result = edited(data, steps)
    some, _ = edited(data, inject)
    calls = 2 * steps
    times = [float(t) for t in everywhere.times]
    keys = [(key.upper, float(key.stage)) for key in result.shared]
    # of every sampling call, the number of the inversion's call that has the same key
    partners = everywhere.received[calls:]
    injected = [got != calls + i for i, got in enumerate(some.received[calls:])]
    sampling = [
        (t, key[0], 0.0, key[1], float(given))
        for t, key, given in zip(times[calls:], keys, injected, strict=True)
    ]
    inverting = [(0.0,) * 5] * calls
    for partner, key, given in zip(partners, keys, injected, strict=True):
        inverting[partner] = (times[partner], key[0], 1.0, key[1], float(given))
    np.testing.assert_allclose(sampling, data["calls_sample"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(inverting, data["calls_invert"], rtol=0, atol=1e-12)
    torch.testing.assert_close(result.x, torch.from_numpy(data["reconstructed"]), **TOLERANCE)
    torch.testing.assert_close(result.e, torch.from_numpy(data["inverted"]), **TOLERANCE)


def check(case):
    with np.load(case, allow_pickle=False) as stored:
        data = {key: np.array(stored[key]) for key in stored.files}
    check_walks(data)
    check_calls(data)


@parametrize("rf-solver")
def test_golden(case):
    dispatch(case, {"steps": check})
