"""Any torchmetrics image metric as a metric of samples.

What ``update`` expects is read from its signature and from the arguments that torchmetrics
documents; pixels are quantised first, as for every other metric:

    update(imgs)                 generated images
    update(imgs, real)           reference images with real=True, then generated with real=False
    update(preds, target)        samples and what they should be
    normalize=True               float32 in [0, 1]
    normalize=False              uint8 in 0..255; in [-1, 1] where pairs are compared (LPIPS)
    data_range=r or (low, high)  float32 in [0, r] or [low, high]
    none of them                 float32 in [0, 1]

Source: torchmetrics 1.8 and 1.9, pages of ``torchmetrics.image``.
"""

import hashlib
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.base import Accumulator, Metric, Records, SampleSet
from flowexp.metrics.pretrained import as_rgb, float32_inference
from flowexp.metrics.protocol import UINT8
from flowexp.metrics.weight_files import no_download
from flowexp.processes import in_turn

if TYPE_CHECKING:
    import torchmetrics

_State = dict[str, Tensor | list[Tensor]]
_RANDOM_SEED = 0


class TorchmetricsMetric(Metric):
    """A torchmetrics metric behind the protocol of ours.

    The reference images are shown once per evaluation, by one process alone. States of several
    processes are combined by the reductions that the metric declares, lists in the order of the
    batches, so that the number is that of one process. Random subsets are drawn from a fixed seed.
    Every number of a tuple or mapping becomes a record of its own (``kid_mean``, ``kid_std``).

    Args:
        metric: The metric; it is copied, not changed.
        sees_reference: Whether this process computes the reference's share of the state.

    Attributes:
        minimum_samples: ``subset_size`` or ``splits`` where the metric has such, else 1, or 2 with
            a reference.

    Raises:
        UsageError: ``update`` takes something else than images.
    """

    def __init__(
        self, metric: "torchmetrics.Metric", *, name: str, sees_reference: bool = True
    ) -> None:
        super().__init__(name=name)
        self._given = self._metric = metric
        self._start: _State = {}
        self.higher_is_better = metric.higher_is_better
        self._sees_reference = sees_reference
        parameters = inspect.signature(metric.update).parameters
        self.needs_reference = "real" in parameters
        images = [p for p in parameters.values() if p.name != "real" and p.default is p.empty]
        if len(images) not in (1, 2) or not all(_is_tensor(p.annotation) for p in images):
            raise self._refused(
                f"cannot be shown images: it has update{inspect.signature(metric.update)}",
                remedy="Take a metric whose update has one or two tensors of images.",
            )
        self.paired = len(images) == 2
        # what torchmetrics' FeatureShare reads: the name of the metric's network
        self._network: str | None = getattr(metric, "feature_network", None)
        own = vars(metric)
        least = 2 if self.needs_reference else 1
        self.minimum_samples = max(least, own.get("subset_size", 1), own.get("splits", 1))
        self.settings = _settings(metric, self._network)

    def described(self, reference: SampleSet) -> dict[str, Any]:
        if reference.images.ndim != 4:
            raise self._refused(
                f"is computed on images, but {reference.name} holds points",
                remedy="Take metric=fd_raw.",
            )
        return {
            "metric": type(self._given).__name__,
            "extractor": _package(type(self._given)),
            "weights_sha256": _parameters_sha256(self._given),
            "resize": "the metric's own",
            "quantization": UINT8,
            "n_ref": len(reference.images) if self.needs_reference else None,
        }

    def set_reference(self, reference: SampleSet) -> None:
        self._metric = self._given.clone().to(self.device)
        self._metric.reset()
        # processes are combined here, and states are exchanged between two computations
        self._metric.distributed_available_fn = lambda: False
        self._metric.compute_with_cache = False
        self._start = self._metric.metric_state
        if self.needs_reference and self._sees_reference:
            for batch in self.batches(reference):
                self._start = self.updated(self._start, batch, real=True)

    def accumulator(self) -> "TorchmetricsAccumulator":
        _ = self.protocol
        return TorchmetricsAccumulator(self)

    def of_real(self, samples: SampleSet) -> Records:
        state = self.start()
        for batch in self.batches(samples):
            state = self.updated(state, batch)
        return self.measure(state, count=len(samples.images))

    def start(self) -> _State:
        """A copy of the state without generated samples."""
        return {n: list(v) if isinstance(v, list) else v.clone() for n, v in self._start.items()}

    def updated(self, state: _State, *images: Tensor, real: bool = False) -> _State:
        """The state after a batch; tensors of ``state`` may change in place."""
        self._put(state)
        marked = {"real": real} if self.needs_reference else {}
        with float32_inference(self.device), no_download():
            self._metric.update(*(self._pixels(i.to(self.device)) for i in images), **marked)
        return dict(self._metric.metric_state)

    def combined(self, states: Sequence[_State]) -> _State:
        """One state of those of several processes, in the order of their ranks."""
        if len(states) == 1:
            return states[0]
        combined: _State = {}
        reductions: dict[str, Any] = self._metric._reductions
        for name, reduction in reductions.items():
            parts: list[Any] = [state[name] for state in states]
            if isinstance(parts[0], list):
                combined[name] = in_turn(parts)
            else:
                stacked = torch.stack(parts)
                combined[name] = stacked if reduction is None else reduction(stacked)
        return combined

    def measure(self, state: _State, *, count: int) -> Records:
        """The numbers of a state with this many samples; ``UsageError`` if they are not single."""
        self._put(state)
        devices = [] if self.device.type == "cpu" else [self.device]
        with float32_inference(self.device), torch.random.fork_rng(devices):
            torch.manual_seed(_RANDOM_SEED)
            result = self._metric.compute()
        records = []
        for path, value in self._numbers(result):
            what, name = " ".join([type(self._given).__name__, *path]), "_".join([self.name, *path])
            records.append(self.record(what, value, count=count, name=name))
        return tuple(records)

    def _numbers(self, result: Any) -> Iterator[tuple[list[str], float]]:  # noqa: ANN401
        if isinstance(result, tuple):  # KID, Inception score: mean and standard deviation
            names = ["mean", "std", *map(str, range(2, len(result)))]
            result = dict(zip(names, result, strict=False))
        if isinstance(result, Mapping):
            for name, part in result.items():
                yield from (([name, *path], value) for path, value in self._numbers(part))
        elif isinstance(result, Tensor) and result.numel() != 1:
            raise self._refused(
                f"returns a tensor of shape {tuple(result.shape)} instead of a number",
                remedy=f"Set metric.{self.name}.reduction=mean or its like.",
            )
        else:
            yield [], float(result)

    def _pixels(self, levels: Tensor) -> Tensor:
        if self._network is not None:
            levels = as_rgb(levels)
        own = vars(self._given)
        normalize, span = own.get("normalize"), own.get("data_range")
        if normalize is False and not self.paired:
            return levels
        low, high = (-1.0, 1.0) if normalize is False else (0.0, 1.0)
        if isinstance(span, tuple | list):
            low, high = span
        elif span is not None:
            low, high = 0.0, float(span)
        if (clamp := own.get("clamping_fn")) is not None:  # PSNR's, of a tuple
            low, high = clamp.keywords["min"], clamp.keywords["max"]
        return levels.float() * ((high - low) / 255) + low

    def _put(self, state: _State) -> None:
        for name, value in state.items():
            setattr(self._metric, name, list(value) if isinstance(value, list) else value)

    def _refused(self, problem: str, *, remedy: str) -> UsageError:
        what = f"{self.name} ({type(self._given).__name__})"
        return UsageError(f"{what} {problem}.", key=f"metric.{self.name}", remedy=remedy)


class TorchmetricsAccumulator(Accumulator):
    """States of a torchmetrics metric, one per process."""

    def __init__(self, metric: TorchmetricsMetric) -> None:
        self._metric = metric
        self._ranks = [metric.start()]
        self._count = 0

    def update(self, *images: Tensor) -> None:
        self._ranks[0] = self._metric.updated(self._ranks[0], *images)
        self._count += len(images[0])

    def merge(self, other: "TorchmetricsAccumulator") -> None:
        self._ranks.extend(other._ranks)
        self._count += other._count

    def state(self) -> dict[str, Tensor]:
        """``count``, and every state; the tensors of a list by position."""
        found = {"count": torch.tensor(self._count)}
        for name, value in self._metric.combined(self._ranks).items():
            if isinstance(value, list):
                found |= {f"{name}.{i}": tensor for i, tensor in enumerate(value)}
            else:
                found[f"{name}."] = value
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        self._count = int(state["count"])
        loaded = self._metric.start()
        for name, value in loaded.items():
            if isinstance(value, list):
                count = sum(key.rpartition(".")[0] == name for key in state)
                parts = [state[f"{name}.{i}"] for i in range(count)]
                loaded[name] = [part.to(self._metric.device) for part in parts]
            else:
                loaded[name] = state[f"{name}."].to(self._metric.device)
        self._ranks = [loaded]

    def compute(self) -> Records:
        self._metric.refuse_few(self._count)
        return self._metric.measure(self._metric.combined(self._ranks), count=self._count)


def _is_tensor(annotation: object) -> bool:
    if annotation is inspect.Parameter.empty or Tensor in (annotation, *get_args(annotation)):
        return True
    return isinstance(annotation, str) and annotation.rpartition(".")[2] == "Tensor"


def _package(cls: type) -> str:
    root = cls.__module__.partition(".")[0]
    try:
        return f"{root} {importlib.metadata.version(root)}"
    except importlib.metadata.PackageNotFoundError:
        return root


def _parameters_sha256(metric: "torchmetrics.Metric") -> str | None:
    """SHA-256 over the metric's network, None without one."""
    tensors = sorted(metric.state_dict().items())
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest() if tensors else None


def _settings(metric: "torchmetrics.Metric", network: str | None) -> str:
    """The constructor's arguments that the metric keeps, and the layer its network returns."""
    own = {**vars(metric)}
    if network is not None:
        layers = vars(metric.get_submodule(network)).get("features_list", [])
        own["feature"] = ", ".join(layers) or None
    names = ["feature", *inspect.signature(type(metric).__init__).parameters]
    kept = {n: float(v) if isinstance(v, Tensor) else v for n, v in own.items() if n in names}
    plain = (bool, int, float, str, tuple, list)
    return ", ".join(
        f"{name}={kept[name]}" for name in dict.fromkeys(names) if isinstance(kept.get(name), plain)
    )
