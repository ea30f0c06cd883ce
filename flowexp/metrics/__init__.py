"""Metrics as named protocols: what was measured, on which features, against which reference."""

from flowexp.metrics.base import Accumulator, Extractor, Metric, PairedAccumulator, SampleSet
from flowexp.metrics.class_score import InceptionScoreMetric
from flowexp.metrics.distribution import (
    FrechetAccumulator,
    FrechetDistance,
    first_available,
    moments_of,
)
from flowexp.metrics.efficientnet import EfficientNetLite0
from flowexp.metrics.feature_metric import FeatureAccumulator, FeatureMetric
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
from flowexp.metrics.inception import (
    InceptionLogits,
    InceptionSpatial,
    InceptionV3,
    inception_candidates,
)
from flowexp.metrics.inception_score import InceptionScore, inception_score_of_logits, shuffle_order
from flowexp.metrics.kernel_metrics import GaussianMMD, KernelDistanceMetric
from flowexp.metrics.kid import (
    GaussianKernel,
    KernelDistance,
    PolynomialKernel,
    kernel_distance,
    mmd2_biased,
    mmd2_unbiased,
    subset_draws,
)
from flowexp.metrics.lpips import LPIPS
from flowexp.metrics.moments import Moments
from flowexp.metrics.nearest_neighbours import NearestNeighbours, Neighbours
from flowexp.metrics.neighbourhoods import PrecisionRecallMetric
from flowexp.metrics.paired import (
    PSNR,
    SSIM,
    PairedMetric,
    PairedValues,
    PerceptualSimilarity,
    ReflectedSSIM,
)
from flowexp.metrics.perceptual import EfficientNetPerceptual, PerceptualDistance
from flowexp.metrics.precision_recall import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    improved_precision_recall,
)
from flowexp.metrics.protocol import MetricRecord, Protocol, count_label, metric_key
from flowexp.metrics.raw_values import RawValues
from flowexp.metrics.reference_statistics import ReferenceStatistics
from flowexp.metrics.torchmetrics_metric import TorchmetricsMetric
from flowexp.metrics.vgg16 import VGG16
from flowexp.metrics.vision_transformers import CLIPImage, DINOv2

__all__ = [
    "Accumulator",
    "CLIPImage",
    "DINOv2",
    "DensityCoverage",
    "EfficientNetLite0",
    "EfficientNetPerceptual",
    "Extractor",
    "FeatureAccumulator",
    "FeatureMetric",
    "FrechetAccumulator",
    "FrechetDistance",
    "FrechetReference",
    "GaussianKernel",
    "GaussianMMD",
    "InceptionLogits",
    "InceptionScore",
    "InceptionScoreMetric",
    "InceptionSpatial",
    "InceptionV3",
    "KernelDistance",
    "KernelDistanceMetric",
    "LPIPS",
    "Metric",
    "MetricRecord",
    "Moments",
    "NearestNeighbours",
    "Neighbours",
    "PSNR",
    "PairedAccumulator",
    "PairedMetric",
    "PairedValues",
    "PerceptualDistance",
    "PerceptualSimilarity",
    "PolynomialKernel",
    "PrecisionRecall",
    "PrecisionRecallMetric",
    "Protocol",
    "RawValues",
    "ReferenceStatistics",
    "ReflectedSSIM",
    "SSIM",
    "SampleSet",
    "TorchmetricsMetric",
    "VGG16",
    "count_label",
    "density_coverage",
    "first_available",
    "frechet_distance",
    "frechet_distance_from_moments",
    "improved_precision_recall",
    "inception_candidates",
    "inception_score_of_logits",
    "kernel_distance",
    "metric_key",
    "mmd2_biased",
    "mmd2_unbiased",
    "moments_of",
    "psnr",
    "psnr_pooled",
    "shuffle_order",
    "ssim_interior",
    "ssim_reflected",
    "ssim_uniform",
    "subset_draws",
]
