"""Data sets: the samples, their order in training, and their conversion to numbers.

A :class:`~flowexp.data.base.Dataset` declares shape and classes before anything is read and returns
:class:`~flowexp.data.base.ImageArrays`; a :class:`~flowexp.data.stream.BatchStream` yields them in
an order that is a function of the seed and the step alone. Images stay uint8 until they are on the
device; only :mod:`flowexp.data.quantization` converts them to floats and back.

Names are imported when they are first used: picture files are read without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowexp.data.base import Dataset, ImageArrays, fingerprint
    from flowexp.data.orders import ClassSequences, Order, RandomEpochs
    from flowexp.data.paired import DatasetSource
    from flowexp.data.partners import Partners
    from flowexp.data.quantization import as_data, quantize, to_unit_range
    from flowexp.data.stream import BatchStream, DataBatch, gather_batch

__all__ = [
    "BatchStream",
    "ClassSequences",
    "DataBatch",
    "Dataset",
    "DatasetSource",
    "ImageArrays",
    "Order",
    "Partners",
    "RandomEpochs",
    "as_data",
    "fingerprint",
    "gather_batch",
    "quantize",
    "to_unit_range",
]

_HOMES = {
    "BatchStream": "stream",
    "ClassSequences": "orders",
    "DataBatch": "stream",
    "Dataset": "base",
    "DatasetSource": "paired",
    "ImageArrays": "base",
    "Order": "orders",
    "Partners": "partners",
    "RandomEpochs": "orders",
    "as_data": "quantization",
    "fingerprint": "base",
    "gather_batch": "stream",
    "quantize": "quantization",
    "to_unit_range": "quantization",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- a class or a function
    if name not in _HOMES:
        raise AttributeError(f"module 'flowexp.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"flowexp.data.{_HOMES[name]}"), name)
