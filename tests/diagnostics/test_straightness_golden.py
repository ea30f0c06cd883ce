"""Straightness of stored trajectories against the code of Lee et al."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.diagnostics.straightness import straightness
from tests.goldens.harness import cases

CASES = [path for path in cases("rectified-flow") if path.name.startswith("straightness")]


def test_there_are_cases():
    assert CASES


@pytest.mark.parametrize("case", CASES, ids=[path.stem for path in CASES])
def test_straightness(case: Path):
    data = np.load(case)
    found = straightness(torch.from_numpy(data["traj"]))
    expected = torch.from_numpy(data["S_per_sample"])
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-10)
    assert float(found.mean()) == pytest.approx(float(data["S_mean"]), abs=1e-10)
