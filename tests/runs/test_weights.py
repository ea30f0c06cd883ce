"""Loading weights: what is loaded, and what each failure says."""

from pathlib import Path

import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.files import file_sha256, write_torch
from flowexp.runs import RunDirectory, write_checkpoint
from flowexp.runs.weights import load_weights


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.start(tmp_path / "run", config={"seed": 0})
    net = network()
    net[1].running_mean.fill_(3.0)
    average = {name: torch.full_like(p, 0.25) for name, p in net.named_parameters()}
    content = {"step": 7, "images": 448, "network": net.state_dict(), "ema": {"main": average}}
    write_checkpoint(run.checkpoints / "last.ckpt", content)
    return run


def test_an_average_takes_its_buffers_from_the_network(run: RunDirectory) -> None:
    net = network()
    loaded = load_weights(run, net, weights="main")
    assert (loaded.step, loaded.kimg, loaded.name) == (7, 0.448, "main")
    assert loaded.sha256 == file_sha256(run.checkpoints / "last.ckpt")
    assert all(bool((p == 0.25).all()) for p in net.parameters())
    assert net[1].running_mean.tolist() == [3.0] * 4


def test_raw_weights(run: RunDirectory) -> None:
    net = network()
    assert load_weights(run, net, weights="raw").name == "raw"
    stored = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    assert torch.equal(net[0].weight, stored["network"]["0.weight"])


def test_an_unknown_average_names_those_there_are(run: RunDirectory) -> None:
    with pytest.raises(UsageError, match=r"weights: .*no average 'wide'.*It has: main"):
        load_weights(run, network(), weights="wide")


def test_a_truncated_checkpoint_is_named(run: RunDirectory) -> None:
    path = run.checkpoints / "last.ckpt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match=r"last\.ckpt cannot be read: it is truncated, damaged"):
        load_weights(run, network(), weights="raw")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04\x95"])
def test_other_files_are_refused(run: RunDirectory, content: bytes) -> None:
    (run.checkpoints / "last.ckpt").write_bytes(content)
    with pytest.raises(UsageError, match=r"last\.ckpt cannot be read"):
        load_weights(run, network(), weights="raw")


def test_code_in_a_checkpoint_is_never_run(run: RunDirectory, tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    write_torch(run.checkpoints / "last.ckpt", {"format": 1, "network": Bad()})
    with pytest.raises(UsageError, match=r"last\.ckpt cannot be read"):
        load_weights(run, network(), weights="raw")
    assert not (tmp_path / "executed").exists()


def test_another_network_is_told_apart_by_its_first_tensors(run: RunDirectory) -> None:
    with pytest.raises(UsageError, match=r"0\.bias is \(4,\), the network has \(5,\).*and 3 more"):
        load_weights(run, network(5), weights="raw")
    with pytest.raises(UsageError, match=r"1\.bias is not in the network"):
        load_weights(run, network()[:1], weights="raw")


def test_torch_files_and_newer_formats_are_refused(run: RunDirectory) -> None:
    path = run.checkpoints / "last.ckpt"
    write_torch(path, {"state_dict": {}})
    with pytest.raises(UsageError, match="no flowexp checkpoint"):
        load_weights(run, network(), weights="raw")
    write_torch(path, {"format": 99, "step": 0, "images": 0, "network": {}, "ema": {}})
    with pytest.raises(UsageError, match=r"checkpoint format 99.*newer flowexp"):
        load_weights(run, network(), weights="raw")
