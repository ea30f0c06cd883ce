"""Finding and reading the weights files of pretrained networks; nothing is ever downloaded."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError

__all__ = ["candidates", "check_with_key", "fill", "found_file", "no_download", "read_state"]


@contextmanager
def no_download() -> Iterator[None]:
    """Refuse downloads of other packages' weights (torchmetrics', torchvision's) by torch.hub.

    Raises:
        UsageError: Inside, when a file is missing; its remedy is the command that fetches it.
    """
    import torch.hub

    def refuse(url: str, dst: str, *_: Any, **__: Any) -> None:  # noqa: ANN401 -- torch.hub's
        raise UsageError(
            f"the weights {Path(dst).name} are not on this machine, and flowexp downloads nothing "
            "by itself.",
            key="metric",
            remedy=f"Fetch them: curl -L --create-dirs -o {dst} {url}",
        )

    before = torch.hub.download_url_to_file
    torch.hub.download_url_to_file = refuse
    try:
        yield
    finally:
        torch.hub.download_url_to_file = before


def candidates(file_name: str | None, *, given: Path | str | None = None) -> list[Path]:
    """Where a weights file is looked for, in order.

    ``given``, else ``$FLOWEXP_WEIGHTS/<file>``, ``$TORCH_HOME/hub/checkpoints/<file>`` and
    ``~/.cache/torch/hub/checkpoints/<file>``.

    Args:
        file_name: Name the file is published under, None when it has no usual name.
        given: The file itself, or a directory that holds it; when given, nothing else is tried.
    """
    if given is not None:
        path = Path(given).expanduser()
        return [path / file_name if file_name and path.is_dir() else path]
    if file_name is None:
        return []
    folders = []
    if own := os.environ.get("FLOWEXP_WEIGHTS"):
        folders.append(Path(own))
    if torch_home := os.environ.get("TORCH_HOME"):
        folders.append(Path(torch_home) / "hub" / "checkpoints")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders.append(cache / "torch" / "hub" / "checkpoints")
    return [folder.expanduser() / file_name for folder in folders]


def found_file(
    file_name: str | None, *, given: Path | str | None, what: str, key: str, remedy: str
) -> Path:
    """The first candidate that exists.

    Args:
        file_name: As in :func:`candidates`.
        given: The config's value.
        what: Whose weights they are, for the message.
        key: Config key of ``given``.
        remedy: Where to get the file.

    Raises:
        UsageError: If there is none; names the file and every place looked at.
    """
    places = candidates(file_name, given=given)
    file = next((place for place in places if place.is_file()), None)
    if file is not None:
        return file
    if not places:
        raise UsageError(f"{what} needs a weights file, and none is given.", key=key, remedy=remedy)
    looked = ", ".join(str(place) for place in places)
    raise UsageError(
        f"the {what} weights {file_name or places[0].name} were not found (looked for {looked}).",
        key=key,
        remedy=remedy,
    )


def check_with_key(check: Callable[[], None], *, key: str) -> None:
    """Run a check and raise its ``UsageError`` with this config key."""
    try:
        check()
    except UsageError as error:
        raise UsageError(error.problem, key=key, remedy=error.remedy) from error


def read_state(file: Path, *, key: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file of tensors, read without running code.

    Raises:
        UsageError: If it is neither; at this config key.
    """
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise _unreadable(file, str(error), key) from error
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise _unreadable(file, type(error).__name__, key) from error
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise _unreadable(file, "it holds more than tensors", key)
    return stored


def fill(network: nn.Module, state: dict[str, Tensor], *, file: Path, key: str) -> None:
    """Load exactly these tensors into a float32 network, which may be without storage.

    Raises:
        UsageError: If names or shapes are other ones; says so of the file, at this config key.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        wrong = sorted(n for n in {*wanted, *found} if wanted.get(n) != found.get(n))
        name = wrong[0]
        raise UsageError(
            f"{file} does not fit the network: {len(wrong)} tensors differ, the first is {name} "
            f"({found.get(name, 'missing')}, expected {wanted.get(name, 'none')}).",
            key=key,
            remedy="Give the file of this network, in the layout its documentation names.",
        )
    as_stored = {n: v.float() if v.is_floating_point() else v for n, v in state.items()}
    network.load_state_dict(as_stored, assign=True)
    network.eval().requires_grad_(False)


def _unreadable(file: Path, why: str, key: str) -> UsageError:
    return UsageError(
        f"{file} cannot be read as a plain state dict ({why}).",
        key=key,
        remedy="Give a .safetensors file or a torch file that holds tensors only.",
    )
