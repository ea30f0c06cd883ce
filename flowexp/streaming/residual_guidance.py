"""The guidance of a stream, and the cost of its negative side.

With the conditional noise prediction e_c and a negative one, ``e = e_neg + w (e_c - e_neg)``. The
residual forms take for e_neg the virtual noise s: the noise that leads from the state straight back
to the frame, ``s = (x - alpha x_frame) / sigma``, which needs no network evaluation.

Source: Kodaira et al., StreamDiffusion, 2023, arXiv 2312.12491, section 3.2.
"""

import math

__all__ = ["FullNegative", "NoNegative", "OneTimeNegative", "ResidualGuidance", "SelfNegative"]


class ResidualGuidance:
    """The negative side of a stream's guidance.

    Args:
        scale: w, finite; up to 1 the guidance is off, and the prediction is the conditional one.
        delta: Factor of the virtual noise, finite; smaller values soften.

    ``uses_virtual_noise`` says whether e_neg is ``delta s``; else it is the network's.
    """

    uses_virtual_noise: bool = False

    def __init__(self, *, scale: float, delta: float = 1.0) -> None:
        for name, value in (("scale", scale), ("delta", delta)):
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; expected a finite number")
        self.scale = float(scale)
        self.delta = float(delta)

    @property
    def is_on(self) -> bool:
        """Whether there is anything to guide by."""
        return self.scale > 1.0

    def negative_stages(self, stages: int) -> int:
        """Number of stages, from the first on, with a second network evaluation."""
        return 0


class NoNegative(ResidualGuidance):
    """No guidance: n evaluations a frame."""

    def __init__(self) -> None:
        super().__init__(scale=1.0)


class FullNegative(ResidualGuidance):
    """Classifier-free guidance with a negative prediction at every stage: 2n evaluations."""

    def __init__(self, *, scale: float) -> None:
        super().__init__(scale=scale)

    def negative_stages(self, stages: int) -> int:
        return stages if self.is_on else 0


class SelfNegative(ResidualGuidance):
    """The virtual noise towards the frame itself: n evaluations a frame."""

    uses_virtual_noise = True


class OneTimeNegative(ResidualGuidance):
    """The virtual noise towards the negative prediction at the first stage: n + 1 evaluations."""

    uses_virtual_noise = True

    def negative_stages(self, stages: int) -> int:
        return 1 if self.is_on else 0
