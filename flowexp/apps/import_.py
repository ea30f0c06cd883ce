"""``flowexp import``: a run directory of a published checkpoint, without running what is in it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.apps.terminal import shown, table
from flowexp.config.application import Job, launch
from flowexp.config.hydra_internals import argument_parser
from flowexp.config.override_text import command, override
from flowexp.config.trust import USER
from flowexp.errors import UsageError
from flowexp.progress import stage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from flowexp.published import Published
    from flowexp.runs.assemble import Built

__all__ = ["main"]

_OWN_KEYS = ("file", "name")
_EMA = "main"


def main(arguments: Sequence[str]) -> None:
    """Import a published checkpoint: ``FILE`` or ``file=FILE``.

    Overrides change the training config that the model is taken to belong to.
    """
    file, rest = _split(arguments)
    if file is None:
        launch("import", import_checkpoint, rest)
        return
    if not Path(file).is_file():
        problem = f"{file} is a folder." if Path(file).is_dir() else f"there is no file {file}."
        raise UsageError(problem, key="file", remedy="Name a published checkpoint.")
    with stage("loading PyTorch"):
        from flowexp.published import read_published

    from flowexp.published.model import published_overrides

    named = [override("file", file)]
    if not any(argument.startswith("name=") for argument in rest):
        named.append(override("name", re.sub(r"[^\w.-]+", "-", Path(file).stem)))
    with stage("reading the file"):
        own = published_overrides(read_published(Path(file)), given=rest)
    launch("import", import_checkpoint, [*named, *own, *rest])


def import_checkpoint(job: Job) -> None:
    """Write the run directory of a published checkpoint and try its network once.

    A file that does not fit the config, and a directory that holds a run already, are refused.
    """
    from flowexp.published import read_published
    from flowexp.runs import RunDirectory, describe_run, parent, write_checkpoint
    from flowexp.runs.assemble import build
    from flowexp.runs.weights import RAW, load_weights

    if not job.config["name"]:
        raise UsageError("a run needs a name.", key="name", remedy="Give it with name=...")
    file = Path(job.config["file"])
    config = {key: value for key, value in job.config.items() if key not in _OWN_KEYS}
    with stage("reading the file"):
        published = read_published(file)
    with stage("building the network"):
        parts = build(config, by=USER)
    if RunDirectory(job.directory).latest_checkpoint() is not None:
        raise UsageError(
            f"{job.directory} holds a run already.",
            key="name",
            remedy=f"Choose another with name=..., or remove {job.directory}.",
        )
    content = _checkpoint(published, parts)
    _refuse_nonfinite(parts)
    origin = parent(file, role="published checkpoint")
    run = RunDirectory.start(
        job.directory,
        config=config,
        overrides=job.overrides,
        manifest={
            **describe_run(seed=int(config["seed"]), parents=[origin]),
            "choices": job.choices,
            "parameters": parts.parameters,
            "published": {
                "format": published.format,
                "kimg": published.kimg,
                "step": published.step,
                "notes": list(published.notes),
            },
        },
    )
    write_checkpoint(run.checkpoints / "last.ckpt", content)
    weights = load_weights(run, parts.network, weights=_EMA if content["ema"] else RAW)
    rows = [
        ("imported", f"{published.format}, {parts.parameters:,} parameters"),
        ("sha256", published.sha256),
        ("weights", ", ".join(["raw", *content["ema"]])),
        *(("note", note) for note in published.notes),
        ("run directory", shown(run.path)),
        ("checkpoint", shown(weights.path)),
        ("next", command("sample", run=shown(run.path))),
    ]
    print(table(rows))


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file among the arguments, and the rest."""
    file, rest = None, list(arguments)
    for text in argument_parser("import").parse_intermixed_args(rest).overrides:
        is_override = "=" in text or text[:1] in "~+"
        if text.startswith("file="):
            file = _unquoted(text.removeprefix("file="))
        elif file is None and (not is_override or Path(text).is_file()):
            file = text
        else:
            continue
        rest.remove(text)
    return file, rest


def _unquoted(value: str) -> str:
    """A value without the quotes that Hydra's grammar asks for."""
    for quote in ("'", '"'):
        if len(value) > 1 and value[0] == value[-1] == quote:
            return value[1:-1].replace(f"\\{quote}", quote)
    return value


def _checkpoint(published: "Published", parts: "Built") -> dict[str, Any]:
    """The content of the run's checkpoint; the network is left with the published weights."""
    network = parts.network
    raw = _loaded(network, published.weights, published.path)
    averages: dict[str, dict[str, Tensor]] = {}
    if published.averaged is not None:
        averaged = _loaded(network, published.averaged, published.path)
        averages[_EMA] = {name: averaged[name] for name, _ in network.named_parameters()}
    return {
        "step": published.step or 0,
        "images": round(1000 * (published.kimg or 0.0)),
        "network": raw,
        "ema": averages,
    }


def _loaded(network: "nn.Module", state: "Mapping[str, Tensor]", path: Path) -> "dict[str, Tensor]":
    """The network's new state: copies in float32, as stored tensors may share memory or be half."""
    from flowexp.runs.weights import require_finite

    plain = {name: value.float().contiguous().clone() for name, value in state.items()}
    try:
        network.load_state_dict(plain)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(
            f"the weights in {path} do not fit the chosen network ({lines[-1]})",
            key="network",
            remedy="Leave the network as the file has it.",
        ) from error
    what, remedy = f"the weights in {path}", "The file is damaged; fetch it again."
    require_finite(network, what=what, remedy=remedy)
    return plain


def _refuse_nonfinite(parts: "Built") -> None:
    """One evaluation on noise at a middling time."""
    import torch

    from flowexp.seeding import generator

    low, high = parts.model.time_range
    t = torch.tensor(0.5 * (min(low, 1.0) + min(high, 1.0)), dtype=torch.float64)
    x = torch.randn(1, *parts.pipeline.shape, generator=generator(0, "import"))
    with torch.inference_mode():
        velocity = parts.model.predict(x, t).velocity
    if not velocity.isfinite().all():
        raise UsageError(
            "the imported network gives values that are not finite.",
            key="file",
            remedy="The weights are damaged; fetch the file again.",
        )
