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
from flowexp.files import expanded


@contextmanager
def no_download() -> Iterator[None]:
    """Refuse downloads of other packages' weights (torchmetrics', torchvision's) by torch.hub.

    A missing file raises ``UsageError``, whose remedy is the command that fetches it.
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

    In ``given`` alone, the file or its directory; else in ``$FLOWEXP_WEIGHTS/<file>``,
    ``$TORCH_HOME/hub/checkpoints/<file>`` and ``~/.cache/torch/hub/checkpoints/<file>``, unless the
    file has no usual name (None).
    """
    if given is not None:
        path = expanded(given)
        return [path / file_name if file_name and path.is_dir() else path]
    if file_name is None:
        return []
    own, torch_home = os.environ.get("FLOWEXP_WEIGHTS"), os.environ.get("TORCH_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hubs = [f"{home}/hub/checkpoints" for home in (torch_home, f"{cache}/torch") if home]
    return [expanded(folder) / file_name for folder in (own, *hubs) if folder]


def found_file(
    file_name: str | None, *, given: Path | str | None, what: str, key: str, remedy: str
) -> Path:
    """The first candidate that exists; messages say whose weights they are (``what``).

    Raises:
        UsageError: If there is none; names the file and every place looked at.
    """
    places = candidates(file_name, given=given)
    for place in places:
        if os.path.isfile(place):
            return place
    problem = f"{what} needs a weights file, and none is given."
    if places:
        name, looked = file_name or places[0].name, ", ".join(map(str, places))
        problem = f"the {what} weights {name} were not found (looked for {looked})."
    raise UsageError(problem, key=key, remedy=remedy)


def check_with_key(check: Callable[[], None], *, key: str) -> None:
    """Run a check and raise its ``UsageError`` with this config key."""
    try:
        check()
    except UsageError as error:
        raise UsageError(error.problem, key=key, remedy=error.remedy) from error


def read_state(file: Path, *, key: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file of tensors, read without running code.

    Another file raises ``UsageError`` at this config key.
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

    Other names or shapes raise ``UsageError`` about the file, at this config key.
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
