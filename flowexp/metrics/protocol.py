"""Protocols: how a number was measured, and whether two numbers are comparable.

A metric value is never stored or printed alone: it is a record that carries its protocol.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

from flowexp.files import json_number
from flowexp.tree import mapped

if TYPE_CHECKING:
    from flowexp.metrics.base import SampleSet

INCEPTION_NAME = "Inception-v3 2015-12-05"
INCEPTION_LOGITS = f"{INCEPTION_NAME}, unbiased logits"
INCEPTION_SPATIAL = f"{INCEPTION_NAME}, mixed_6/conv"
INCEPTION_SHA256_PREFIX = "6726825d"
INCEPTION_RESIZE = "TF1 bilinear to 299"
CLEAN_RESIZE = "Pillow bicubic to 299, not rounded"
TORCH_RESIZE = "torch bilinear to 299, v / 127.5 - 1"
UINT8 = "uint8, trunc(127.5 x + 128)"
PIXELS = "pixels"
LAST = "last"

# quantity and features -> the published name of that number
_PUBLISHED = {
    ("FD", INCEPTION_NAME): "FID",
    ("FD", INCEPTION_SPATIAL): "sFID",
    ("KID", INCEPTION_NAME): "KID",
    ("IS", INCEPTION_LOGITS): "IS",
}
# what goes before that name where images came to the network in another way than EDM's, after the
# packages that do so: clean-fid's mode "clean"; pytorch-fid, clean-fid's "legacy_pytorch"
_PREFIXES = {INCEPTION_RESIZE: "", CLEAN_RESIZE: "clean-", TORCH_RESIZE: "pytorch-"}
_RESERVED = {
    "fid": INCEPTION_NAME,
    "sfid": INCEPTION_SPATIAL,
    "kid": INCEPTION_NAME,
    "inception_score": INCEPTION_LOGITS,
}

_CIRCUMSTANCES = frozenset({"seeds", "sampler", "nfe", "device", "notice"})


def count_label(count: int) -> str:
    """A sample count as it appears in names: 50000 -> ``50k``, 2500 -> ``2500``."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)


def spread_of(values: Sequence[float]) -> float:
    """Sample standard deviation (ddof 1); nan for one value, or if one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values)


def mean(values: Sequence[float]) -> float:
    """The mean; nan or infinite if a value is."""
    return statistics.fmean(values) if all(map(math.isfinite, values)) else sum(values)


def least(values: Sequence[float]) -> float:
    """The smallest value; nan if one is nan, wherever it stands."""
    return math.nan if any(map(math.isnan, values)) else min(values)


def metric_key(name: str, n_gen: int) -> str:
    """The logging key, always with the sample count: ``eval/fid50k``, ``eval/fd_efflite0_5k``."""
    separator = "_" if "_" in name or name[-1:].isdigit() else ""
    return f"eval/{name}{separator}{count_label(n_gen)}"


def refuse_borrowed_name(name: str, *, extractor: str, resize: str = INCEPTION_RESIZE) -> None:
    """Refuse names that stand for a published protocol on any other features.

    ``fid`` may not occur anywhere in a foreign name; ``kid`` and ``inception_score`` may be
    qualified (``kid_efflite0``), since the full title then names the features. On Inception's
    features after another resize the name has to be qualified as well (``fid_clean``).

    Raises:
        ValueError: If the name claims Inception's protocol wrongly.
    """
    lowered = name.lower()
    claimed = next((word for word in ("sfid", "fid") if word in lowered), lowered)
    if _RESERVED.get(claimed, extractor) != extractor:
        called = claimed.upper().replace("SFID", "sFID")
        raise ValueError(
            f"name={name!r}: a number measured on {extractor} must not be called {called}"
        )
    if lowered in _RESERVED and resize != INCEPTION_RESIZE:
        raise ValueError(f"name={name!r} is that of another resize than {resize!r}; qualify it")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that decides whether two values of a metric are comparable.

    None means "not stated", which is a difference from any stated value.

    Args:
        metric: What is computed: ``FD``, ``KID``, ``IS (10 splits)`` ...
        extractor: Full name of the feature extractor.
        weights_sha256: SHA-256 of the extractor's weights; None where there are none.
        resize: How samples are brought to the extractor's size.
        quantization: How generated values became the extractor's input levels.
        reference_split: Which part of the data set, for example ``train``.
        settings: The numbers inside the metric, for example ``100 subsets of 1000``.
        precision: Floating-point format the samples were generated in.
        ema: Which weights generated them, for example ``power 0.9999`` or ``raw``.
        seeds: Seed range of the samples, for example ``0-4999``.
        sampler: Description of the sampler and its grid.
        selection: Which weights of the training: ``last``, a checkpoint that the user named, or the
            best of some snapshots and by which metric. Records that do not state it are of the
            last.
        autoencoder: What decoded the samples, of a flow on latents; None = there is none.
        notice: A caveat, for example that the data set is a JPEG re-encoding.
    """

    metric: str
    extractor: str
    weights_sha256: str | None
    resize: str
    quantization: str
    reference: str
    reference_fingerprint: str
    reference_split: str | None
    n_ref: int | None
    n_gen: int
    settings: str | None = None
    precision: str | None = None
    ema: str | None = None
    seeds: str | None = None
    sampler: str | None = None
    nfe: float | None = None
    device: str | None = None
    notice: str | None = None
    selection: str = LAST
    autoencoder: str | None = None

    @classmethod
    def against(cls, reference: "SampleSet", **measured: Any) -> Self:  # noqa: ANN401
        """A metric's side of the protocol on a set named ``dataset/part``, with ``n_gen`` 0."""
        name, _, part = reference.name.partition("/")
        return cls(
            reference=name,
            reference_fingerprint=reference.fingerprint,
            reference_split=part or None,
            n_gen=0,
            notice=reference.notice or None,
            **measured,
        )

    @property
    def published_name(self) -> str | None:
        """What the literature calls this number, None unless it is on the official Inception."""
        kind, note, rest = self.metric.partition(" (")
        name = _PUBLISHED.get((kind, self.extractor))
        official = (self.weights_sha256 or "").startswith(INCEPTION_SHA256_PREFIX)
        if name is None or not official or self.resize not in _PREFIXES:
            return None
        return _PREFIXES[self.resize] + name + note + rest

    @property
    def is_fid(self) -> bool:
        """Whether this is the Inception protocol, the only one that may be called FID."""
        return self.published_name == "FID"

    @property
    def title(self) -> str:
        """Full display name: ``FD[EfficientNet-Lite0 b4, 64px] 5k on fashion10k``."""
        head = self.metric if self.extractor == PIXELS else f"{self.metric}[{self.extractor}]"
        where = self.reference
        if self.reference_split not in (None, "train"):
            where += f"/{self.reference_split}"
        if self.selection != LAST:
            where += f", {self.selection.partition(',')[0]}"
        return f"{self.published_name or head} {count_label(self.n_gen)} on {where}"

    def differences(self, other: "Protocol", *, strict: bool = False) -> list[str]:
        """The parts in which two protocols differ, one readable phrase each; empty if comparable.

        Sampler, NFE, seed range, device and notice, which are usually compared *across*, count only
        if ``strict``.
        """
        found = []
        for part in fields(self):
            mine, theirs = getattr(self, part.name), getattr(other, part.name)
            if mine != theirs and (strict or part.name not in _CIRCUMSTANCES):
                stated = ["not stated" if value is None else str(value) for value in (mine, theirs)]
                found.append(f"{part.name}: {' and '.join(stated)}")
        return found


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """One number with its protocol.

    ``extra`` are numbers that belong beside it, for example ``floor`` and ``floor_count``;
    ``reason`` says why the value is nan, for example that samples are not finite.
    """

    name: str
    value: float
    protocol: Protocol
    extra: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def key(self) -> str:
        """Logging key with the sample count."""
        return metric_key(self.name, self.protocol.n_gen)

    @property
    def title(self) -> str:
        """Full display name, never without protocol and sample count."""
        return self.protocol.title

    def with_run(self, **run: Any) -> Self:  # noqa: ANN401 -- values of Protocol's run fields
        """The same record with fields of the run, such as ``seeds``, where the metric has none."""
        protocol = self.protocol
        stated = {f.name for f in fields(protocol) if getattr(protocol, f.name) != f.default}
        own = {name: value for name, value in run.items() if name not in stated}
        return replace(self, protocol=replace(self.protocol, **own))

    def with_notice(self, notice: str | None) -> Self:
        """The same record with a further caveat."""
        both = "; ".join(filter(None, (self.protocol.notice, notice)))
        return replace(self, protocol=replace(self.protocol, notice=both or None))

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON, without a reason or an autoencoder that there is not.

        For numbers see ``json_number``.
        """
        content = {**asdict(self), "extra": dict(self.extra)}
        if self.reason is None:
            del content["reason"]
        if self.protocol.autoencoder is None:
            del content["protocol"]["autoencoder"]
        return dict(mapped(content, json_number))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The record of ``to_dict``; raises ``ValueError`` if a field is missing or wrong.

        Further keys beside the record's own, such as ``key`` in ``results.json``, are left out.
        """
        try:
            return cls(
                name=content["name"],
                value=_number(content["value"]),
                protocol=Protocol(**content["protocol"]),
                extra={name: _number(value) for name, value in content.get("extra", {}).items()},
                reason=content.get("reason"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a metric record: {error}") from error


def _number(value: Any) -> Any:  # noqa: ANN401 -- what is no word and not null stays as it is
    """The inverse of ``json_number``."""
    return math.nan if value is None else float(value) if isinstance(value, str) else value
