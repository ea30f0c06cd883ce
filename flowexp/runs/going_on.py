"""Continuing a run: its state, and the changes of its config that are allowed.

The steps so far must be those that a new run of the changed config would have taken. So a
learning-rate schedule can end later if the learning rates so far stay the same.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from flowexp.config.differences import changes_in_words, shown_value
from flowexp.config.from_run import MODEL_GROUPS
from flowexp.config.instantiate import instantiate
from flowexp.config.override_text import command, override, typed
from flowexp.config.stand_in import evaluated
from flowexp.config.trust import Author, must_be_declared, problems_with
from flowexp.errors import UsageError
from flowexp.requirements import UnknownError
from flowexp.runs.run_directory import GROWING_KEYS, RunDirectory, changed_keys
from flowexp.tree import select

__all__ = ["GoingOn", "steps_for", "together"]

_SCHEDULE = "lr_schedule"
_LENGTH = "trainer.max_kimg"

Values = tuple[Any, Any]


def steps_for(kimg: float, batch_size: int) -> int:
    """Steps that show at least ``kimg`` thousand images, but for the product's rounding noise."""
    images = round(kimg * 1000.0, 6)
    return max(1, -int(-images // batch_size))


def together(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """The overrides of a run that was started with ``before`` and continued with ``now``."""
    replaced = {text.partition("=")[0] for text in now}
    added = [text for text in now if not text.startswith("run=")]
    return [*(text for text in before if text.partition("=")[0] not in replaced), *added]


@dataclass(frozen=True)
class GoingOn:
    """An existing run directory, and the config with which its training is to be continued.

    Args:
        config: Plain and resolved.
        overrides: As typed.
        by: Author of the config.
        named: Whether the command names the run with ``run=`` and so takes its config.
    """

    run: RunDirectory
    config: Mapping[str, Any]
    overrides: Sequence[str]
    by: Author
    named: bool

    @property
    def step(self) -> int:
        """The step of the newest checkpoint; 0 without one."""
        checkpoint = self.run.latest_checkpoint()
        if checkpoint is None:
            return 0
        numbered = self.run.numbered_checkpoints()
        if numbered:
            return int(numbered[-1].stem.removeprefix("step-"))
        from flowexp.runs.weights import read_checkpoint

        return int(read_checkpoint(checkpoint, mmap=True, key="dirs.run")["step"])

    @property
    def kimg(self) -> float:
        """Thousands of images seen at the newest checkpoint."""
        return self.step * int(self.config["trainer"]["batch_size"]) / 1000.0

    @property
    def finished(self) -> bool:
        """Whether the newest checkpoint is at ``trainer.max_kimg``."""
        trainer = self.config["trainer"]
        return self.step >= steps_for(float(trainer["max_kimg"]), int(trainer["batch_size"]))

    @property
    def longer(self) -> str:
        """The command that trains a finished run for twice as long."""
        return self._command({_LENGTH: 2 * self.config["trainer"]["max_kimg"]})

    def judge(self) -> bool:
        """Refuse changes that cannot be made; True if the learning-rate schedule changes from here.

        Raises:
            UsageError: The config is that of another run, or its schedule would have given other
                learning rates so far.
        """
        if isinstance(self.run.manifest().get("parents"), list):
            raise UsageError(
                f"{self.run.path} was imported and has no optimizer state to continue with.",
                key="run" if self.named else "dirs.run",
                remedy=f"Start a new run from its weights: {command('train')} "
                f"{typed('from', self.run.path)}",
            )
        changed = changed_keys(self.run.config(), self.config)
        others = {k: v for k, v in changed.items() if not k.startswith(f"{_SCHEDULE}.")}
        if others:
            self._refuse(others) if self.named else self._refuse_another_run(changed)
        if not changed or self._same_rates_so_far():
            return False
        given = any(text.lstrip("+~").startswith(_SCHEDULE) for text in self.overrides)
        if self.named and given:
            return True
        self._refuse_schedule(changed)

    def _same_rates_so_far(self) -> bool:
        """Whether both schedules have the same factors at every step so far."""
        old, new = self._old_factor, _factor(self.config[_SCHEDULE], by=self.by)
        size = int(self.config["trainer"]["batch_size"])
        # backwards, because most schedules differ near the end
        return all(old(n * size) == new(n * size) for n in reversed(range(self.step)))

    @property
    def _old_factor(self) -> Callable[[float], float]:
        by = Author.of(self.run.config_file)
        return _factor(self.run.config()[_SCHEDULE], by=by)

    def _refuse(self, changed: Mapping[str, Values]) -> NoReturn:
        key, (old, new) = next(iter(changed.items()))
        more, path = len(changed) - 1, self.run.path
        rest = f" ({more} more keys differ)" if more else ""
        then, now = (shown_value(key, value) for value in (old, new))
        if key in GROWING_KEYS:
            raise UsageError(
                f"{path} is trained for {then} kimg and cannot be shortened to {now}.",
                key=key,
                remedy=f"Leave it out, or give more, e.g. {override(key, 2 * old)}.",
            )
        own = [shlex.quote(text) for text in self.overrides if not text.startswith("run=")]
        start = " ".join(["flowexp train", typed("from", path), *own])
        of_weights = key.partition(".")[0] in MODEL_GROUPS
        raise UsageError(
            f"{path} has been trained with {then} and cannot continue with {now}{rest}.",
            key=key,
            remedy="Leave it out."
            if of_weights
            else f"Leave it out, or start a new run from its weights: {start}",
        )

    def _refuse_another_run(self, changed: Mapping[str, Values]) -> NoReturn:
        text = changes_in_words(changed, most=2)
        raise UsageError(
            f"{self.run.path} holds a run of another configuration ({text}).",
            key="dirs.run",
            remedy=f"To continue it: {self._command(self._grown())}. For a new run, choose another "
            "folder with dirs.run=...",
        )

    def _refuse_schedule(self, changed: Mapping[str, Values]) -> NoReturn:
        schedule = {k: v for k, v in changed.items() if k.startswith(f"{_SCHEDULE}.")}
        key, (old, new) = next(iter(schedule.items()))
        path, grown = self.run.path, self._grown()
        if len(schedule) > 1:
            raise UsageError(
                f"{path} has been trained with another learning-rate schedule.",
                key=key,
                remedy=f"To keep that schedule: {self._command(grown)}",
            )
        rate = f"{self._old_factor(1000 * self.kimg):.3g} times optimizer.lr"
        raise UsageError(
            f"{path} has been trained with {old}, and {new} would have given its {self.kimg:g} "
            "kimg so far other learning rates.",
            key=key,
            remedy=f"To use the new schedule from here on: {self._command({**grown, key: new})}. "
            f"To keep the old one (from here {rate}): add {override(key, old)}",
        )

    def _grown(self) -> dict[str, Any]:
        """The new ``trainer.max_kimg``, if it is larger than the run's."""
        old, new = (select(config, _LENGTH) for config in (self.run.config(), self.config))
        return {_LENGTH: new} if new > old else {}

    def _command(self, values: Mapping[str, Any]) -> str:
        given = (shlex.quote(override(key, _number(value))) for key, value in values.items())
        trust = must_be_declared(self.run.config())
        return " ".join([command("train", trust=trust, run=self.run.path), *given])


def _factor(node: Mapping[str, Any], *, by: Author) -> Callable[[float], float]:
    """The factor of a schedule, from its source text if possible, since imports take seconds."""
    if not problems_with({_SCHEDULE: node}, by=by):
        arguments = {name: value for name, value in node.items() if not name.startswith("_")}
        with suppress(UnknownError):
            found: Callable[[float], float] = evaluated(str(node["_target_"]), arguments).factor
            found(0.0)
            return found
    schedule = instantiate(node, key=_SCHEDULE, by=by)
    return cast("Callable[[float], float]", schedule.factor)


def _number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
