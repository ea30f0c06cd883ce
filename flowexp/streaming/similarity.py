"""The stochastic similarity filter: frames that repeat the last one are skipped at random."""

import torch
from torch import Tensor

__all__ = ["SimilarityFilter", "skip_probability"]

_EPS = 1e-6


def skip_probability(frame: Tensor, reference: Tensor, *, threshold: float) -> float:
    """``max(0, 1 - (1 - S) / (1 - threshold))`` with S the cosine of the two frames.

    Frames are (C, H, W), in [-1, 1]; those in [0, 1] are more similar to each other. They are
    skipped from the similarity ``threshold`` on; at 1 and above never.

    Source: Kodaira et al., StreamDiffusion, 2023, arXiv 2312.12491, eq. 8 and 9.
    """
    if threshold >= 1.0:
        return 0.0
    a, b = frame.reshape(-1).double(), reference.reshape(-1).double()
    norms = torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)
    cosine = float(torch.dot(a, b) / norms.clamp(min=_EPS))
    return max(0.0, 1.0 - (1.0 - cosine) / (1.0 - threshold))


class SimilarityFilter:
    """Decides frame by frame whether a frame is skipped; it remembers the last one that was not.

    A frame is processed if ``p < u`` with the skip probability p and a uniform u. A frame that
    would be skipped is still processed when more than ``max_skip`` frames were skipped since the
    last time this happened; frames processed in between do not reset that count. Identical frames
    are therefore skipped ``max_skip + 1`` times between two that are processed.

    Args:
        threshold: Similarity from which on frames are skipped.
        max_skip: See above, >= 0.

    Source: Kodaira et al., StreamDiffusion, 2023, arXiv 2312.12491, section 3.4; the limit is that
    of their code (image_filter.py), the paper has none.
    """

    def __init__(self, *, threshold: float = 0.98, max_skip: int = 10) -> None:
        if max_skip < 0:
            raise ValueError(f"max_skip is {max_skip}; expected a number >= 0")
        self.threshold = float(threshold)
        self.max_skip = max_skip
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.skipped = 0
        self._reference: Tensor | None = None

    def skips(self, frame: Tensor, *, u: float) -> bool:
        """Whether the next frame, (C, H, W) in [-1, 1], is skipped, by its uniform draw u."""
        if self._reference is None:
            self._reference = frame.clone()
            return False
        if skip_probability(frame, self._reference, threshold=self.threshold) >= u:
            if self.skipped <= self.max_skip:
                self.skipped += 1
                return True
            self.skipped = 0
        self._reference = frame.clone()
        return False
