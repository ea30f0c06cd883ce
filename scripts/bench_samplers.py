"""The cost of every sampler beside the network: microseconds per step, at batch 1 and 64.

The samplers of ``conf/sampler`` take turns with a bare loop that calls the network as often, in one
process, on one thread, in CPU time; DPM-Solver-v3 with made-up statistics of a sample's shape,
since their values cost nothing; BOSS is Euler's method at times that were found before. Beside the
network's own milliseconds their cost would drown in the noise of the clock; so the network is a
stand-in of the same input and output that costs almost nothing, and a real U-Net is timed beside
it. Allowed are 50 us a step and 2 % of the U-Net's time. As a cross-check some samplers are timed
with the U-Net itself.

    python scripts/bench_samplers.py

Writes ``sampler_overhead.json`` and ``sampler_overhead.md``.
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.apps.list import options
from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.errors import UsageError
from flowexp.files import write_json, write_text
from flowexp.models import FlowModel, Model
from flowexp.networks.unet import UNet
from flowexp.parameterizations import EDMPreconditioning, VelocityPrediction
from flowexp.paths import VE, Linear
from flowexp.paths import Path as FlowPath
from flowexp.runs.manifest import processor
from flowexp.samplers import DPMSolverV3, Sampler, Samples
from flowexp.samplers.model_statistics import ModelStatistics, Statistics
from flowexp.seeding import SampleNoise

NAME = "sampler_overhead"
SHAPE = (3, 32, 32)
STEPS = 18
BATCHES = (1, 64)
# (sampler, batch, rounds) of the cross-check; a call at batch 64 takes 0.1 s and more
WITH_UNET = (("euler", 1, 7), ("heun", 1, 5), ("ddim", 1, 7), ("euler", 64, 3))
ALLOWED_US, ALLOWED_SHARE = 50.0, 0.02
SECONDS = 0.12
SDES = ("sde", "sde_heun")


class StandIn(nn.Module):
    """A network that answers at once: its input."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """The input itself."""
        return x


class MadeUpStatistics(Statistics):
    """Numbers of the shape of those that ``flowexp calibrate`` measures."""

    def __init__(self) -> None:
        self._last: ModelStatistics | None = None

    def of(self, model: Model, low: float, high: float) -> ModelStatistics:
        """The same numbers at each of 1,201 levels from ``low`` to ``high``."""
        if self._last is None:
            lam = torch.linspace(low, high, 1201, dtype=torch.float64)
            ones = torch.ones(len(lam), *SHAPE, dtype=torch.float64)
            self._last = ModelStatistics(lam, 0.9 * ones, -0.1 * ones, 0.01 * ones)
        return self._last


@dataclass(frozen=True)
class Row:
    """One sampler on one path with one batch size.

    Attributes:
        sampler: Option of ``conf/sampler``.
        path: Name of the path.
        batch: Samples per call.
        steps: Steps of the walk; of an adaptive method, its rounds of attempts.
        nfe: Network calls.
        us_per_step: Time beside the network in the fastest round: what else the computer does can
            only add to it.
        median_us: Median over the rounds.
        network_us: The U-Net's fastest call.
        allowed_us: 50 us and 2 % of the U-Net's time for the calls of a step.
    """

    sampler: str
    path: str
    batch: int
    steps: int
    nfe: int
    us_per_step: float
    median_us: float
    network_us: float
    allowed_us: float


def sampler_named(name: str, path: str) -> Sampler:
    """The sampler with its default options, 18 steps."""
    overrides = [f"sampler={name}", f"path={path}", "dataset=digits", "network=unet"]
    config = check_job("train", overrides).config["sampler"]
    if "steps" in config:
        config["steps"] = STEPS
    if name in SDES and path == "edm":
        # An SDE's last step has to begin where the model is defined, above 0.
        config["time_grid"]["t_end"] = 0.002
    sampler: Sampler = instantiate(config, key="sampler")
    if isinstance(sampler, DPMSolverV3):
        sampler.statistics = MadeUpStatistics()
    return sampler


def model_on(path: str, network: nn.Module) -> FlowModel:
    """The linear path with velocity prediction, or the VE path with EDM's preconditioning."""
    if path == "linear":
        return FlowModel(FlowPath(Linear()), network=network, parameterization=VelocityPrediction())
    return FlowModel(FlowPath(VE()), network=network, parameterization=EDMPreconditioning())


class Contest:
    """A sampler against a bare loop of as many calls of the same network."""

    def __init__(self, name: str, path: str, network: nn.Module, batch: int) -> None:
        self.name, self.path, self.network = name, path, network
        self.model = model_on(path, network)
        self.sampler = sampler_named(name, path)
        self.sampler.check(self.model)
        self.e = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.noise = SampleNoise(range(batch)) if self.sampler.needs_gaussian else None
        self.nfe = int(self._samples().nfe.max())
        self.steps = int(getattr(self.sampler, "steps", max(1, (self.nfe - 2) // 6)))

    def _samples(self) -> Samples:
        return self.sampler.sample(self.model, self.e, noise=self.noise)

    def sampled(self) -> float:
        """Seconds of one sampling."""
        start = time.process_time()
        self._samples()
        return time.process_time() - start

    def bare(self) -> float:
        """Seconds of as many calls of the network alone."""
        c_noise = torch.zeros(len(self.e))
        with torch.inference_mode():
            start = time.process_time()
            for _ in range(self.nfe):
                self.network(self.e, c_noise)
            return time.process_time() - start

    def overhead(self, *, sampled_first: bool, seconds: float) -> float:
        """Microseconds per step beside the network, over about so many seconds."""
        order = (self.sampled, self.bare) if sampled_first else (self.bare, self.sampled)
        repeats = max(1, round(seconds / max(self.sampled(), 1e-6)))
        taken = {turn.__name__: 0.0 for turn in order}
        for _ in range(repeats):
            for turn in order:
                taken[turn.__name__] += turn()
        return (taken["sampled"] - taken["bare"]) / repeats / self.steps * 1e6


def unet() -> UNet:
    """A U-Net of 0.64 M parameters, as in the quickstart, for 32 x 32 x 3."""
    torch.manual_seed(0)
    network = UNet(img_resolution=32, in_channels=3, out_channels=3, pixel_unshuffle=2)
    return network.eval()


def network_us(network: nn.Module, batch: int) -> float:
    """Microseconds of one call, after another."""
    x, c_noise = torch.randn(batch, *SHAPE), torch.zeros(batch)
    with torch.inference_mode():
        network(x, c_noise)
        start = time.process_time()
        network(x, c_noise)
        return (time.process_time() - start) * 1e6


def contests(names: Sequence[str]) -> tuple[list[Contest], dict[str, str]]:
    """Every sampler on both paths with both batch sizes, and why some are left out."""
    found: list[Contest] = []
    left_out: dict[str, str] = {}
    for name in names:
        for path in ("linear", "edm"):
            try:
                found += [Contest(name, path, StandIn(), batch) for batch in BATCHES]
            except (ValueError, UsageError) as error:
                left_out[f"{name} on {path}"] = str(error).splitlines()[0]
    return found, left_out


def measured(those: Sequence[Contest], rounds: int, network: nn.Module) -> list[Row]:
    """The rows. A round goes through all of them, so that a busy moment spoils no row's rounds."""
    us: list[list[float]] = [[] for _ in those]
    calls: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for number in range(rounds):
        for batch, taken in calls.items():
            taken.append(network_us(network, batch))
        for contest, found in zip(those, us, strict=True):
            even = number % 2 == 0
            found.append(contest.overhead(sampled_first=even, seconds=SECONDS / rounds))
    rows = []
    for contest, found in zip(those, us, strict=True):
        call = min(calls[len(contest.e)])
        allowed = ALLOWED_US + ALLOWED_SHARE * call * contest.nfe / contest.steps
        facts = (contest.name, contest.path, len(contest.e), contest.steps, contest.nfe)
        rows.append(Row(*facts, min(found), statistics.median(found), call, allowed))
    return rows


def noise_us(batch: int) -> float:
    """Microseconds of the noise of a step, drawn per sample, in the fastest round."""
    noise, like = SampleNoise(range(batch)), torch.zeros(batch, *SHAPE, dtype=torch.float64)
    taken = []
    for step in range(21):
        start = time.process_time()
        noise(step, like)
        taken.append((time.process_time() - start) * 1e6)
    return min(taken[1:])


def cross_check(network: nn.Module, calls: dict[int, float]) -> list[dict[str, Any]]:
    """Time of whole samplings with the U-Net over that of its calls alone."""
    found = []
    for name, batch, rounds in WITH_UNET:
        contest = Contest(name, "linear", network, batch)
        us = [contest.overhead(sampled_first=n % 2 == 0, seconds=0.0) for n in range(rounds)]
        step = calls[batch] * contest.nfe / contest.steps
        shares = [value / step for value in us]
        found.append(
            {
                "sampler": name,
                "batch": batch,
                "network_us_per_step": step,
                "overhead_share": statistics.median(shares),
                "spread": [min(shares), max(shares)],
            }
        )
    return found


def table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table."""
    lines = [
        "| sampler | path | batch | steps | NFE | us/step | median | us/NFE | allowed us/step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.sampler} | {r.path} | {r.batch} | {r.steps} | {r.nfe} | {r.us_per_step:.0f} | "
        f"{r.median_us:.0f} | {r.us_per_step * r.steps / r.nfe:.0f} | "
        f"{r.allowed_us:.0f}{'' if r.us_per_step <= r.allowed_us else ' (missed)'} |"
        for r in rows
    ]
    return lines


def report(result: dict[str, Any], rows: Sequence[Row]) -> str:
    """The Markdown file."""
    calls = ", ".join(f"{us / 1e3:.2f} ms at batch {b}" for b, us in result["unet_us"].items())
    draws = ", ".join(f"{us:.0f} us at batch {b}" for b, us in result["noise_us"].items())
    lines = [
        "# Sampler overhead",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}, torch {result['torch']}, "
        f"one thread, CPU time, the fastest of {result['rounds']} rounds (and their median), in "
        "turn with a bare loop of as many network calls. States 3 x 32 x 32, float64 between "
        "steps.",
        "",
        "The network is a stand-in that returns its input, so that the difference is the sampler's "
        f"own cost, its preparations included. Allowed: 50 us a step and 2 % of a U-Net of 0.64 M "
        f"parameters ({calls}). A step of an adaptive method is a round of attempts (6 NFE). The "
        f"normal draws of stochastic samplers are included; they alone take {draws} a step.",
        "",
        *table(rows),
        "",
    ]
    lines += [f"- without a row: {name}: {why}" for name, why in result["left_out"].items()]
    if result["cross_check"]:
        lines += ["", "With the U-Net itself, share of its own time (noise included):", ""]
    lines += [
        f"- {c['sampler']}, batch {c['batch']}: {c['overhead_share']:.2%} "
        f"[{c['spread'][0]:.2%} .. {c['spread'][1]:.2%}] of {c['network_us_per_step'] / 1e3:.1f} ms"
        for c in result["cross_check"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--samplers", nargs="*", default=None, help="all by default")
    parser.add_argument("--no-unet", action="store_true", help="skip the cross-check")
    parser.add_argument("--out", type=Path, default=Path("outputs/tables"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = unet()
    those, left_out = contests(arguments.samplers or options("sampler"))
    rows = measured(those, arguments.rounds, network)
    calls = {row.batch: row.network_us for row in rows}
    result = {
        "command": "python scripts/bench_samplers.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": processor(),
        "torch": torch.__version__,
        "rounds": arguments.rounds,
        "unet_us": calls,
        "noise_us": {batch: noise_us(batch) for batch in BATCHES},
        "rows": [asdict(row) for row in rows],
        "left_out": left_out,
        "cross_check": [] if arguments.no_unet else cross_check(network, calls),
    }
    text = report(result, rows)
    print(text)
    write_json(arguments.out / f"{NAME}.json", result)
    write_text(arguments.out / f"{NAME}.md", text)


if __name__ == "__main__":
    main()
