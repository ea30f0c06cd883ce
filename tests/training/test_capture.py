import pytest
import torch

from flowexp.training.module import skip_capture_check


def steps(optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    for _ in range(3):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    return x.detach().clone()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_the_steps_stay_the_same(kind):
    results = []
    for skip in (False, True):
        x = torch.arange(4.0, requires_grad=True)
        optimizer = kind([x], lr=0.1)
        if skip:
            skip_capture_check(optimizer, torch.device("cpu"))
        results.append(steps(optimizer, x))
    assert torch.equal(*results)


def test_the_cpu_is_not_asked_for_accelerators(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda *a, **k: asked.append(1), raising=True
    )
    x = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.AdamW([x], lr=0.1)
    skip_capture_check(optimizer, torch.device("cpu"))
    steps(optimizer, x)
    assert asked == []


def test_other_devices_keep_the_check():
    x = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.AdamW([x], lr=0.1)
    before = dict(vars(optimizer))
    skip_capture_check(optimizer, torch.device("cuda"))
    assert vars(optimizer).keys() == before.keys()
