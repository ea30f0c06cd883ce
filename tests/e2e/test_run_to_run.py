"""One run leads to the next: going on with a run, and starting another from it."""

import json

import pytest
import torch

from tests.e2e.command import TINY, flowexp
from tests.e2e.test_resume import equal, losses

pytestmark = pytest.mark.e2e

LONGER = "trainer.max_kimg=0.512"


def test_a_run_goes_on_and_another_starts_from_it(trained_run):
    cwd, run = trained_run.parent, trained_run
    written = [run / "config.yaml", run / "metrics.jsonl", run / "checkpoints/last.ckpt"]
    before = [file.read_bytes() for file in written]
    done = flowexp("train", "run=run", cwd=cwd)
    assert done.code == 0, done.err
    assert "0.256 of 0.256 kimg" in done.out
    assert f"flowexp train run=run {LONGER}" in done.out
    assert [file.read_bytes() for file in written] == before

    refused = flowexp("train", "run=run", "optimizer.lr=0.1", cwd=cwd)
    assert refused.code == 2
    assert (
        "optimizer.lr: run has been trained with 0.001 and cannot continue with 0.1" in refused.err
    )
    assert refused.out == ""

    longer = flowexp("train", "run=run", LONGER, cwd=cwd)
    assert longer.code == 0, longer.err
    assert "continuing at step 8" in longer.err
    seconds = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["time/seconds"]
    earlier = json.loads(before[1].splitlines()[-1])["time/seconds"]
    assert seconds > earlier > 0
    assert f"0.512 kimg in {seconds:.0f} s" in longer.out
    whole = flowexp("train", *TINY, LONGER, "dirs.run=whole", cwd=cwd)
    assert whole.code == 0, whole.err
    assert losses(run) == losses(cwd / "whole")
    a, b = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        for folder in (run, cwd / "whole")
    )
    for key in a.keys() - {"config"}:
        assert equal(a[key], b[key]), key

    start = ("trainer.max_kimg=0.032", "optimizer.lr=1e-6")
    new = flowexp("train", "from=run", *start, "dirs.run=new", cwd=cwd)
    assert new.code == 0, new.err
    manifest = json.loads((cwd / "new/manifest.json").read_text())
    assert manifest["parents"]["init"]["run"] == "run"
    assert manifest["choices"]["network"] == "unet"
    first = torch.load(cwd / "new/checkpoints/last.ckpt", weights_only=True)["network"]
    for name, tensor in a["network"].items():
        torch.testing.assert_close(first[name], tensor, atol=1e-4, rtol=0.0)
