"""Frames per second with the stages of successive frames batched, and one by one.

A U-Net of the quickstart's size takes frames of 3 x 32 x 32 in 1 to 5 stages, under each kind of
guidance, in two ways that take turns: all stages of successive frames in one call
(``StreamBatch.push``), and the stages of every frame one after the other
(``StreamBatch.sequential``). Both give the same results; the script checks that first.

    python scripts/bench_streaming.py

Writes ``stream_batch.json`` and ``stream_batch.md``.
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.files import write_json, write_text
from flowexp.models import FlowModel
from flowexp.networks.unet import UNet
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear
from flowexp.paths import Path as FlowPath
from flowexp.pipeline import Pipeline
from flowexp.runs.manifest import processor
from flowexp.samplers import Euler
from flowexp.streaming import (
    FullNegative,
    NoNegative,
    OneTimeNegative,
    ResidualGuidance,
    SelfNegative,
    StreamBatch,
)

NAME = "stream_batch"
SHAPE = (3, 32, 32)
STAGES = (1, 2, 3, 4, 5)
SCALE = 1.2
GUIDANCE: dict[str, ResidualGuidance] = {
    "none": NoNegative(),
    "self": SelfNegative(scale=SCALE),
    "one_time": OneTimeNegative(scale=SCALE),
    "full": FullNegative(scale=SCALE),
}
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Row:
    """One number of stages under one kind of guidance.

    Attributes:
        stages: Stages of a frame.
        guidance: Kind of guidance.
        evaluations: Network evaluations a frame.
        batched_ms: Milliseconds a frame, batched: median over the rounds.
        sequential_ms: The same, one by one.
        ratio: Frames per second batched over one by one: median over the rounds.
        spread: Smallest and largest round of the ratio.
    """

    stages: int
    guidance: str
    evaluations: int
    batched_ms: float
    sequential_ms: float
    ratio: float
    spread: tuple[float, float]


def model_on(device: str) -> FlowModel:
    """A U-Net of 0.64 M parameters with random weights; its arithmetic is all that matters."""
    torch.manual_seed(0)
    network = UNet(
        img_resolution=32, in_channels=3, out_channels=3, pixel_unshuffle=2, label_dim=10
    )
    return FlowModel(
        FlowPath(Linear()),
        network=network.to(device).eval(),
        parameterization=VelocityPrediction(),
    )


def stream_of(
    model: FlowModel, stages: int, guidance: ResidualGuidance, device: str
) -> StreamBatch:
    """Stages between t = 0.6 and 0.1."""
    times = torch.linspace(0.6, 0.1, stages).tolist()
    pipeline = Pipeline(model=model, sampler=Euler(steps=1), shape=SHAPE, device=device)
    return StreamBatch(
        pipeline,
        times=times,
        guidance=guidance,
        conditions={"labels": torch.tensor([3], device=device)},
    )


def check_equal(stream: StreamBatch, frames: Sequence[Tensor]) -> None:
    """Batched and one by one must agree before they are timed.

    Raises:
        RuntimeError: They do not.
    """
    stream.reset()
    results = [x for frame in frames if (x := stream.push(frame)) is not None] + stream.flush()
    for frame, result in zip(frames, results, strict=True):
        difference = float((result - stream.sequential(frame)).abs().max())
        if difference > TOLERANCE:
            raise RuntimeError(f"batched and sequential results differ by {difference}")


def seconds_of(action: Callable[[Tensor], Any], frames: Sequence[Tensor], device: str) -> float:
    """Wall seconds a frame."""
    start = time.perf_counter()
    for frame in frames:
        action(frame)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(frames)


def measured(
    model: FlowModel, stages: int, name: str, *, rounds: int, count: int, device: str
) -> Row:
    """The row of one number of stages and kind of guidance."""
    stream = stream_of(model, stages, GUIDANCE[name], device)
    rng = torch.Generator().manual_seed(0)
    frames = list((torch.rand(count, 1, *SHAPE, generator=rng) * 2.0 - 1.0).to(device))
    check_equal(stream, frames[: stages + 1])
    before = stream.evaluations
    stream.sequential(frames[0])
    evaluations = stream.evaluations - before
    batched, single = [], []
    for number in range(rounds):
        turns = [(stream.push, batched), (stream.sequential, single)]
        for action, taken in turns if number % 2 else reversed(turns):
            taken.append(seconds_of(action, frames, device) * 1e3)
    ratios = [b / a for a, b in zip(batched, single, strict=True)]
    return Row(
        stages,
        name,
        evaluations,
        statistics.median(batched),
        statistics.median(single),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
    )


def report(result: dict[str, Any], rows: Sequence[Row]) -> str:
    """The Markdown file."""
    lines = [
        "# Stream batch",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}, torch {result['torch']}, "
        f"{result['threads']} thread(s), wall time, median of {result['rounds']} rounds in turn, "
        f"{result['frames']} frames each. U-Net of 0.64 M parameters, frames 3 x 32 x 32, one "
        "frame a call, float32.",
        "",
        "| stages | guidance | evaluations a frame | batched ms | one by one ms | frames/s batched "
        "over one by one |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.stages} | {r.guidance} | {r.evaluations} | {r.batched_ms:.2f} | "
        f"{r.sequential_ms:.2f} | {r.ratio:.2f} [{r.spread[0]:.2f} .. {r.spread[1]:.2f}] |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("outputs/tables"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = model_on(arguments.device)
    rows = [
        measured(
            model,
            stages,
            name,
            rounds=arguments.rounds,
            count=arguments.frames,
            device=arguments.device,
        )
        for stages in STAGES
        for name in GUIDANCE
    ]
    result = {
        "command": "python scripts/bench_streaming.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name() if arguments.device == "cuda" else processor(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "frames": arguments.frames,
        "rows": [asdict(row) for row in rows],
    }
    text = report(result, rows)
    print(text)
    write_json(arguments.out / f"{NAME}.json", result)
    write_text(arguments.out / f"{NAME}.md", text)


if __name__ == "__main__":
    main()
