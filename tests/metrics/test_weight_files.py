import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flowexp.errors import UsageError
from flowexp.metrics.weight_files import candidates, check_with_key, fill, found_file, read_state


def find(file_name="w.pth", given=None):
    return found_file(file_name, given=given, what="Net", key="metric.x.weights", remedy="Get it.")


def test_places(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWEXP_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert candidates("w.pth") == [
        tmp_path / "own" / "w.pth",
        tmp_path / "torch" / "hub" / "checkpoints" / "w.pth",
        tmp_path / "cache" / "torch" / "hub" / "checkpoints" / "w.pth",
    ]
    assert candidates(None) == []
    assert candidates("w.pth", given=tmp_path) == [tmp_path / "w.pth"]
    assert candidates(None, given=tmp_path / "a.pth") == [tmp_path / "a.pth"]
    with pytest.raises(UsageError, match=r"the Net weights w\.pth were not found.*own") as caught:
        find()
    assert (caught.value.key, caught.value.remedy) == ("metric.x.weights", "Get it.")
    with pytest.raises(UsageError, match="Net needs a weights file, and none is given"):
        find(None)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "w.pth").touch()
    assert find() == tmp_path / "own" / "w.pth"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_formats_fill_a_network_without_storage(tmp_path, suffix):
    source = nn.Linear(3, 2).half()
    file = tmp_path / f"w{suffix}"
    write = save_file if suffix == ".safetensors" else torch.save
    write(source.state_dict(), file)
    with torch.device("meta"):
        network = nn.Linear(3, 2)
    fill(network, read_state(file, key="k"), file=file, key="k")
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, source.weight.float())
    assert not network.weight.requires_grad
    assert not network.training


class Evil:
    def __reduce__(self):
        return pytest.fail, ("code in the weights file was run",)


@pytest.mark.parametrize("content", [{"x": Evil()}, [torch.ones(1)], {"x": 1.0}])
def test_files_with_anything_but_tensors_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="plain state dict") as caught:
        read_state(tmp_path / "w.pth", key="k")
    assert caught.value.key == "k"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(tmp_path, suffix):
    (tmp_path / f"w{suffix}").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match="plain state dict"):
        read_state(tmp_path / f"w{suffix}", key="k")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"weight": torch.ones(2, 3)}, r"1 tensors differ, the first is bias \(missing"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, r"weight \(\(2, 4\), expected"),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(2), "extra": torch.ones(1)},
            r"extra \(\(1,\), expected none",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, state, text):
    with pytest.raises(UsageError, match=text):
        fill(nn.Linear(3, 2), state, file=tmp_path / "w.pth", key="k")


def test_a_check_gets_the_key_of_its_place():
    def check():
        raise UsageError("gone.", key="weights", remedy="Bring it.")

    with pytest.raises(UsageError) as caught:
        check_with_key(check, key="metric.kid.extractor.weights")
    error = caught.value
    assert (error.problem, error.remedy) == ("gone.", "Bring it.")
    assert error.key == "metric.kid.extractor.weights"
