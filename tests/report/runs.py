"""Run directories as training and evaluation leave them, without training."""

import json
from dataclasses import replace
from pathlib import Path

import yaml
from PIL import Image

from flowexp.metrics.protocol import MetricRecord, Protocol

PROTOCOL = Protocol(
    metric="FD",
    extractor="EfficientNet-Lite0 b4, 64px",
    weights_sha256="57934424",
    resize="torch bicubic antialias to 64",
    quantization="uint8",
    reference="digits",
    reference_fingerprint="7b1f",
    reference_split="train",
    n_ref=1497,
    n_gen=200,
    precision="32-true",
    ema="main",
    seeds="0-199",
    sampler="EDMHeun, 18 steps",
    nfe=35.0,
    device="cpu",
)
CONFIG = {
    "seed": 0,
    "dataset": {"name": "digits"},
    "path": {"D": float("inf")},
    "objective": {"loss": "</pre><script>alert(1)</script>"},
    "trainer": {"max_kimg": 16},
    "dirs": {"run": "somewhere"},
}


def entry(value, *, directory="", extra=None, name="fd_efflite0", **protocol):
    """An evaluation as results.json holds it; extra arguments change its protocol."""
    record = MetricRecord(
        name=name,
        value=value,
        protocol=replace(PROTOCOL, **protocol),
        extra={"floor": 8.49} if extra is None else extra,
    )
    return {
        "created": "2026-01-02T03:04:05+00:00",
        "overrides": ["run=run", "num_samples=200"],
        "checkpoint": {"kimg": 16.0, "sha256": "ab", "path": "run/checkpoints/last.ckpt"},
        "directory": directory,
        "count": 200,
        "nfe": 35.0,
        "seconds": 2.0,
        "images_per_second": 100.0,
        "records": [{"key": record.key, **record.to_dict()}],
    }


def rows(count=80):
    """A training's metrics: a falling loss, a schedule, a speed."""
    return [
        {
            "step": 5 * i,
            "kimg": 0.2 * i,
            "train/loss": 10.0 / i,
            "train/learning_rate": 2e-3,
            "time/seconds": 0.5 * i,
            "time/images_per_second": 700.0 + i % 7,
        }
        for i in range(1, count + 1)
    ]


def make_run(path: Path, *, entries=(), config=None, metrics=None, grids=(2, 4), manifest=None):
    """Write a run directory and return its path."""
    (path / "samples").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config or CONFIG))
    (path / "overrides.yaml").write_text(yaml.safe_dump(["experiment=digits/edm", "path.D=inf"]))
    described = {
        "created": "2026-01-02T03:04:05+00:00",
        "command": ["flowexp", "train", "experiment=digits/edm"],
        "code": {"commit": "0123456789abcdef", "dirty": True},
        "packages": {"torch": "2.15.0"},
        "devices": ["x86_64 CPU, 1 threads"],
        "parents": [{"role": "teacher", "path": "outputs/t", "sha256": "cd"}],
        "choices": {"dataset": "digits", "path": "edm", "guidance": "none"},
    }
    (path / "manifest.json").write_text(json.dumps(described if manifest is None else manifest))
    lines = [json.dumps(row) for row in (rows() if metrics is None else metrics)]
    (path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if entries:
        (path / "results.json").write_text(json.dumps({"evaluations": list(entries)}))
    for kimg in grids:
        picture = Image.new("L", (64, 64), 40)
        picture.paste(220, (16, 16, 48, 48))
        picture.save(path / "samples" / f"grid-{kimg:010.3f}.png")
    return path
