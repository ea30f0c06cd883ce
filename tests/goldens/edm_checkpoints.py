"""Checks of the EDM golden cases that are checkpoints (collected by test_edm.py)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowexp.config.check import check
from flowexp.models import FlowModel
from flowexp.published import Published, precond_state, read_published
from flowexp.published.model import published_overrides
from flowexp.runs.assemble import build

TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}


def imported_model(published: Published) -> FlowModel:
    """The model that ``flowexp import`` makes of a file, with its averaged weights."""
    parts = build(check("train", published_overrides(published)).sound())
    state = published.weights if published.averaged is None else published.averaged
    parts.network.load_state_dict(state, strict=True)
    parts.network.eval()
    return parts.model


def assert_same_tensors(found: dict[str, Tensor], expected: dict[str, np.ndarray]) -> None:
    """The same names, and bit for bit the same values."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == torch.from_numpy(value).dtype, name
        assert np.array_equal(found[name].numpy(), value), name


def check_checkpoint(case: Path) -> None:
    """Every tensor of the file, and the denoiser that the imported model is."""
    data = np.load(case.with_name(f"{case.stem}_expected.npz"))
    expected = {k.removeprefix("sd/"): data[k] for k in data.files if k.startswith("sd/")}
    assert_same_tensors(precond_state(case), expected)
    model = imported_model(read_published(case))
    x, sigma = torch.from_numpy(data["x"]), torch.from_numpy(data["sigma"]).flatten()
    named = [key for key in ("class_labels", "labels") if key in data.files]
    conditions = {"labels": torch.from_numpy(data[named[0]])} if named else {}
    with torch.inference_mode():
        denoised = model.denoise(x, sigma, **conditions)
    expected_data = torch.from_numpy(data["D"])
    torch.testing.assert_close(denoised, expected_data, **TOLERANCE, check_dtype=False)


CHECKS: dict[str, Callable[[Path], None]] = {"ckpt_": check_checkpoint}
