"""FlowTurbo: block samplers and the refiner's loss against the authors' code."""

from pathlib import Path as File

import numpy as np
import torch

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import VelocityRefinement
from flowexp.paths import Linear, Path, Prediction
from flowexp.samplers import Uniform, VelocityBlocks
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

TOLERANCE = 1e-10


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key], dtype=np.float64))


def mixture(data):
    path = Path(Linear())
    return MixtureModel(path, data["gmm_w"], data["gmm_m"], data["gmm_c"], time_range=(-1.0, 1.0))


class TanhRefiner(Model):
    """The file's refiner; its sign and time are the source's: ``v_src = -v``, ``s = 1 - t``."""

    def __init__(self, data):
        self.path = Path(Linear())
        self.time_range = (-1.0, 1.0)
        self.a, self.b, self.c = (tensor(data, f"ref_{k}") for k in "ABc")
        self.calls = 0

    def predict(self, x_t, t, *, velocity, **conditions):
        self.calls += 1
        x, source = x_t.flatten(1), -velocity.flatten(1)
        s = (1.0 - t).reshape(-1, 1)
        r = 0.2 * torch.tanh(x @ self.a.T + source @ self.b.T + s * self.c)
        refined = velocity - r.reshape(x_t.shape)
        return Prediction.of_velocity(self.path, x_t, t, refined)


def check_sampler(case: File):
    data = np.load(case)
    refiner = TanhRefiner(data)
    blocks = f"H{int(data['N_H'])}P{int(data['N_P'])}R{int(data['N_R'])}"
    sampler = VelocityBlocks(
        blocks=blocks, time_grid=Uniform(), refiner=refiner, stale_refinement=True
    )
    model, states = mixture(data), []
    samples = sampler.sample(model, tensor(data, "x_init"), on_step=lambda t, x: states.append(x))
    torch.testing.assert_close(
        torch.stack(states), tensor(data, "x_states"), rtol=0, atol=TOLERANCE
    )
    assert samples.nfe.tolist() == [int(data["predictor_calls"])] * len(samples.x)
    assert refiner.calls == int(data["refiner_calls"])
    check_velocities(data, sampler, model, states)


def check_velocities(data, sampler, model, states):
    """The velocity each block hands on, in the source's sign."""
    caches = []
    block = sampler._block

    def recorded(kind):
        def run(*arguments):
            x, velocity = block(kind)(*arguments)
            caches.append(-velocity)
            return x, velocity

        return run

    sampler._block = recorded
    sampler.sample(model, tensor(data, "x_init"))
    torch.testing.assert_close(torch.stack(caches), tensor(data, "v_cache"), rtol=0, atol=TOLERANCE)


def check_refiner_loss(case: File):
    data = np.load(case)
    model, refiner = mixture(data), TanhRefiner(data)
    objective = VelocityRefinement(teacher=model, label_dropout=0.0, clip=False)
    pairs = Pairs(x=tensor(data, "x_data"), e=tensor(data, "e"), conditions={})
    t = 1.0 - tensor(data, "t_ft")
    point = model.path.point(pairs.x, pairs.e, t)
    dt = tensor(data, "dt").reshape(1)
    loss = objective.deviation(refiner, point.x_t, point.t, dt=dt, first={}, later={})
    torch.testing.assert_close(loss, tensor(data, "loss_each"), rtol=0, atol=TOLERANCE)


CHECKS = {"sampler_": check_sampler, "refiner_loss": check_refiner_loss}


@parametrize("flowturbo")
def test_flowturbo(case):
    dispatch(case, CHECKS)
