"""Tables and claims written for a test, on points of the plane, where everything takes seconds."""

from pathlib import Path

import yaml

TRAIN = [
    "network.hidden=16",
    "network.depth=1",
    "trainer.batch_size=64",
    "trainer.max_kimg=0.64",
    "trainer.log_every=5",
    "callbacks=none",
    "sampler=euler",
]


def job(*overrides, **more):
    """A small training."""
    return {
        "experiment": "toy2d/rectified_flow",
        "overrides": [*TRAIN, "sampler.steps=2", *overrides],
        **more,
    }


def table(rows, *, jobs=None, samples=64, **more):
    """The content of a table's file."""
    return {
        "title": "a table",
        "source": "nobody, 2024",
        "metric": "fd_raw",
        "protocol": {"num_samples": samples, "repetitions": 1},
        "jobs": jobs or {},
        "rows": rows,
        **more,
    }


def claim(arms, *, jobs, **more):
    """The content of a claim's file."""
    return {
        "title": "one is better than the other",
        "source": "nobody, 2024",
        "published": "no figures",
        "metric": "fd_raw",
        "direction": "lower",
        "seeds": [0, 1, 2],
        "num_samples": 64,
        "jobs": jobs,
        "arms": arms,
        **more,
    }


def write(folder: Path, name: str, content, *, kind="table") -> Path:
    """Put a file where ``--config-dir folder`` finds it."""
    file = folder / kind / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return folder
