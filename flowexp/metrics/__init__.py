"""Metrics as named protocols: what was measured, on which features, against which reference."""

from flowexp.metrics.base import Accumulator, Extractor, Metric, SampleSet
from flowexp.metrics.distribution import (
    FrechetAccumulator,
    FrechetDistance,
    first_available,
    moments_of,
)
from flowexp.metrics.efficientnet import EfficientNetLite0
from flowexp.metrics.frechet import (
    FrechetReference,
    frechet_distance,
    frechet_distance_from_moments,
)
from flowexp.metrics.image_quality import (
    psnr,
    psnr_pooled,
    ssim_interior,
    ssim_reflected,
    ssim_uniform,
)
from flowexp.metrics.inception import InceptionV3, inception_candidates
from flowexp.metrics.inception_score import InceptionScore, inception_score_of_logits, shuffle_order
from flowexp.metrics.kid import (
    GaussianKernel,
    KernelDistance,
    PolynomialKernel,
    kernel_distance,
    mmd2_unbiased,
    subset_draws,
)
from flowexp.metrics.moments import Moments
from flowexp.metrics.precision_recall import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    improved_precision_recall,
)
from flowexp.metrics.protocol import MetricRecord, Protocol, count_label, metric_key
from flowexp.metrics.raw_values import RawValues

__all__ = [
    "Accumulator",
    "DensityCoverage",
    "EfficientNetLite0",
    "Extractor",
    "FrechetAccumulator",
    "FrechetDistance",
    "FrechetReference",
    "GaussianKernel",
    "InceptionScore",
    "InceptionV3",
    "KernelDistance",
    "Metric",
    "MetricRecord",
    "Moments",
    "PolynomialKernel",
    "PrecisionRecall",
    "Protocol",
    "RawValues",
    "SampleSet",
    "count_label",
    "density_coverage",
    "first_available",
    "frechet_distance",
    "frechet_distance_from_moments",
    "inception_candidates",
    "inception_score_of_logits",
    "kernel_distance",
    "metric_key",
    "mmd2_unbiased",
    "moments_of",
    "improved_precision_recall",
    "psnr",
    "psnr_pooled",
    "shuffle_order",
    "ssim_interior",
    "ssim_reflected",
    "ssim_uniform",
    "subset_draws",
]
