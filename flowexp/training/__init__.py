"""Training: from typed parts to checkpoints, exactly resumable."""

from flowexp.training.callbacks import Callback, Progress, SampleGrid
from flowexp.training.ema import EMA, ConstantEMA, EMAWeights, HalfLifeEMA, PowerEMA
from flowexp.training.fit import FitResult, fit
from flowexp.training.interruption import TrainingInterrupted
from flowexp.training.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from flowexp.training.lr_schedules import Constant, Cosine, InverseSqrt, LinearDecay, LRSchedule
from flowexp.training.session import NonFiniteLossError
from flowexp.training.settings import TrainerSettings

__all__ = [
    "fit",
    "FitResult",
    "TrainerSettings",
    "TrainingInterrupted",
    "NonFiniteLossError",
    "EMA",
    "HalfLifeEMA",
    "PowerEMA",
    "ConstantEMA",
    "EMAWeights",
    "LRSchedule",
    "Constant",
    "LinearDecay",
    "Cosine",
    "InverseSqrt",
    "Callback",
    "Progress",
    "SampleGrid",
    "Logger",
    "CSVLogger",
    "TensorBoardLogger",
    "WandbLogger",
]
