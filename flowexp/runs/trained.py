"""Models of finished runs as parts of other configs: a teacher, a refiner, a start of training."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from flowexp.autoencoders import Autoencoder
from flowexp.config.differences import ABSENT, in_words, network_differences
from flowexp.config.override_text import override, typed
from flowexp.config.renamed import present
from flowexp.config.trust import Author
from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.models import Evaluation, Model, Origin
from flowexp.networks.base import with_new_scalars
from flowexp.networks.foreign import FrozenNetwork
from flowexp.parameterizations import Conditions
from flowexp.paths import Path as ProbabilityPath
from flowexp.paths import Prediction
from flowexp.runs.assemble import build_model
from flowexp.runs.encoded_data import identity_in, space
from flowexp.runs.run_directory import RunDirectory
from flowexp.runs.weights import (
    LoadedWeights,
    first_average,
    load_weights,
    refuse_another_network,
    require_finite,
    stored_weights,
)
from flowexp.tree import nodes

__all__ = [
    "TrainedModel",
    "parents_in",
    "require_fitting_weights",
    "require_same_latents",
    "start_from",
]


class TrainedModel(Model):
    """The frozen model of a run, to be named as a ``_target_`` wherever a part needs a model.

    The network is built from the run's own ``config.yaml``, is in evaluation mode, has no trainable
    parameter, and follows the device of the state it is given. It belongs to no module tree, so
    that it enters neither the checkpoints nor the optimizer of the run that uses it.

    Args:
        run: Directory of the run.
        weights: Name of an average, ``raw``, or None for the run's first average.
        checkpoint: ``last``, a step number, or a file name.
        key: Config key to name in messages.

    Raises:
        UsageError: There is no such run, checkpoint or average.
    """

    def __init__(
        self,
        run: str | None,
        *,
        weights: str | None = None,
        checkpoint: str = "last",
        key: str = "teacher",
    ) -> None:
        if run is None:
            raise UsageError(
                f"this configuration needs a trained model, but {key} is not given.",
                key=key,
                remedy=f"Name the directory of a run: {key}=outputs/...",
            )
        self.run = RunDirectory.open(Path(run), key=key)
        config = self.run.config()
        with _opening(self.run, key=key):
            by = Author.of(self.run.config_file)
            self.flow_model = build_model(config, prefix=f"{key}: ", by=by)
        self.network: nn.Module = self.flow_model.network
        name = first_average(config) if weights is None else weights
        self.loaded = load_weights(self.run, self.network, weights=name, checkpoint=checkpoint)
        self.network.eval().requires_grad_(False)
        self.path: ProbabilityPath = self.flow_model.path
        self.time_range = self.flow_model.time_range
        self.origin = Origin(self.loaded.sha256, self.loaded.name, self.run.calibrations)
        self.flow_model.origin = self.origin
        self.labels_dropped = self.flow_model.labels_dropped
        self.is_flow_map = self.flow_model.is_flow_map
        self.maps_to_data_only = self.flow_model.maps_to_data_only
        self._device = torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """A frozen model does not change, and may be large."""
        return self

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        """One call of the run's network, on the device of ``x_t``."""
        self._move(x_t.device)
        return self.flow_model.predict(x_t, t, **conditions)

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        """One call of the run's network, on the device of ``x_t``."""
        self._move(x_t.device)
        return self.flow_model.average_velocity(x_t, t, r, **conditions)

    def at(self, times: Tensor) -> list[Evaluation]:
        """The model at each time, on the device of ``times``."""
        self._move(times.device)
        return self.flow_model.at(times)

    def unwrapped(self, device: torch.device) -> Model:
        """The run's model itself, moved to the device."""
        self._move(device)
        return self.flow_model

    def prepared(self, **conditions: Tensor | None) -> Conditions:
        """By the run's network, on the device of the conditions."""
        for value in conditions.values():
            if value is not None:
                self._move(value.device)
        return self.flow_model.prepared(**conditions)

    def _move(self, device: torch.device) -> None:
        if device != self._device:
            self.network.to(device)
            self._device = device

    def nearest_time(self, t: Tensor) -> Tensor:
        """The times the run's network knows."""
        return self.flow_model.nearest_time(t)


_OPEN: ContextVar[frozenset[Path]] = ContextVar("open", default=frozenset())


@contextmanager
def _opening(run: RunDirectory, *, key: str) -> Iterator[None]:
    """Refuse a run whose model needs the model of the same run."""
    path, above = run.path.resolve(), _OPEN.get()
    if path in above:
        raise UsageError(f"the model of {run.path} needs itself.", key=key, remedy="Name another.")
    token = _OPEN.set(above | {path})
    try:
        yield
    finally:
        _OPEN.reset(token)


def start_from(
    network: nn.Module, *, run: str, weights: str, config: Mapping[str, Any] | None = None
) -> LoadedWeights:
    """Give a network the weights of a finished run, from which its training is to start.

    ``config`` is that of the new training, perhaps with ``parent``, by which a refusal names what
    differs.

    A network with a second time can start from weights without one, as the same function, since
    :class:`flowexp.networks.embedding.ScalarEmbedding` is 0 at initialization.

    ``raw`` weights, without averaging, are those from which the authors of rectified flow and
    SlimFlow start.

    Raises:
        UsageError: There is no such run or average, or its network is another one.
    """
    source = RunDirectory.open(Path(run), key="init")
    with _said_of_start(source, config):
        state, loaded = stored_weights(source, weights=weights)
        if isinstance(network, FrozenNetwork):
            network.load_base(state)
        else:
            state = with_new_scalars(network, state, network.state_dict())
            refuse_another_network(network, state, loaded.path)
            network.load_state_dict(state)
        require_finite(network, what=f"the {weights} weights in {loaded.path}")
        return loaded


def require_fitting_weights(
    network: nn.Module, *, run: str, weights: str, config: Mapping[str, Any]
) -> None:
    """Raise the errors of :func:`start_from` for a network that may be on the meta device.

    Additions to a frozen network are not checked.

    Raises:
        UsageError: As in :func:`start_from`.
    """
    source = RunDirectory.open(Path(run), key="init")
    with _said_of_start(source, config):
        state, loaded = stored_weights(source, weights=weights)
        if not isinstance(network, FrozenNetwork):
            state = with_new_scalars(network, state, network.state_dict())
            refuse_another_network(network, state, loaded.path)


@contextmanager
def _said_of_start(source: RunDirectory, config: Mapping[str, Any] | None) -> Iterator[None]:
    """Turn errors about weights into errors about the keys that differ."""
    try:
        yield
    except UsageError as error:
        if error.key == "network" and config is not None:
            _name_differences(config, source, error)
        raise UsageError(
            f"the network cannot start from {source.path}: {error.problem}",
            key="init",
            remedy="The architectures must agree; leave init out to start from random weights.",
        ) from error


def _name_differences(config: Mapping[str, Any], source: RunDirectory, error: UsageError) -> None:
    """Refuse the weights of another network, naming the keys in which the configs differ."""
    found = network_differences(config, source.config())
    if not found:
        return
    key, (_, there) = next(iter(found.items()))
    if config.get("parent"):
        remedy = "Leave the network out to use that of the run."
    else:
        remedy = f"Take the network of that run with {typed('from', source.path)}."
        # The network's scalars are not free: the parameterization sets them.
        settable = there != ABSENT and not key.endswith(("_target_", ".scalars"))
        if len(found) == 1 and settable:
            remedy = f"Set {shlex.quote(override(key, there))}, or t{remedy[1:]}"
    raise UsageError(
        f"its weights do not fit: {in_words(found, run=str(source.path))}.",
        key="from" if config.get("parent") else "init",
        remedy=remedy,
    ) from error


def parents_in(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The runs a config refers to, by the key of each, with what identifies their weights.

    Every node that builds a :class:`TrainedModel` counts, wherever it stands, and ``init``.
    """
    found = {
        key: _identity(str(node["run"]), node.get("weights"), str(node.get("checkpoint", "last")))
        for key, node in _models_in(config)
    }
    if config.get("init"):
        found["init"] = _identity(str(config["init"]), config.get("init_weights"))
    return found


def require_same_latents(config: Mapping[str, Any], autoencoder: Autoencoder) -> None:
    """Refuse models of runs in a config that were trained on other latents than its own.

    Latents of two autoencoders may have the same shape and mean different images.

    Raises:
        UsageError: One of them was.
    """
    for _, node in _models_in(config):
        key = str(node.get("key", "teacher"))
        run = RunDirectory.open(Path(node["run"]), key=key)
        before, own = identity_in(run.manifest()), autoencoder.identity()
        if before != own:
            raise UsageError(
                f"{run.path} was trained on {space(before)}, but this model is on {space(own)}.",
                key=key,
                remedy="Name a run on the same latents, or give that run's autoencoder=FOLDER.",
            )


def _models_in(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes of a config that build a :class:`TrainedModel`, by their keys."""
    own = f"{TrainedModel.__module__}.{TrainedModel.__qualname__}"
    for key, node in nodes(config):
        if present(node.get("_target_")) == own and node.get("run"):
            yield key, node


def _identity(run: str, weights: object, checkpoint: str = "last") -> dict[str, Any]:
    file = RunDirectory.open(Path(run)).checkpoint(checkpoint)
    return {"run": run, "weights": weights, "checkpoint": file.name, "sha256": file_sha256(file)}
