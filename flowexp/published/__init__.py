"""Published checkpoints, read without running code from them.

Each format has one reader; it returns plain tensors and the names and arguments of flowexp's own
parts (:class:`Published`).
"""

from pathlib import Path

from flowexp.errors import UsageError
from flowexp.published.edm import EDMSnapshot, TrainingState, precond_state
from flowexp.published.model import Part, Published, Reader, Shape
from flowexp.published.rectified_flow import RectifiedFlow
from flowexp.published.rfpp import RFPlusPlus, is_rfpp
from flowexp.published.score_sde import ScoreSDECheckpoint, load_weights_only, read_score_sde
from flowexp.published.torch_zip import mentions

__all__ = ["EDMSnapshot", "Part", "Published", "RFPlusPlus", "Reader", "RectifiedFlow",
           "ScoreSDECheckpoint", "Shape", "TrainingState", "precond_state", "read_published",
           "read_score_sde"]  # fmt: skip

_ZIP = b"PK"
_PERSISTENCE = "torch_utils.persistence"
# Start of torch.save files before the ZIP format: a pickled magic number.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_published(path: Path) -> Published:
    """The model in a published checkpoint of any known format; runs no code from the file.

    Args:
        path: The file: a pickle of EDM's code base (EDM, RF++), a training state of PFGM++, a
            checkpoint of rectified flow, or weights of RF++.

    Raises:
        UsageError: The file is missing, damaged, unsafe, or of unknown content.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}.", key="file", remedy="Name a checkpoint.")
    with path.open("rb") as file:
        head = file.read(len(_OLD_TORCH))
    if not head:
        raise UsageError(f"{path} is empty.", key="file", remedy="Download it again.")
    if head == _OLD_TORCH:
        return RectifiedFlow().read(path)
    if not head.startswith(_ZIP):
        return EDMSnapshot().read(path)
    if mentions(path, _PERSISTENCE):
        return TrainingState().read(path)
    reader = RFPlusPlus() if is_rfpp(load_weights_only(path)) else RectifiedFlow()
    return reader.read(path)
