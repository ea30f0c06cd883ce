"""Parameterizations with a second time: the flow map from t to r, and the average velocity."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from flowexp.broadcast import expand_as
from flowexp.parameterizations.base import Conditions, NetworkInputs, Parameterization
from flowexp.paths import Affine, Coefficients, Conversion, Schedule
from flowexp.requirements import Part, Parts, Unmet, all_of, within

__all__ = ["DDIMJump", "EulerJump", "FlowMap", "Jump"]

SECOND_TIMES = ("gap", "end")
GUIDANCE_INPUTS = ("guidance_scale", "guidance_start", "guidance_end")
"""Guidance conditions of a model, (B,), as inputs of a network; see :class:`FlowMap`."""


class Jump(Part, ABC):
    """Maps a network's output at (x_t, t, r) to the average velocity from t to r."""

    @abstractmethod
    def average_velocity(
        self, conversion: Conversion, schedule: Schedule, t: Tensor, r: Tensor
    ) -> Affine:
        """The u of x_t and F, an affine map; ``conversion`` is that at t. Finite at r = t."""


class EulerJump(Jump):
    """``X_{t->r} = x_t - (t - r) u``, where u is the velocity that F predicts.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447; Boffi et al., 2025, arXiv 2505.18825.
    """

    def average_velocity(
        self, conversion: Conversion, schedule: Schedule, t: Tensor, r: Tensor
    ) -> Affine:
        return conversion.velocity


class DDIMJump(Jump):
    """``X_{t->r} = alpha_r D + sigma_r E`` with the data D and the noise E that F predicts.

    This is ``(sigma_r/sigma_t) x_t + (alpha_r - alpha_t sigma_r/sigma_t) D``; the average velocity
    is ``D (alpha_t - alpha_r)/(t - r) + E (sigma_t - sigma_r)/(t - r)``. At r = 0 the jump ends at
    D, as in consistency models. With velocity prediction it is a rotation on the trigonometric path
    (TrigFlow) and equals :class:`EulerJump` on linear and VE paths. With EDM's preconditioning it
    is IMM's "simple-EDM", with data prediction IMM's "identity".

    Source: Song et al., DDIM, 2020, arXiv 2010.02502, eq. 12; Zhou et al., IMM, 2025, arXiv
    2503.07565.
    """

    def average_velocity(
        self, conversion: Conversion, schedule: Schedule, t: Tensor, r: Tensor
    ) -> Affine:
        alpha, sigma = schedule.mean_slopes(t, r)
        return conversion.data.combined(conversion.noise, alpha, sigma)


class FlowMap(Parameterization):
    """A flow map: a parameterization whose network is also conditioned on a second time r <= t.

    F, converted by ``of`` at t, predicts the whole step to r: the model has the average velocity
    ``u(x_t, t, r) = (x_t - X_{t->r}(x_t))/(t - r)`` and the flow map X. Predictions at one time are
    those at r = t, ``u(x_t, t, t) = v(x_t, t)``.

    Besides c_noise the network can be conditioned on these numbers, each 0 by default:

    - ``gap``: ``s(t) - s(r)`` with the unit time s of the path;
    - ``end``: ``s(r)``;
    - ``guidance_scale``: ``1 - 1/w`` for the guidance scale w, 0 = not guided;
    - ``guidance_start``, ``guidance_end``: t_min and ``1 - t_max`` of the interval of t in which
      the target was guided.

    Args:
        of: Parameterization of the network's input and output at t.
        jump: Maps the prediction at t to the average velocity from t to r.
        conditions_on: Names of the numbers above that the network is conditioned on, its
            ``scalars``. Without ``gap`` and ``end`` the flow map ends at r = 0 only: a consistency
            model.
        velocity_head: Whether F has twice the channels, the second half of which predicts the
            velocity at t, in training only.
        scaled_by_guidance: Whether F is the network's output times the guidance scale w (1 if none
            is given), as in terminal velocity matching.

    Raises:
        ValueError: conditions_on has an unknown name.

    Source: Boffi et al., Learning flow maps via self-distillation, 2025, arXiv 2505.18825; Geng et
    al., MeanFlow, 2025, arXiv 2505.13447 (conditioning on t and t - r).
    """

    is_flow_map = True

    def __init__(
        self,
        *,
        of: Parameterization,
        jump: Jump,
        conditions_on: Sequence[str] = ("gap",),
        velocity_head: bool = False,
        scaled_by_guidance: bool = False,
    ) -> None:
        known = (*SECOND_TIMES, *GUIDANCE_INPUTS)
        unknown = [name for name in conditions_on if name not in known]
        if unknown:
            raise ValueError(
                f"conditions_on has {', '.join(unknown)}; expected some of {', '.join(known)}"
            )
        self.of = of
        self.jump = jump
        self.conditions_on = tuple(conditions_on)
        self.velocity_head = velocity_head
        self.scaled_by_guidance = scaled_by_guidance
        self.needs_signal = of.needs_signal
        self.maps_to_data_only = not any(name in SECOND_TIMES for name in conditions_on)

    def output_channels(self, channels: int) -> tuple[int, ...]:
        fitting = self.of.output_channels(channels)
        return tuple(2 * own for own in fitting) if self.velocity_head else fitting

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The requirements of any parameterization, and those of ``of`` and ``jump``."""
        yield from all_of(super().needs(parts), self._of(parts))

    def _of(self, parts: Parts) -> Iterator[Unmet]:
        if self.of.corrects_velocity or self.of.is_flow_map:
            name = type(self.of).__name__
            problem = f"{name} cannot be the prediction inside a flow map."
            yield Unmet(".of", problem, "Use parameterization@parameterization.of=velocity.")
        yield from within("jump", self.jump.needs(parts))

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        return self.of.inputs(schedule, t, c)

    def conversion(self, c: Coefficients) -> Conversion:
        return self.of.conversion(c)

    def conversion_in(self, c: Coefficients, *, training: bool) -> Conversion:
        return self.of.conversion_in(c, training=training)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        return self.of.time_range(schedule)

    def nearest_time(self, schedule: Schedule, t: Tensor) -> Tensor:
        return self.of.nearest_time(schedule, t)

    def second_time(self, schedule: Schedule, t: Tensor, r: Tensor) -> dict[str, Tensor]:
        """The inputs of the network that encode r, by name, (B,) float64."""
        end = schedule.unit_time(r)
        values = {"gap": schedule.unit_time(t) - end, "end": end}
        return {name: values[name] for name in SECOND_TIMES if name in self.conditions_on}

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """F, given the numbers among ``conditions``; without the velocity head."""
        return self.heads(network, x, c_noise, conditions)[0]

    def heads(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> tuple[Tensor, Tensor | None]:
        """F, and the output of the velocity head or None."""
        rest = dict(conditions)
        given = {name: rest.pop(name, None) for name in (*SECOND_TIMES, *GUIDANCE_INPUTS)}
        scalars = {
            name: _encoded(name, value)
            for name in self.conditions_on
            if (value := given[name]) is not None
        }
        if scalars:
            rest["scalars"] = scalars  # type: ignore[assignment]  # a condition of many columns
        output = self.of.evaluate(network, x, c_noise, rest)
        scale = conditions.get("guidance_scale")
        if self.scaled_by_guidance and scale is not None:
            output = expand_as(scale, output) * output
        if not self.velocity_head:
            return output, None
        first, second = output.chunk(2, dim=1)
        return first, second


def _encoded(name: str, value: Tensor) -> Tensor:
    """A condition in the form in which the network receives it."""
    if name == "guidance_scale":
        return 1.0 - 1.0 / value
    return 1.0 - value if name == "guidance_end" else value
