"""The library face: ``flowexp.load``, ``Pipeline``, ``flowexp.evaluate``; no Hydra, no folder."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import flowexp
from flowexp.errors import UsageError
from flowexp.tasks import Generation
from tests.evaluation.tiny import SHAPE, pipeline


def test_a_run_is_loaded_and_sampled(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe = flowexp.load(trained_run, device="cpu")
    images = pipe.sample(seeds=range(6), labels=3)
    assert images.shape == (6, 1, 8, 8)
    assert images.dtype == torch.float32
    assert images.uint8().dtype == torch.uint8
    assert [picture.size for picture in images.pil()] == [(8, 8)] * 6
    with Image.open(images.save_grid("grid.png", columns=3)) as grid:
        assert grid.width > grid.height
    # the same as the command line makes of the same seeds
    one_by_one = pipe.replace(batch_size=1).sample(seeds=range(6), labels=[3] * 6)
    torch.testing.assert_close(one_by_one, images, rtol=0, atol=1e-5)


def test_the_sampler_can_be_replaced(trained_run):
    pipe = flowexp.load(str(trained_run), device="cpu")
    fast = pipe.replace(sampler=flowexp.samplers.UniPC(steps=4))
    assert next(fast.batches([0])).nfe.tolist() == [4]
    assert not torch.equal(fast.sample([0]), pipe.sample([0]))


def test_an_evaluation_says_number_protocol_and_floor(trained_run):
    pipe = flowexp.load(trained_run, device="cpu", batch_size=64)
    result = flowexp.evaluate(pipe, metric="fd_raw", num_samples=70)
    (record,) = result.records
    assert (record.name, record.protocol.n_gen, record.protocol.seeds) == ("fd_raw", 70, "0-69")
    assert record.value > 0.0
    text = str(result)
    for part in ("FD[raw values] 70", f"{record.value:.4g}", "floor", "NFE"):
        assert part in text


def test_what_cannot_be_loaded_or_measured_is_said(trained_run, tmp_path):
    with pytest.raises(UsageError, match="run directory"):
        flowexp.load(tmp_path)
    file = tmp_path / "model.pkl"
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="neither") as refused:
        flowexp.load(file)
    assert f"flowexp import {file}" in refused.value.remedy
    pipe = flowexp.load(trained_run, device="cpu")
    with pytest.raises(UsageError, match="fd_rav"):
        flowexp.evaluate(pipe, metric="fd_rav", num_samples=4)
    with pytest.raises(UsageError, match="no data set"):
        flowexp.evaluate(pipe.replace(dataset=None), metric="fd_raw", num_samples=4)


@pytest.mark.parametrize(
    ("labels", "task", "problem"),
    [
        (3, Generation(num_classes=3), "allowed: -1 to 2"),
        ([0, 1], Generation(num_classes=3), r"expected \(3,\)"),
        (0, Generation(), "unconditional"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, task, problem):
    with pytest.raises(ValueError, match=problem):
        pipeline(task=task).sample(range(3), labels=labels)


def test_labels_win_over_those_of_the_task():
    always_two = pipeline(task=Generation(num_classes=3, label=2))
    assert torch.equal(always_two.sample(range(3)), pipeline().sample(range(3), labels=2))
    assert always_two.sample(range(3)).shape == (3, *SHAPE)


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch", "pytorch_lightning", "hydra", "omegaconf", "numpy"
    program = f"import sys, flowexp; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = flowexp.no_such_name
