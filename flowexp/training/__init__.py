"""Training: from typed parts to checkpoints, exactly resumable."""

from flowexp.training.callbacks import Progress, SampleGrid
from flowexp.training.callbacks.records import NonFiniteLossError
from flowexp.training.callbacks.stop_signals import TrainingInterrupted
from flowexp.training.ema import EMA, ConstantEMA, EMAWeights, HalfLifeEMA, PowerEMA
from flowexp.training.fit import FitResult, fit, require_devices
from flowexp.training.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from flowexp.training.lr_schedules import Constant, Cosine, InverseSqrt, LinearDecay, LRSchedule
from flowexp.training.parts import TrainerSettings, TrainingParts, training_parts

__all__ = [
    "fit",
    "FitResult",
    "require_devices",
    "TrainingParts",
    "training_parts",
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
    "Progress",
    "SampleGrid",
    "CSVLogger",
    "TensorBoardLogger",
    "WandbLogger",
]
