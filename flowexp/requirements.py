"""What parts need of each other, in words that need no torch.

A part that does not go with every other overrides :meth:`Part.needs` in its own file. The same
method answers for real objects, when a run is assembled, and for stand-ins made of a config and the
parts' source (``flowexp.config.stand_in``), when a config is checked without importing torch. It
therefore reads only what :class:`Parts` declares, attributes of its own, and names of this module.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol, TypeAlias

from flowexp.errors import UsageError
from flowexp.identity import Stored

__all__ = [
    "Extended",
    "NEVER_LEARNT",
    "NetworkFacts",
    "Part",
    "Parts",
    "UnknownError",
    "Unmet",
    "all_of",
    "of_images",
    "on_any_end",
    "on_deviation",
    "on_dropped_labels",
    "on_flow_map",
    "on_gaussian_noise",
    "on_labels",
    "on_path_of",
    "on_pixels",
    "on_unit_time",
    "on_velocity",
    "require",
    "source_of",
    "within",
    "within_signal",
]


NEVER_LEARNT = "which the network never learns without dropped labels (network.label_dropout=0)"


Extended: TypeAlias = float
"""Annotation of a number that may be infinite: it allows ``inf`` in a config."""


class UnknownError(Exception):
    """A fact that is not known here. The need that reads it ends without a refusal."""


@dataclass(frozen=True)
class Unmet:
    """A need that the chosen parts do not meet.

    Args:
        key: Config key that is wrong. ``.`` is the part itself, ``.eta`` an argument of the part,
            anything else a key from the root of the config.
        problem: One sentence that names both parts.
        remedy: How to fix it.
        refuses: Whether the parts cannot go together; else it is a warning, since the user may know
            more than the config tells.
    """

    key: str
    problem: str
    remedy: str
    refuses: bool = True

    def seen_from(self, group: str) -> "Unmet":
        """The same with the key of a part that stands at ``group``."""
        if not self.key.startswith("."):
            return self
        return replace(self, key=f"{group}{self.key}".removesuffix("."))


# What needs may read of ``parts.path``, ``parts.dataset`` and so on.


class Source(Protocol):
    @property
    def is_gaussian(self) -> bool:
        """Whether formulas that assume Gaussian noise are true for it."""

    @property
    def has_density(self) -> bool:
        """Whether its log density is known."""


class Schedule(Protocol):
    t_min: float
    t_max: float

    @property
    def ends_in_source(self) -> bool:
        """Whether alpha is 0 at t = 1."""

    def identity(self) -> str:
        """Class and arguments, by which stored artefacts know it again."""


class Path(Protocol):
    D: float

    @property
    def source(self) -> Source:
        """The distribution of e."""

    @property
    def schedule(self) -> Schedule:
        """Alpha and sigma."""

    def identity(self) -> str:
        """Class and arguments, by which stored artefacts know it again."""


class Space(Protocol):
    channels: int
    resolution: int


class Scaling(Protocol):
    @property
    def deviation(self) -> float | None:
        """Standard deviation of the scaled latents in each channel; None = unknown."""


class Autoencoder(Space, Protocol):
    @property
    def encodes(self) -> bool:
        """Whether the flow is on its latents, not on the data."""

    @property
    def scaling(self) -> Scaling:
        """From the encoder's latents to those of the flow."""


class Dataset(Protocol):
    channels: int
    resolution: int
    num_classes: int

    @property
    def has_partners(self) -> bool:
        """Whether every item comes with a source draw of its own."""

    @property
    def holds_points(self) -> bool:
        """Whether its items are points, not images."""


@dataclass(frozen=True)
class NetworkFacts:
    """Attributes of a :class:`flowexp.networks.Network`; None where a foreign module has none."""

    label_dim: int
    augment_dim: int
    takes_tokens: bool
    in_channels: int | None
    out_channels: int | None
    img_resolution: int | None
    scalars: tuple[str, ...] = ()
    takes_scalars: bool = True
    label_dropout: float = 0.0
    condition_dropout: Mapping[str, float] | None = None
    sequence: int = 1
    remembers: bool = False
    draws_tokens: bool = False
    is_autoencoder: bool = False


class ModelFacts(Protocol):
    @property
    def is_flow_map(self) -> bool:
        """Whether the model has a flow map, from one time to another."""

    @property
    def maps_to_data_only(self) -> bool:
        """Whether that flow map ends at t = 0 only, as a consistency model's."""

    @property
    def score_head(self) -> bool:
        """Whether there is a score beside the velocity, for any source."""


class Parameterization(ModelFacts, Protocol):
    @property
    def conditions_on(self) -> Sequence[str]:
        """Names of the numbers that the network is conditioned on besides the time."""

    @property
    def velocity_head(self) -> bool:
        """Whether half of the network's output is a second prediction of the velocity."""

    @property
    def corrects_velocity(self) -> bool:
        """Whether the network is given a velocity to correct."""


class Sampler(Protocol):
    @property
    def jumps(self) -> bool:
        """Whether it uses the flow map, not predictions at one time."""

    @property
    def reconstructs(self) -> bool:
        """Whether it gives back an image that it is shown, as an autoencoder."""


class Task(Protocol):
    @property
    def gives_image(self) -> bool:
        """Whether an image is among its conditions."""


class Objective(Protocol):
    @property
    def trains_refiner(self) -> bool:
        """Whether it gives the network a velocity to correct."""

    @property
    def trains_score(self) -> bool:
        """Whether it trains a score beside the velocity."""


class Trainer(Protocol):
    batch_size: int
    micro_batch: int | None
    compile: bool
    precision: str


class Timestep(Protocol):
    @property
    def support(self) -> tuple[float, float]:
        """The interval (low, high) of its times."""

    @property
    def drawn_end(self) -> str | None:
        """The argument that holds the largest time, if that can be drawn; empty if none does."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The times it draws for a sample, by name: ``t``, ``r`` ..."""

    @property
    def anchored(self) -> float:
        """The share of the rows with a known average velocity, such as those with r = t."""

    @property
    def ends_early(self) -> bool:
        """Whether the time r that it draws may be above 0."""

    @property
    def sequence(self) -> int:
        """The number of consecutive rows whose times fall."""


class Coupling(Protocol):
    @property
    def gives_times(self) -> bool:
        """Whether it has images and times of its own."""

    @property
    def chooses_items(self) -> bool:
        """Whether it chooses its images among all of the data."""

    @property
    def keeps_rows(self) -> bool:
        """Whether the pairs have the images of the batch in its order."""


class Augmentation(Protocol):
    @property
    def changes_images(self) -> bool:
        """Whether images may come back changed."""


class Parts:
    """The parts of one configuration by their groups, and ``others``, such as ``pairs``, by key.

    A part that is not there, or a fact that it does not tell, is unknown: reading it raises
    :class:`UnknownError`.

    Attributes:
        labels_dropped: Whether the training of a network that takes labels or captions shows it
            inputs without them as well.
    """

    path: Path
    dataset: Dataset
    autoencoder: Autoencoder
    network: NetworkFacts
    parameterization: Parameterization
    objective: Objective
    sampler: Sampler
    task: Task
    timestep: Timestep
    coupling: Coupling
    augmentation: Augmentation
    trainer: Trainer
    pairs: object
    ema: Mapping[str, object]
    labels_dropped: bool

    def __init__(
        self,
        *,
        path: Path | None = None,
        dataset: Dataset | None = None,
        network: NetworkFacts | None = None,
        parameterization: ModelFacts | None = None,
        objective: Objective | None = None,
        timestep: Timestep | None = None,
        augmentation: Augmentation | None = None,
        **others: object,
    ) -> None:
        named = {
            "path": path,
            "dataset": dataset,
            "network": network,
            "parameterization": parameterization,
            "objective": objective,
            "timestep": timestep,
            "augmentation": augmentation,
        }
        vars(self).update({name: part for name, part in named.items() if part is not None})
        vars(self).update(others)

    @property
    def space(self) -> Space:
        """The space of the flow: the latents of the autoencoder, or that of the data."""
        chosen: Autoencoder | None = vars(self).get("autoencoder")
        return self.dataset if chosen is None or not chosen.encodes else chosen

    def __getattr__(self, name: str) -> NoReturn:
        raise UnknownError(name)


class Part(Stored):
    """A choice of a config group, or an argument of one."""

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What this part needs of the others and does not find; by default nothing.

        A part that holds parts passes on what these need; see :func:`within`. Needs that read
        different facts belong into separate generators, joined by :func:`all_of`.
        """
        yield from ()


def all_of(*needs: Iterable[Unmet]) -> Iterator[Unmet]:
    """What is unmet of several needs; one that meets an unknown fact ends without the others."""
    for need in needs:
        try:
            yield from need
        except UnknownError:
            continue


def within(argument: str, needs: Iterable[Unmet]) -> Iterator[Unmet]:
    """What the part given as ``argument`` of another needs, with keys as the other sees them."""
    yield from (unmet.seen_from(f".{argument}") for unmet in needs)


def require(needs: Iterable[Unmet], *, group: str) -> None:
    """Refuse the first unmet need of the part that stands at ``group`` in the config.

    Warnings are the config check's to give.

    Raises:
        UsageError: One need is unmet.
    """
    for unmet in (u for u in all_of(needs) if u.refuses):
        found = unmet.seen_from(group)
        raise UsageError(found.problem, key=found.key, remedy=found.remedy)


def source_of(path: Path) -> str:
    """The source of a path, as messages name it."""
    if math.isfinite(path.D):
        return f"the {type(path.source).__name__} source of path.D={path.D:g}"
    return f"the source {type(path.source).__name__}"


def on_gaussian_noise(parts: Parts, *, what: str, remedy: str, key: str = ".") -> Iterator[Unmet]:
    """The source must be Gaussian.

    ``what`` begins a sentence that says who assumes it, ``EulerMaruyama assumes``; ``remedy`` is
    what can be done besides ``path.D=inf``.
    """
    if not parts.path.source.is_gaussian:
        problem = f"{what} Gaussian noise, which {source_of(parts.path)} is not."
        yield Unmet(key, problem, f"{remedy}, or path.D=inf.")


def on_unit_time(parts: Parts, *, name: str) -> Iterator[Unmet]:
    """Time must run from 0 to 1."""
    schedule = parts.path.schedule
    if schedule.t_max > 1.0:
        problem = (
            f"{name} needs t in [0, 1], but on the {type(schedule).__name__} path time runs from "
            f"{schedule.t_min:g} to {schedule.t_max:g}."
        )
        yield Unmet(".", problem, "Use another objective, or a path with time in [0, 1].")


def on_flow_map(parts: Parts, *, name: str, use: str = "average_velocity") -> Iterator[Unmet]:
    """The model must have a second time; ``use`` is a parameterization that has one."""
    if not parts.parameterization.is_flow_map:
        rule = type(parts.parameterization).__name__
        problem = f"{name} trains a flow map, but {rule} has no second time."
        yield Unmet("parameterization", problem, f"Use parameterization={use}.")


def on_velocity(model: ModelFacts, *, name: str, remedy: str, key: str = ".") -> Iterator[Unmet]:
    """The model must have a velocity, which ``name`` follows."""
    if model.maps_to_data_only:
        problem = f"{name} follows the velocity of a model, but a consistency model has none."
        yield Unmet(key, problem, remedy)


def on_any_end(parts: Parts, *, name: str) -> Iterator[Unmet]:
    """The flow map must be able to end at any r, not only at the data."""
    if parts.parameterization.maps_to_data_only:
        problem = f"{name} needs the flow map to any r, but a consistency model ends at r = 0."
        yield Unmet(".", problem, "Use parameterization=average_velocity.")


def within_signal(parts: Parts, *, name: str, group: str) -> Iterator[Unmet]:
    """No time may be drawn at which alpha is 0, since ``name`` is not defined there.

    The remedy names ``group``, of which another option can be chosen.
    """
    law = parts.timestep
    argument = law.drawn_end
    if argument is not None and law.support[1] >= 1.0 and parts.path.schedule.ends_in_source:
        problem = f"{type(law).__name__} draws t=1, pure noise, where {name} is not defined."
        change = f"Set timestep.{argument}=0.99999, or take" if argument else "Take"
        yield Unmet("timestep", problem, f"{change} another {group}.")


def of_images(parts: Parts, *, name: str, remedy: str) -> Iterator[Unmet]:
    """The data must be images."""
    if parts.dataset.holds_points:
        problem = f"{name} looks at images, but {type(parts.dataset).__name__} holds points."
        yield Unmet(".", problem, remedy)


def on_pixels(parts: Parts, *, name: str, remedy: str, key: str = ".") -> Iterator[Unmet]:
    """The data must be images in [-1, 1]; ``name`` begins a sentence, ``LPIPS compares images``."""
    if parts.space is not parts.dataset:
        yield Unmet(key, f"{name}, but the flow is on latents.", remedy)
    elif parts.dataset.holds_points:
        yield Unmet(key, f"{name}, but {type(parts.dataset).__name__} holds points.", remedy)


def on_deviation(parts: Parts, sigma_data: float) -> Iterator[Unmet]:
    """A warning if the latents' standard deviation is known and is not ``sigma_data``."""
    if parts.space is parts.dataset:
        return
    deviation = parts.autoencoder.scaling.deviation
    if deviation is not None and not math.isclose(deviation, sigma_data):
        problem = f"sigma_data is {sigma_data:g}, but the latents' deviation is {deviation:g}."
        remedy = f"Set autoencoder.scaling.multiplier={sigma_data:g}."
        yield Unmet(".sigma_data", problem, remedy, refuses=False)


class OnPath(Protocol):
    @property
    def path(self) -> Path:
        """The path that a model is defined on."""


def on_path_of(teacher: OnPath, parts: Parts) -> Iterator[Unmet]:
    """The path must be that of a teacher."""
    own, path = teacher.path.identity(), parts.path.identity()
    if own != path:
        problem = f"the teacher's path is {own}, but the path is {path}."
        yield Unmet(".", problem, "Take the teacher's path.")


def on_labels(parts: Parts, *, name: str, remedy: str) -> Iterator[Unmet]:
    """The network must take labels or captions, since ``name`` calls it with and without."""
    if parts.network.label_dim == 0 and not parts.network.takes_tokens:
        problem = f"{name} compares with and without label, but the network takes no labels."
        yield Unmet(".", problem, f"Use {remedy}, or a class-conditional network.")


def on_dropped_labels(parts: Parts, *, name: str, key: str, remedy: str) -> Iterator[Unmet]:
    """The training should have dropped labels, since ``name`` calls the network without; a warning.

    ``remedy`` is what can be done besides training with dropped labels.
    """
    if not parts.labels_dropped:
        problem = f"{name} uses the prediction without label, {NEVER_LEARNT}."
        yield Unmet(key, problem, f"Train with network.label_dropout=0.1, or {remedy}.", False)
