"""Which device a name means, here and in one of several processes."""

import pytest
import torch

from flowexp.errors import UsageError
from flowexp.runs.assemble import resolve_device


@pytest.mark.parametrize(
    ("name", "devices", "place", "expected"),
    [
        ("auto", 0, {}, "cpu"),
        ("auto", 1, {}, "cuda"),
        ("auto", 4, {}, "cuda:0"),
        ("auto", 4, {"WORLD_SIZE": "4", "LOCAL_RANK": "3"}, "cuda:3"),
        ("cuda", 4, {"WORLD_SIZE": "8", "LOCAL_RANK": "2"}, "cuda:2"),
        # more processes than devices
        ("cuda", 2, {"WORLD_SIZE": "4", "LOCAL_RANK": "3"}, "cuda:1"),
        ("cuda:1", 4, {"WORLD_SIZE": "4", "LOCAL_RANK": "3"}, "cuda:1"),
        ("cpu", 4, {"WORLD_SIZE": "4", "LOCAL_RANK": "3"}, "cpu"),
    ],
)
def test_each_process_of_a_node_has_its_own_accelerator(
    name, devices, place, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    for variable in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
        if variable in place:
            monkeypatch.setenv(variable, place[variable])
    assert resolve_device(name) == expected


@pytest.mark.parametrize(("name", "words"), [("foo", "unknown device 'foo'"), ("cuda", "no CUDA")])
def test_a_device_that_is_not_here_is_refused(name, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=words) as caught:
        resolve_device(name)
    assert caught.value.key == "device"
