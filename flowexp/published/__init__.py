"""Published checkpoints, read without running code from them.

Each format has one reader; it returns plain tensors and the names and arguments of flowexp's own
parts (:class:`Published`).
"""

from flowexp.published.edm import EDMSnapshot, TrainingState, precond_state
from flowexp.published.model import Part, Published, Reader, Shape
from flowexp.published.read import read_published
from flowexp.published.rectified_flow import RectifiedFlow
from flowexp.published.rfpp import RFPlusPlus
from flowexp.published.score_sde import ScoreSDECheckpoint, read_score_sde

__all__ = ["EDMSnapshot", "Part", "Published", "RFPlusPlus", "Reader", "RectifiedFlow",
           "ScoreSDECheckpoint", "Shape", "TrainingState", "precond_state", "read_published",
           "read_score_sde"]  # fmt: skip
