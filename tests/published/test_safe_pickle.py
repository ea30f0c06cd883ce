"""Files that try to run something, and damaged ones: refused with a sentence, nothing run."""

import io
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.errors import UsageError
from flowexp.published import read_published
from tests.published.persistence_files import (
    authors_modules,
    network,
    stored_precond,
    write_snapshot,
    write_state,
)

PICKLE = Path(__file__).parent / "data" / "edm_style_tiny_a.pkl"


class Call:
    """Pickled as a call of anything."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Forged:
    """A storage whose bytes are chosen by the attacker."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "was_run"


def attacks(marker):
    command = f"touch {marker}"
    inner = pickle.dumps({"x": Call(os.system, command)})
    return {
        "posix.system": Call(os.system, command),
        "builtins.eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.exec": Call(exec, f"open({str(marker)!r}, 'w')"),
        "builtins.getattr": Call(getattr, "x", "upper"),
        "torch.serialization.load": Call(torch.load, str(PICKLE)),
        "_pickle.loads": Call(pickle.loads, inner),
        "_io.BytesIO": Call(io.BytesIO, b""),
        "numpy.ndarray": np.ndarray,
        "functools.partial": Call(__import__("functools").partial, print),
    }


@pytest.mark.parametrize("name", sorted(attacks(Path("x"))))
@pytest.mark.parametrize("place", ["top", "in the state", "in module_src"])
def test_another_global_is_refused_by_name(name, place, marker, tmp_path):
    attack = attacks(marker)[name]
    ema = stored_precond("EDMPrecond", network())
    if place == "top":
        ema = attack
    elif place == "in the state":
        ema.meta["state"]["_modules"]["more"] = attack
    else:
        ema.meta["module_src"] = attack
    path = write_snapshot(tmp_path / "x.pkl", ema)
    with pytest.raises(UsageError, match="was not read: it requires") as error:
        read_published(path)
    assert name in str(error.value) or name.replace("_io", "io") in str(error.value)
    assert not marker.exists()


def test_a_torch_file_is_no_safer_place(marker, tmp_path):
    net = stored_precond("EDMPrecond", network())
    path = write_state(tmp_path / "x.pt", net=net, step=Call(os.system, f"touch {marker}"))
    with pytest.raises(UsageError, match=r"requires posix\.system"):
        read_published(path)
    torch.save({"model": Call(os.system, f"touch {marker}")}, tmp_path / "y.pth")
    with pytest.raises(UsageError, match=r"posix\.system"):
        read_published(tmp_path / "y.pth")
    assert not marker.exists()


def test_bytes_of_a_storage_are_no_safer_place(marker, tmp_path):
    hidden = io.BytesIO()
    torch.save(Call(os.system, f"touch {marker}"), hidden, _use_new_zipfile_serialization=False)
    path = write_snapshot(tmp_path / "x.pkl", Forged(hidden.getvalue()))
    with pytest.raises(UsageError, match="system"):
        read_published(path)
    assert not marker.exists()


def test_an_allowed_function_cannot_be_altered(tmp_path):
    with authors_modules():
        start = pickle.dumps(torch._utils._rebuild_tensor_v2, protocol=2)[:-1]
    for state in ({"__name__": "x"}, (None, {"__defaults__": (1,)})):
        build = pickle.dumps(state, protocol=2)[2:-1] + b"b."
        (tmp_path / "x.pkl").write_bytes(start + build)
        with pytest.raises(UsageError, match="attributes of a function"):
            read_published(tmp_path / "x.pkl")
    assert torch._utils._rebuild_tensor_v2.__name__ == "_rebuild_tensor_v2"


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path):
    net = network()
    path = write_state(tmp_path / "x.pt", net=stored_precond("EDMPrecond", net), step=1)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "y.pt", "w") as short:
        for name in archive.namelist():
            content = archive.read(name)
            short.writestr(name, content[:4] if "/data/" in name else content)
    with pytest.raises(UsageError, match="too short"):
        read_published(tmp_path / "y.pt")


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_pickle(keep, tmp_path):
    content = PICKLE.read_bytes()
    (tmp_path / "x.pkl").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UsageError, match=r"truncated|empty"):
        read_published(tmp_path / "x.pkl")


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.9999])
def test_a_truncated_torch_file(keep, tmp_path):
    path = write_state(tmp_path / "x.pt", net=stored_precond("EDMPrecond", network()), step=1)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UsageError, match="truncated"):
        read_published(path)


def test_flipped_bytes_give_a_model_or_a_refusal(tmp_path):
    content, rng = PICKLE.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "x.pkl").write_bytes(damaged)
        try:
            read_published(tmp_path / "x.pkl")
        except UsageError:
            refused += 1
    assert refused > 20


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        read_published(tmp_path / "none.pkl")
