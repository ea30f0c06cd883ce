"""Training: from typed parts to checkpoints, exactly resumable."""

from flowexp.training.callbacks import GradientVariance, Progress, SampleGrid
from flowexp.training.callbacks.divergence import NonFiniteWeightsError
from flowexp.training.callbacks.records import NonFiniteLossError
from flowexp.training.callbacks.stop_signals import TrainingInterrupted
from flowexp.training.ema import EMA, ConstantEMA, CurriculumEMA, EMAWeights, HalfLifeEMA, PowerEMA
from flowexp.training.fit import FitResult, fit
from flowexp.training.loggers import CSVLogger, RunLogger, TensorBoardLogger, WandbLogger
from flowexp.training.lr_schedules import Constant, Cosine, InverseSqrt, LinearDecay, LRSchedule
from flowexp.training.parts import TrainerSettings, TrainingParts, training_parts

__all__ = [
    "fit",
    "FitResult",
    "TrainingParts",
    "training_parts",
    "TrainerSettings",
    "TrainingInterrupted",
    "NonFiniteLossError",
    "NonFiniteWeightsError",
    "EMA",
    "HalfLifeEMA",
    "PowerEMA",
    "ConstantEMA",
    "CurriculumEMA",
    "EMAWeights",
    "LRSchedule",
    "Constant",
    "LinearDecay",
    "Cosine",
    "InverseSqrt",
    "Progress",
    "SampleGrid",
    "GradientVariance",
    "RunLogger",
    "CSVLogger",
    "TensorBoardLogger",
    "WandbLogger",
]
