"""Data sets: the samples, their order in training, and their conversion to numbers.

A :class:`~flowexp.data.base.Dataset` declares shape and classes before anything is read and returns
:class:`~flowexp.data.base.ImageArrays`; a :class:`~flowexp.data.stream.BatchStream` yields them in
an order that is a function of the seed and the step alone. Images stay uint8 until they are on the
device; only :mod:`flowexp.data.quantization` converts them to floats and back.
"""

from flowexp.data.base import Dataset, ImageArrays, fingerprint
from flowexp.data.paired import DatasetSource
from flowexp.data.partners import Partners
from flowexp.data.quantization import as_data, quantize, to_unit_range
from flowexp.data.stream import BatchStream, DataBatch, gather_batch

__all__ = [
    "BatchStream",
    "DataBatch",
    "Dataset",
    "DatasetSource",
    "ImageArrays",
    "Partners",
    "as_data",
    "fingerprint",
    "gather_batch",
    "quantize",
    "to_unit_range",
]
