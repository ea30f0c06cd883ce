"""Metrics as named protocols: what was measured, on which features, against which reference.

Classes are metrics; functions of the same file, and the files ``frechet``, ``distances`` and
``resize``, are the mathematics.
"""

from flowexp.metrics.adm import ADMPrecisionRecall, half_precision_recall
from flowexp.metrics.base import Accumulator, Extractor, Metric, RawValues, SampleSet
from flowexp.metrics.efficientnet import EfficientNetLite0
from flowexp.metrics.feature_metric import FeatureMetric
from flowexp.metrics.frechet import (
    FeatureMoments,
    FrechetReference,
    frechet_distance,
    frechet_distance_from_moments,
)
from flowexp.metrics.frechet_metric import FrechetDistance, StatisticsFile, first_available
from flowexp.metrics.inception import (
    CleanInception,
    InceptionLogits,
    InceptionSpatial,
    InceptionV3,
    PytorchInception,
)
from flowexp.metrics.inception_score import InceptionScore, inception_score, shuffle_order
from flowexp.metrics.kernel_distance import (
    GaussianKernel,
    GaussianMMD,
    KernelDistance,
    PolynomialKernel,
    kernel_distance,
    mmd2_biased,
    mmd2_unbiased,
    subset_draws,
)
from flowexp.metrics.lpips import LPIPS
from flowexp.metrics.nearest_neighbours import NearestNeighbours, Neighbours
from flowexp.metrics.paired import (
    PSNR,
    SSIM,
    PairedMetric,
    PerceptualSimilarity,
    ReflectedSSIM,
    psnr,
    psnr_pooled,
    ssim_interior,
    ssim_reflected,
    ssim_uniform,
)
from flowexp.metrics.perceptual import EfficientNetPerceptual, FeatureDistance
from flowexp.metrics.precision_recall import (
    PrecisionRecall,
    density_coverage,
    improved_precision_recall,
)
from flowexp.metrics.protocol import MetricRecord, Protocol, count_label, metric_key
from flowexp.metrics.torchmetrics_metric import TorchmetricsMetric
from flowexp.metrics.vgg16 import VGG16
from flowexp.metrics.vision_transformers import CLIPImage, DINOv2

__all__ = [
    "half_precision_recall",
    "ADMPrecisionRecall",
    "Accumulator",
    "CLIPImage",
    "CleanInception",
    "DINOv2",
    "EfficientNetLite0",
    "EfficientNetPerceptual",
    "Extractor",
    "FeatureDistance",
    "FeatureMetric",
    "FeatureMoments",
    "FrechetDistance",
    "FrechetReference",
    "GaussianKernel",
    "GaussianMMD",
    "InceptionLogits",
    "InceptionScore",
    "InceptionSpatial",
    "InceptionV3",
    "KernelDistance",
    "LPIPS",
    "Metric",
    "MetricRecord",
    "NearestNeighbours",
    "Neighbours",
    "PSNR",
    "PairedMetric",
    "PerceptualSimilarity",
    "PolynomialKernel",
    "PrecisionRecall",
    "Protocol",
    "PytorchInception",
    "RawValues",
    "StatisticsFile",
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
    "inception_score",
    "kernel_distance",
    "metric_key",
    "mmd2_biased",
    "mmd2_unbiased",
    "psnr",
    "psnr_pooled",
    "shuffle_order",
    "ssim_interior",
    "ssim_reflected",
    "ssim_uniform",
    "subset_draws",
]
