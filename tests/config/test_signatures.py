import ast
import sys
import textwrap

import pytest

from flowexp.config import signatures
from flowexp.config.signatures import UnknownTargetError, signature_of
from flowexp.config.targets import fits


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package outside flowexp, found on the import path but never imported."""
    package = tmp_path / "outside_parts"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from outside_parts.inner import Thing as Renamed\n")
    (package / "inner" / "__init__.py").write_text("from .deep import Thing, make\n")
    (package / "inner" / "deep.py").write_text(
        textwrap.dedent(
            """
            raise RuntimeError("a check must not import this")
            from dataclasses import dataclass

            class Base:
                def __init__(self, a: int, *, b: float = 1.0) -> None: ...

            class Thing(Base):
                pass

            class Forwarding(Base):
                def __init__(self, c: str, **rest) -> None: ...

            class Giving(Base):
                def __init__(self, **rest) -> None:
                    super().__init__(1, b=2.0, **rest)

            class Replacing(Base):
                def __init__(self, **rest) -> None:
                    super().__init__(a=1, b=rest.pop("b", 2.0), **rest)

            class Choosing(Base):
                def __init__(self, often: bool = True, **rest) -> None:
                    if often:
                        super().__init__(b=2.0, **rest)
                    else:
                        super().__init__(**rest)

            class Open:
                def __init__(self, **rest) -> None: ...

            @dataclass
            class Data:
                kind: typing.ClassVar[str] = "data"
                x: int
                y: int = 2

            @dataclass
            class MoreData(Data):
                z: int

            def make(n: int, names: list[str] | None = None): ...
            """
        )
    )
    (package / "several.py").write_text(
        textwrap.dedent(
            """
            import abc
            from outside_parts import inner
            try:
                from outside_parts.inner.deep import Open
            except ImportError:
                Open = None
            try:
                from no_such_package_anywhere import Forwarding
            except ImportError:
                from outside_parts.inner.deep import Forwarding
            if abc:
                from outside_parts.inner.deep import Data as Chosen
            else:
                class Other: ...
            with abc:
                def made(k: int): ...
            from outside_parts.inner.deep import *

            class Dotted(inner.Thing): ...
            """
        )
    )
    (package / "lazy.py").write_text("class Near: ...\ndef __getattr__(name): ...\n")
    (package / "compiled.so").write_bytes(b"")
    (package / "partly.py").write_text("from outside_parts.compiled import *\nclass Near: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for cached in (signature_of, signatures._parse, signatures._spec):
        cached.cache_clear()
    yield package
    assert "outside_parts.inner.deep" not in sys.modules


def names(target):
    return list(signature_of(target).parameters)


@pytest.mark.usefixtures("outside")
class TestFollowing:
    def test_re_exports_and_renames_lead_to_the_class(self):
        assert names("outside_parts.Renamed") == ["a", "b"]
        assert names("outside_parts.inner.Thing") == ["a", "b"]

    def test_keyword_arguments_passed_on_add_the_base_parameters(self):
        found = signature_of("outside_parts.inner.deep.Forwarding")
        assert set(found.parameters) == {"a", "b", "c"}
        assert not found.open_ended

    def test_only_what_would_be_given_twice_is_refused(self):
        assert names("outside_parts.inner.deep.Giving") == ["a"]
        assert set(names("outside_parts.inner.deep.Replacing")) == {"a", "b"}
        assert set(names("outside_parts.inner.deep.Choosing")) == {"a", "b", "often"}

    def test_a_relative_import_outside_a_package_is_no_failure(self, outside):
        outside.with_name("alone_parts.py").write_text("from .nowhere import Thing\n")
        with pytest.raises(UnknownTargetError):
            signature_of("alone_parts.Thing")

    def test_keyword_arguments_that_go_nowhere_accept_everything(self):
        assert signature_of("outside_parts.inner.deep.Open").open_ended

    def test_dataclass_fields(self):
        found = signature_of("outside_parts.inner.deep.Data")
        assert found.parameters["x"].required
        assert not found.parameters["y"].required
        assert names("outside_parts.inner.deep.MoreData") == ["x", "y", "z"]

    def test_functions(self):
        assert names("outside_parts.inner.make") == ["n", "names"]

    def test_unknown_names_come_with_what_stands_there(self):
        with pytest.raises(UnknownTargetError) as caught:
            signature_of("outside_parts.inner.deep.Thin")
        assert "Thing" in caught.value.siblings

    def test_imports_inside_if_try_and_with_and_star_imports(self):
        assert signature_of("outside_parts.several.Open").open_ended
        assert set(names("outside_parts.several.Forwarding")) == {"a", "b", "c"}
        assert names("outside_parts.several.Chosen") == ["x", "y"]
        assert names("outside_parts.several.Other") == []
        assert names("outside_parts.several.made") == ["k"]
        assert names("outside_parts.several.make") == ["n", "names"]

    def test_bases_named_with_a_dot(self):
        assert names("outside_parts.several.Dotted") == ["a", "b"]

    def test_names_of_a_star_import_are_suggested(self):
        with pytest.raises(UnknownTargetError) as caught:
            signature_of("outside_parts.several.Thin")
        assert {"Thing", "Chosen", "made"} <= set(caught.value.siblings)

    @pytest.mark.parametrize(
        "target",
        [
            "outside_parts.lazy.Absent",
            "outside_parts.partly.Absent",
            "outside_parts.compiled.Anything",
            "outside_parts.inner.deep.Thing.from_something",
            "math.sin",
        ],
    )
    def test_what_cannot_be_read_is_unknown_rather_than_absent(self, target):
        assert signature_of(target) is None


@pytest.mark.parametrize(
    "target", ["torchmetrics.image.KernelInceptionDistance", "torch.nn.Identity"]
)
def test_real_packages_are_read(target):
    assert signature_of(target) is not None


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("flowexp.networks.MLPP", "MLP"),
        ("flowexp.networks.mlpp.MLP", "mlp"),
        ("flowexp.network.mlp.MLP", "networks"),
    ],
)
def test_misspelt_names_of_flowexp_are_absent(target, near):
    with pytest.raises(UnknownTargetError) as caught:
        signature_of(target)
    assert near in caught.value.siblings


def test_unknown_module():
    with pytest.raises(UnknownTargetError):
        signature_of("no_such_package_anywhere.Thing")


def test_agrees_with_the_real_signature():
    import inspect

    from flowexp.paths import VP

    real = [p for p in inspect.signature(VP).parameters]
    assert names("flowexp.paths.VP") == real


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, "int", True),
        (1, "float", True),
        (1.5, "int", False),
        (True, "int", False),
        (True, "bool", True),
        ("1", "float", False),
        (None, "float", False),
        (None, "float | None", True),
        ([1, 2], "Sequence[int]", True),
        ([1, "a"], "Sequence[int]", False),
        ([1.0, 2.0], "tuple[float, float]", True),
        ([1.0], "tuple[float, float]", False),
        ([1, 2, 3], "tuple[int, ...]", True),
        ("a", "Literal['a', 'b']", True),
        ("c", "Literal['a', 'b']", False),
        ({"_target_": "x"}, "Schedule", True),
        (None, "Schedule", False),
        ({"a": 1}, "dict[str, int]", True),
        (3, "dict[str, int]", False),
        ("x", "'float'", False),
        (object(), None, True),
    ],
)
def test_fits(value, annotation, expected):
    tree = None if annotation is None else ast.parse(annotation, mode="eval").body
    assert fits(value, tree) is expected
