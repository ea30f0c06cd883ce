"""What stand-ins know of parts that nobody imported, and what they leave open."""

import ast
import builtins
import symtable
import sys
import textwrap
from pathlib import Path

import pytest

from flowexp.config import signatures, stand_in
from flowexp.config.rules import check_rules, stand_ins
from flowexp.config.stand_in import evaluated
from flowexp.requirements import Part, Parts, UnknownError, all_of
from tests.config.test_declarations import needs_methods, parts


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A user's part, found on the import path but never imported."""
    package = tmp_path / "outside_stand_ins"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from outside_stand_ins.part import Noisy, Wrapper, plain\n"
    )
    (package / "base.py").write_text(
        textwrap.dedent(
            """
            import torch
            from flowexp.requirements import Part, on_gaussian_noise

            _LARGEST = 2 * 50

            class Base(Part):
                scale: float = 1.0
                kind = "base"

                def __init__(self, *, steps: int = 4, dtype=None):
                    if steps < 1:
                        raise ValueError(f"steps is {steps}; expected at least 1")
                    self.steps = min(steps, _LARGEST)
                    self.dtype = torch.float64 if dtype is None else dtype
                    self.device = torch.device("cpu")

                @property
                def double(self):
                    return 2 * self.steps

                def kept(self):
                    return self.kind

                def asks_torch(self):
                    return torch.zeros(self.steps)
            """
        )
    )
    (package / "part.py").write_text(
        textwrap.dedent(
            """
            raise RuntimeError("a check must not import this")
            from dataclasses import dataclass
            import flowexp.paths as paths
            import missing
            from .base import Base
            from flowexp.requirements import on_gaussian_noise

            class Noisy(Base):
                kind = "noisy"

                def __init__(self, *, amount: float, steps: int = 4):
                    super().__init__(steps=2 * steps, dtype=torch.float16)
                    if unknown_switch:
                        self.amount = 0.0
                    self.amount = float(amount)
                    self.adds_noise = self.amount > 0.0
                    self.scale = torch.ones(3)

                def kept(self):
                    return super().kept() + "!"

                def needs(self, parts):
                    if self.adds_noise:
                        what, off = f"{type(self).__name__} adds", "Set amount=0"
                        yield from on_gaussian_noise(parts, key=".amount", what=what, remedy=off)

            @dataclass(frozen=True)
            class Settings:
                later: ClassVar[dict[str, int]] = {"width": 2}
                length: int
                width: int = 2

                def __post_init__(self):
                    if self.length < self.width:
                        raise ValueError(f"length is {self.length}; expected at least {self.width}")

            class Wrapper(Base):
                def __init__(self, *, inner: Base, settings=None, length=3):
                    self.settings = Settings(length) if settings is None else settings
                    self.inner = inner
                    self.is_noisy = isinstance(inner, Noisy)

            class Dotted(paths.Linear):
                pass

            class Unread(missing.Base):
                pass

            class Careful(Base):
                scale: float = 1.0
                kind = "careful"

                def __init__(self, *, names=(), early: bool = False, choice=None):
                    self.early = early
                    found = ["a"]
                    found.extend(torch.arange(3))
                    if len(found) == 1:
                        raise ValueError("found is short")
                    try:
                        self.read()
                    except Exception as error:
                        raise ValueError("it could not be read")
                    self._set_up()
                    if torch.cuda.is_available():
                        return
                    if choice == 3:
                        raise ValueError("choice is 3; expected another one")

                def _set_up(self):
                    torch.manual_seed(0)
                    self.kind = "changed"
                    self._set_more()

                def _set_more(self):
                    self.scale = 2.0

                def read(self):
                    return open("file")

            def plain(inner, *, factor=2):
                return inner if factor == 2 else torch.stack([inner])
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = (signatures._parse, signatures._spec)
    for cached in (*caches, stand_in._source):
        cached.cache_clear()
    yield "outside_stand_ins"
    assert "outside_stand_ins.part" not in sys.modules


def node(package, name, **arguments):
    return {"_target_": f"{package}.{name}", **arguments}


GAUSSIAN = {"_target_": "flowexp.paths.Path", "schedule": {"_target_": "flowexp.paths.Linear"}}
STUDENT = {**GAUSSIAN, "D": 4}


def test_constructor_arguments_defaults_and_bases_are_known(outside):
    part = evaluated(f"{outside}.Noisy", {"amount": 1})
    assert (part.amount, part.steps, part.double, part.adds_noise) == (1.0, 8, 16, True)
    assert part.kept() == "noisy!"
    assert type(part).__name__ == "Noisy"


@pytest.mark.parametrize("name", ["scale", "dtype", "device", "absent", "asks_torch"])
def test_what_needs_an_import_is_unknown(outside, name):
    part = evaluated(f"{outside}.Noisy", {"amount": 1})
    with pytest.raises(UnknownError):
        getattr(part, name)()


def test_an_argument_that_is_missing_makes_only_what_it_decides_unknown(outside):
    part = evaluated(f"{outside}.Noisy", {})
    assert part.steps == 8
    with pytest.raises(UnknownError):
        _ = part.adds_noise
    assert list(all_of(part.needs(Parts()))) == []


def test_parts_within_parts_and_functions_are_known(outside):
    inner = node(outside, "Noisy", amount=0)
    config = {"sampler": node(outside, "Wrapper", inner=node(outside, "plain", inner=inner))}
    part = stand_ins(config)["sampler"]
    assert part.is_noisy
    assert part.inner.amount == 0.0
    assert part.settings.width == 2
    unknown = {"sampler": node(outside, "plain", inner=inner, factor=3)}
    assert stand_ins(unknown) == {}


def test_a_constructor_refuses_here_as_it_would_there(outside):
    found = check_rules({"sampler": node(outside, "Noisy", amount=1, steps=0)})
    assert [(p.key, p.text) for p in found] == [
        ("sampler.steps", "steps is 0; expected at least 1.")
    ]
    inner = node(outside, "Noisy", amount=1)
    found = check_rules({"sampler": node(outside, "Wrapper", inner=inner, length=1)})
    assert [p.key for p in found] == ["sampler.length"]
    config = {"sampler": node(outside, "Noisy", amount=1, steps=0)}
    assert check_rules(config, missing={"sampler.steps"}) == []


def test_what_may_have_happened_refuses_nothing(outside):
    part = evaluated(f"{outside}.part.Careful", {"choice": 3})
    assert part.early is False
    for name in ("kind", "scale"):
        with pytest.raises(UnknownError):
            getattr(part, name)


def test_what_a_class_is_derived_from_is_known_or_unknown(outside):
    linear = stand_in._Source.of("flowexp.paths.interpolants").value("Linear")
    assert isinstance(evaluated(f"{outside}.part.Dotted", {}), linear)
    assert not isinstance(evaluated(f"{outside}.Noisy", {}), linear)
    with pytest.raises(UnknownError):
        isinstance(evaluated(f"{outside}.part.Unread", {}), linear)


def test_a_part_from_outside_states_its_needs(outside):
    sampler = node(outside, "Noisy", amount=3)
    (problem,) = check_rules({"path": STUDENT, "sampler": sampler})
    assert problem.key == "sampler.amount"
    assert problem.text == (
        "Noisy adds Gaussian noise, which the StudentT source of path.D=4 is not."
    )
    assert check_rules({"path": GAUSSIAN, "sampler": sampler}) == []
    assert check_rules({"path": STUDENT, "sampler": {**sampler, "amount": 0}}) == []
    assert check_rules({"sampler": sampler}) == []


def test_a_target_that_cannot_be_read_does_not_hide_the_needs_of_its_arguments(outside):
    inner = node(outside, "Noisy", amount=3)
    config = {"path": STUDENT, "sampler": node(outside, "plain", inner=inner, factor=3)}
    assert [p.key for p in check_rules(config)] == ["sampler.amount"]


def names_used(method: ast.FunctionDef) -> set[str]:
    """Global names of a method, annotations left out."""
    bare = stand_in._compiled.__wrapped__
    assert bare(method, "here")
    clean = ast.parse(ast.unparse(method)).body[0]
    clean.decorator_list, clean.returns = [], None
    for argument in [*clean.args.args, *clean.args.kwonlyargs]:
        argument.annotation = None
    table = symtable.symtable(ast.unparse(clean), "here", "exec").get_children()[0]
    tables = [table, *table.get_children()]
    return {s.get_name() for t in tables for s in t.get_symbols() if s.is_global()}


# They compare with what is stored on disk, which a config check does not open.
READS_FILES = {"chords.Chords._path_of_the_chords"}


@pytest.mark.parametrize(
    ("name", "module", "method"),
    [pytest.param(*found, id=found[0]) for found in needs_methods() if found[0] not in READS_FILES],
)
def test_needs_use_only_names_that_stand_ins_have(name, module, method):
    for used in names_used(method) - {"super", "__class__"}:
        value = stand_in._Source.of(module).names["__builtins__"][used]
        assert value is not None or hasattr(builtins, used)


def test_every_part_that_yaml_names_is_found_without_its_module():
    for part in parts():
        found = stand_in._Source.of(part.__module__).class_named(part.__name__)
        assert found is not None, part
        names = [cls.__name__ for cls in part.__mro__ if cls.__module__.startswith("flowexp.")]
        assert [cls.node.name for cls in found.mro] == names
        if issubclass(part, Part):
            assert found.lookup("needs")


def test_no_stand_in_reads_files(tmp_path):
    run = {"_target_": "flowexp.runs.trained.TrainedModel", "run": str(tmp_path / "none")}
    assert check_rules({"objective": {"_target_": "flowexp.guidance.guided", "model": run}}) == []
    assert not Path(run["run"]).exists()
