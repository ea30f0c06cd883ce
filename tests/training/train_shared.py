"""Train the tiny model in the folder given on the command line, shared by two processes."""

import sys
from pathlib import Path

from tests.training.tiny import tiny_model, tiny_settings, train

if __name__ == "__main__":
    settings = tiny_settings(devices=2, strategy="ddp", micro_batch=5)
    train(Path(sys.argv[1]), model=tiny_model(dropout=0.0), settings=settings)
