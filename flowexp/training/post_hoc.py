"""Power-function averages made of the snapshots of a training, after it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flowexp.errors import UsageError
from flowexp.power_averages import post_hoc_shares, std_of_gamma
from flowexp.progress import counted
from flowexp.runs import RunDirectory, read_checkpoint, write_checkpoint
from flowexp.training.ema import EMA, PowerEMA

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["reconstruct"]


def reconstruct(
    run: RunDirectory, emas: Mapping[str, EMA], *, std: float, kimg: float | None = None, name: str
) -> tuple[Path, str]:
    """Store the average of width ``std`` as a checkpoint of the run; one pass over its snapshots.

    Memory is that of one network in float64.

    Args:
        run: A training that kept snapshots.
        emas: Its averages, of which those with a power function are used.
        std: Relative width of the profile, in (0, 0.2886...].
        kimg: Where the profile ends; None = at the last snapshot.
        name: Under which name of an average it is stored.

    Returns:
        The file, and in words what it was made of.

    Raises:
        UsageError: There are no snapshots, or none of a power-function average.
    """
    by_width: dict[float, str] = {}
    for average, ema in emas.items():
        if isinstance(ema, PowerEMA):
            by_width.setdefault(std_of_gamma(ema.gamma), average)
    widths = {average: width for width, average in by_width.items()}
    files = run.kept_snapshots()
    if not files or not widths:
        missing = "no power-function average" if files else "no snapshots"
        raise UsageError(
            f"the training of {run.path} kept {missing}.",
            key="selection",
            remedy="Train with ema=several trainer.snapshot_kimg=..., or take selection=last.",
        )
    images = [int(read_checkpoint(file, mmap=True)["images"]) for file in files]
    end = float(images[-1]) if kimg is None else 1000.0 * kimg
    places = [(file, average) for file in files for average in widths]
    found = post_hoc_shares(
        [n for n in images for _ in widths],
        [width for _ in files for width in widths.values()],
        wanted_times=[end],
        wanted_stds=[std],
    )
    shares = dict(zip(places, found[:, 0].tolist(), strict=True))
    total: dict[str, Tensor] = {}
    with counted("added up", total=len(files), unit="snapshots") as task:
        for file in files:
            content = read_checkpoint(file, mmap=True)
            for average in widths:
                for key, value in content["ema"][average].items():
                    part = value.double() * shares[file, average]
                    total[key] = part if key not in total else total[key].add_(part)
            task.advance()
    like = content["ema"][next(iter(widths))]
    state = {key: value.to(like[key].dtype) for key, value in total.items()}
    until = "" if kimg is None else f"-at-{kimg:g}"
    file = write_checkpoint(
        run.checkpoints / f"post-hoc-{std:g}{until}.ckpt",
        {
            "step": content["step"],
            "images": round(end),
            "seed": content["seed"],
            "network": content["network"],
            "ema": {name: state},
        },
    )
    of = ", ".join(f"{average} ({width:.3g})" for average, width in widths.items())
    words = f"post-hoc average of width {std:g}, of {len(files)} snapshots of {of}"
    return file, words if kimg is None else f"{words}, at {kimg:g} kimg"
