"""What the training loop costs beyond the arithmetic of its steps.

Trains a network of about eight thousand parameters, where the loop around the steps shows, in two
ways that take turns: a bare loop as one writes it by hand (batch, path, loss, backward, fused Adam,
one average), and ``flowexp.training.fit`` with a progress bar and one logged row per step. Prints
the median over the rounds of the difference per step, in CPU time of this process.

    python scripts/bench_loop.py --rounds 7 --steps 400
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pytorch_lightning import Callback

from flowexp.couplings import Independent
from flowexp.data import BatchStream, as_data
from flowexp.data.toy2d import EightGaussians
from flowexp.models import FlowModel
from flowexp.networks.mlp import MLP
from flowexp.objectives import Regression
from flowexp.objectives.premetrics import SquaredL2
from flowexp.objectives.weightings import Uniform as UnitWeight
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear
from flowexp.paths import Path as FlowPath
from flowexp.runs import RunDirectory
from flowexp.timesteps import Uniform
from flowexp.training import (
    Constant,
    ConstantEMA,
    Progress,
    TrainerSettings,
    TrainingParts,
    fit,
)

BATCH = 64


def parts() -> tuple[FlowModel, EightGaussians, Regression]:
    """Fresh model, data and objective."""
    torch.manual_seed(0)
    network = MLP(in_channels=2, out_channels=2, hidden=28, depth=2, noise_channels=16)
    model = FlowModel(FlowPath(Linear()), network=network, parameterization=VelocityPrediction())
    data = EightGaussians(size=4096, heldout_size=64, num_classes=8)
    return model, data, Regression("velocity", weighting=UnitWeight(), premetric=SquaredL2())


def bare(steps: int, seconds: Callable[[], float]) -> float:
    """Seconds per step of a loop written by hand."""
    model, data, objective = parts()
    stream = BatchStream(data.train(), batch_size=BATCH, seed=0)
    rng = torch.Generator().manual_seed(0)
    parameters = list(model.network.parameters())
    averages = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    law, coupling = Uniform(), Independent()
    start = seconds()
    for step in range(steps):
        x = as_data(stream.batch(step).images)
        e = model.path.source.sample(x.shape, rng=rng)
        t = law.sample(len(x), schedule=model.path.schedule, rng=rng)
        loss = objective.loss(model, coupling.pair(x, e, {}, rng=rng), t, rng=rng).per_sample.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(averages, [p.detach() for p in parameters], 0.001)
    return (seconds() - start) / steps


class _Clock(Callback):
    """CPU time between the start and the end of training, without start-up and last checkpoint."""

    def __init__(self, seconds: Callable[[], float], steps: int) -> None:
        self.seconds = seconds
        self.steps = steps
        self.taken = 0.0

    def on_train_start(self, trainer: object, pl_module: object) -> None:
        """Start."""
        self.taken = -self.seconds()

    def on_train_batch_end(self, trainer: object, pl_module: object, *_: object) -> None:
        """Stop after the last step."""
        self.steps -= 1
        if self.steps == 0:
            self.taken += self.seconds()


def framework(steps: int, seconds: Callable[[], float], *, log_every: int) -> float:
    """Seconds per step of ``fit``."""
    model, data, objective = parts()
    clock = _Clock(seconds, steps)
    with tempfile.TemporaryDirectory() as folder:
        parts_of_training = TrainingParts(
            model=model,
            dataset=data,
            coupling=Independent(),
            timestep=Uniform(),
            objective=objective,
            optimizer=partial(torch.optim.Adam, lr=1e-3, fused=True),
            lr_schedule=Constant(),
            emas={"main": ConstantEMA(decay=0.999)},
            settings=TrainerSettings(
                max_kimg=steps * BATCH / 1000,
                batch_size=BATCH,
                accelerator="cpu",
                log_every=log_every,
            ),
            callbacks={"progress": Progress(), "clock": clock},
        )
        run = RunDirectory.start(Path(folder) / "run", config={})
        fit(parts_of_training, run=run, seed=0, config={})
    return clock.taken / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--log-every", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run_bare = partial(bare, arguments.steps, time.process_time)
    run_fit = partial(framework, arguments.steps, time.process_time, log_every=arguments.log_every)
    run_fit(), run_bare()
    plains, loops = [], []
    for number in range(arguments.rounds):
        if number % 2:
            loop, plain = run_fit(), run_bare()
        else:
            plain, loop = run_bare(), run_fit()
        plains.append(plain * 1e6)
        loops.append(loop * 1e6)
    over = sorted(loop - plain for plain, loop in zip(plains, loops, strict=True))
    print(
        f"bare step: median {statistics.median(plains):.0f} us, least {min(plains):.0f} us\n"
        f"flowexp loop, bar on, a row every {arguments.log_every} step(s), over the bare step: "
        f"median {statistics.median(over):.0f} us [{over[0]:.0f} .. {over[-1]:.0f}], "
        f"difference of the least {min(loops) - min(plains):.0f} us"
    )


if __name__ == "__main__":
    main()
