"""Loggers: where the rows of a training are copied to."""

from flowexp.training.loggers.csv_file import CSVLogger
from flowexp.training.loggers.tensorboard import TensorBoardLogger
from flowexp.training.loggers.wandb import WandbLogger

__all__ = ["CSVLogger", "TensorBoardLogger", "WandbLogger"]
