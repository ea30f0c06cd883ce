"""Metrics of the features of samples; those of real sets are cached on disk."""

import json
import logging
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import warn_without_cache, write_npz
from flowexp.metrics.base import Extractor, Metric, Records, RowMetric, SampleSet
from flowexp.metrics.protocol import INCEPTION_NAME, INCEPTION_RESIZE, refuse_borrowed_name
from flowexp.metrics.weight_files import check_with_key
from flowexp.requirements import Parts, Unmet, of_images
from flowexp.tree import digest

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_Stored = TypeVar("_Stored")


class ExtractorMetric(Metric):
    """A metric that compares features of the samples; ``prepare`` loads their extractor.

    Raises:
        ValueError: If ``name`` stands for a published protocol that this is not.
    """

    minimum_samples = 2
    needs_reference = True

    def __init__(self, extractor: Extractor, *, name: str) -> None:
        of_inception = extractor.name.startswith(INCEPTION_NAME)
        resize = extractor.resize if of_inception else INCEPTION_RESIZE
        refuse_borrowed_name(name, extractor=extractor.name, resize=resize)
        super().__init__(name=name)
        self.extractor = extractor

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images, unless the features are defined for points."""
        if not self.extractor.on_points:
            yield from of_images(parts, name=self.name, remedy="Use metric=fd_raw.")

    def check(self) -> None:
        check_with_key(self.extractor.check, key=f"metric.{self.name}.extractor.weights")

    def described(self, reference: SampleSet) -> dict[str, Any]:
        self.extractor.load(device=self.device)
        return {"metric": "", **self._features(), "n_ref": len(reference.images)}

    def _features(self) -> dict[str, Any]:
        return {
            "extractor": self.extractor.name,
            "weights_sha256": self.extractor.weights_sha256,
            "resize": self.extractor.resize,
            "quantization": self.extractor.quantization,
        }

    def features_of(self, samples: SampleSet) -> Iterator[Tensor]:
        """Features of a whole set, one batch (b, d) at a time."""
        start = time.perf_counter()
        yield from map(self.extractor, self.batches(samples))
        took = time.perf_counter() - start
        _LOG.info("%s features of %s: %.1f s", self.extractor.name, samples.name, took)

    def cached(
        self,
        compute: Callable[[], dict[str, Tensor]],
        samples: SampleSet,
        *,
        read: Callable[[dict[str, Tensor]], _Stored],
        content: str | None = None,
    ) -> _Stored:
        """Statistics of a set of real samples, computed only when no valid file holds them.

        ``compute`` gives them as arrays, of which ``read`` makes the result; ``content`` says what
        they are if not the moments. A damaged file is replaced with a
        warning; a file of another protocol was put there by hand and raises ``UsageError``.
        """
        if self.cache_dir is None:
            return read(compute())
        described = {
            "format": _FORMAT,
            **self._features(),
            "fingerprint": samples.fingerprint,
            "count": len(samples.images),
            **({} if content is None else {"content": content}),
        }
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", samples.name)
        file = self.cache_dir / f"{name}-{digest(described)[:16]}.npz"
        stored = _read(file, described, read)
        if stored is not None:
            return stored
        computed = compute()
        arrays = {name: value.numpy() for name, value in computed.items()}
        try:
            write_npz(file, {"protocol": np.array(json.dumps(described)), **arrays})
        except OSError:
            warn_without_cache(self.cache_dir)
        return read(computed)


class FeatureMetric(ExtractorMetric, RowMetric):
    """A metric of all features of the samples, and mostly of the reference's."""

    _reference: Tensor | None = None

    def set_reference(self, reference: SampleSet) -> None:
        self._reference = self.all_features(reference) if self.needs_reference else None

    @property
    def reference(self) -> Tensor:
        """Features of the reference, (N, d) float32; raises ``RuntimeError`` before ``prepare``."""
        return self.prepared(self._reference).to(self.device)

    def rows(self, *images: Tensor) -> Tensor:
        """The features, (B, d) float32."""
        return self.extractor(images[0]).float()

    def of_real(self, samples: SampleSet) -> Records:
        return self.measure(self.all_features(samples).to(self.device))

    def all_features(self, samples: SampleSet) -> Tensor:
        """Features of a whole set, (N, d) float32 on the CPU, from the cache if they are there."""

        def compute() -> dict[str, Tensor]:
            features = torch.cat([batch.cpu() for batch in self.features_of(samples)])
            return {"features": features.float()}

        return self.cached(
            compute, samples, read=lambda arrays: arrays["features"], content="features"
        )


def _read(
    file: Path, described: dict[str, Any], read: Callable[[dict[str, Tensor]], _Stored]
) -> _Stored | None:
    """What a file holds, None when there is none or it is damaged."""
    if not os.path.isfile(file):  # also where the folder must not be entered
        return None
    try:
        # numpy leaves a file that is not a zip open when it is given the path
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = json.loads(str(stored["protocol"]))
            content = read({k: torch.from_numpy(stored[k]) for k in stored if k != "protocol"})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("%s is damaged (%s) and is computed again", file, error)
        return None
    if found != described:
        parts = sorted(k for k in {*found, *described} if found.get(k) != described.get(k))
        raise UsageError(
            f"the statistics {file} were made by another protocol (differs in {', '.join(parts)}).",
            remedy="Delete that file; it will be computed again.",
        )
    return content
