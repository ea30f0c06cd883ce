"""Two processes have the gradient of one, through a derivative and of a learned weight."""

from pathlib import Path

import pytest
import torch

from flowexp.runs import read_checkpoint
from tests.objectives.flow_map.test_log_variance import trained
from tests.two_processes import in_two_processes


def shared(folder: Path) -> None:
    trained(folder, max_kimg=0.064, devices=2, strategy="ddp", micro_batch=3)


@pytest.mark.slow
def test_two_processes_train_a_self_distilled_flow_map_as_one(tmp_path: Path) -> None:
    """Four steps of LSD; some micro-batches hold only rows with r = t."""
    in_two_processes(shared, tmp_path / "two")
    two = read_checkpoint(tmp_path / "two" / "checkpoints" / "last.ckpt")
    one = trained(tmp_path / "one", max_kimg=0.064)
    assert one["step"] == two["step"] == 4
    assert one["objective"]["linear.weight"].abs().max() > 1e-3
    for group in ("network", "objective"):
        for name, tensor in one[group].items():
            torch.testing.assert_close(two[group][name], tensor, rtol=1e-4, atol=1e-5)
