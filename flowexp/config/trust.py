"""What a config that somebody has stored may name: decided from names, before anything is imported.

A ``_target_`` is a call. The user's own configs (his command line and yaml files) may call
anything; a config that was read from a run, a pair store or an exported file may come from a
stranger. It may name

- flowexp's own parts, each where its kind is wanted: a sampler at ``sampler``, and as an argument
  what the annotation of that argument says;
- classes of the libraries that groups accept: ``torch.nn.X``, ``torch.optim.X``,
  ``pytorch_lightning.callbacks.X``, ``pytorch_lightning.loggers.X``, ``torchmetrics.image.X``;
- what the user has declared: packages or classes in ``FLOWEXP_TRUST=a,b.C`` or under ``trust:`` in
  his settings file, the modules that the yaml files of this command's ``--config-dir`` name, and
  the classes that its overrides name.

Being importable from the current folder is no declaration.
"""

import ast
import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowexp.config.libraries import is_library, required
from flowexp.config.modules import is_there, where_it_is
from flowexp.config.problems import Problem
from flowexp.config.renamed import present
from flowexp.config.signatures import (
    RESERVED,
    UnknownTargetError,
    classes_in,
    definition_of,
    lineage,
    signature_of,
)
from flowexp.errors import UsageError
from flowexp.tree import nodes

__all__ = ["KINDS", "STRANGER", "USER", "Author", "Declared", "admitted", "declared", "declared_in",
           "must_be_declared", "problems_with", "require_kind", "settings_file",
           "trusting"]  # fmt: skip


@dataclass(frozen=True)
class Author:
    """Who wrote a config: the user for this command, or whoever stored the file ``where``."""

    where: str
    is_user: bool = False

    @classmethod
    def of(cls, file: Path | str) -> "Author":
        """The unknown author of a stored file."""
        return cls(str(file))


USER = Author("the command line", is_user=True)
STRANGER = Author("the stored config")

_CALLBACKS, _LOGGERS = "pytorch_lightning.Callback", "pytorch_lightning.loggers.Logger"
_OPTIMIZER, _MODULE, _METRIC = "torch.optim.Optimizer", "torch.nn.Module", "torchmetrics.Metric"
_LIBRARIES = {
    _MODULE: "torch.nn",
    _OPTIMIZER: "torch.optim",
    _CALLBACKS: "pytorch_lightning.callbacks",
    _LOGGERS: "pytorch_lightning.loggers",
    _METRIC: "torchmetrics.image",
}
"""Where the classes of a foreign kind are found by their name."""

KINDS: dict[str, tuple[str, ...]] = {
    "augmentation": ("flowexp.augmentations.base.Augmentation",),
    "autoencoder": ("flowexp.autoencoders.base.Autoencoder",),
    "calibration": ("flowexp.calibration.base.Calibration",),
    "callbacks": (_CALLBACKS,),
    "coupling": ("flowexp.couplings.base.Coupling",),
    "dataset": ("flowexp.data.base.Dataset",),
    "ema": ("flowexp.training.ema.EMA",),
    "frames": ("flowexp.streaming.frames.FrameSource",),
    "guidance": ("flowexp.guidance.base.Guidance",),
    "latents": ("flowexp.pipeline.latents.Latents",),
    "logger": (_LOGGERS,),
    "lr_schedule": ("flowexp.training.lr_schedules.LRSchedule",),
    "metric": ("flowexp.metrics.base.Metric", "flowexp.diagnostics.base.ModelMetric", _METRIC),
    "network": (_MODULE,),
    "objective": ("flowexp.objectives.base.Objective",),
    "optimizer": (_OPTIMIZER,),
    "order": ("flowexp.data.orders.Order",),
    "parameterization": ("flowexp.parameterizations.base.Parameterization",),
    "path": ("flowexp.paths.path.Path",),
    "residual_guidance": ("flowexp.streaming.batch.ResidualGuidance",),
    "sampler": ("flowexp.samplers.base.Sampler",),
    "selection": ("flowexp.evaluation.selection.Selection",),
    "similarity": ("flowexp.streaming.loop.SimilarityFilter",),
    "start": ("flowexp.pairs.makers.PairMaker",),
    "task": ("flowexp.tasks.base.Task",),
    "timestep": ("flowexp.timesteps.base.TimeLaw",),
    "trainer": ("flowexp.training.parts.TrainerSettings",),
    "weight_transform": ("flowexp.networks.quantization.WeightTransform",),
}
"""Group -> the classes of which a part of the group is one."""

_ANY_PART = (*_LIBRARIES, "abc.ABC", "typing.Protocol", "flowexp.identity.Stored")
"""What may be an argument of a declared class whose annotations do not tell: flowexp's parts all
implement a protocol."""

_NAMED = re.compile(r"""_target_["']?\s*[:=]\s*["']?([A-Za-z_][\w.]*)""")


@dataclass(frozen=True)
class Declared:
    """What the user trusts beside flowexp: exact targets, and modules with all that is in them."""

    targets: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()

    def __or__(self, other: "Declared") -> "Declared":
        return Declared(self.targets | other.targets, self.modules | other.modules)

    @classmethod
    def named(cls, names: Iterable[str]) -> "Declared":
        """What names declare that may be packages, modules or classes."""
        return cls(frozenset(names), frozenset(names))

    def module_of(self, target: str) -> str | None:
        """The declared module that a target lies in."""
        return next((m for m in sorted(self.modules) if target.startswith(f"{m}.")), None)


_NOTHING = Declared()
_OF_COMMAND: ContextVar[Declared] = ContextVar("declared", default=_NOTHING)


@contextmanager
def trusting(more: Declared) -> Iterator[None]:
    """Count what a command declares, for everything that it opens, teachers included."""
    token = _OF_COMMAND.set(_OF_COMMAND.get() | more)
    try:
        yield
    finally:
        _OF_COMMAND.reset(token)


def declared() -> Declared:
    """What the user trusts: by this command, by ``FLOWEXP_TRUST`` and by his settings file."""
    named = os.environ.get("FLOWEXP_TRUST", "").split(",")
    names = {name.strip() for name in (*named, *_in_settings())}
    return _OF_COMMAND.get() | Declared.named(names - {""})


def settings_file() -> Path | None:
    """The user's settings, ``flowexp/settings.yaml`` where XDG has them; None without a home."""
    for folder in (os.environ.get("XDG_CONFIG_HOME", ""), os.path.expanduser("~/.config")):
        # A relative one, or an unexpanded ~, would be taken from the current folder.
        if os.path.isabs(folder):
            return Path(folder) / "flowexp" / "settings.yaml"
    return None


def _in_settings() -> list[str]:
    import yaml

    file = settings_file()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None else None
    except OSError:
        return []
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _bad_settings(file) from error
    if not isinstance(content, dict | None):
        raise _bad_settings(file)
    found = (content or {}).get("trust")
    names = [found] if isinstance(found, str) else found or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _bad_settings(file)
    return names


def _bad_settings(file: Path | None) -> UsageError:
    return UsageError(
        f"{file} holds no list of packages under trust.",
        key="trust",
        remedy="Write trust: [my_package], or remove the file.",
    )


def declared_in(targets: Iterable[str], *, config_dir: Path | str | None = None) -> Declared:
    """What a command line declares: the ``targets`` of its overrides, and those of its folder.

    A folder names them in options, ``_target_: a.B``, and in the commands of its tables,
    ``network._target_=a.B``; stored runs that lie in it are not the user's. Their modules count
    whole, but not Python's own or those that flowexp requires: who names ``torch.nn.SiLU`` does not
    mean ``torch.load``.
    """
    own: set[str] = set()
    files = [] if config_dir is None else [*Path(config_dir).rglob("*.yaml")]
    runs = {file.parent for file in files if file.name == "config.yaml"} - {Path(config_dir or "")}
    for file in files:
        with suppress(OSError, UnicodeDecodeError):
            if runs.isdisjoint(file.parents):
                own |= set(_NAMED.findall(file.read_text(encoding="utf-8")))
    modules = {target.rpartition(".")[0] for target in own}
    return Declared(
        targets=frozenset({*targets, *own}),
        modules=frozenset(m for m in modules if m and m.partition(".")[0] not in required()),
    )


def problems_with(config: Mapping[str, Any], *, by: Author) -> list[Problem]:
    """Why the groups of a config are refused, if ``by`` is not the user; nothing is imported."""
    found: list[Problem] = []
    trusted = declared()
    for group in () if by.is_user else KINDS:
        try:
            _Judge(by, trusted).judge(config.get(group), group, KINDS[group])
        except UsageError as error:
            found.append(Problem(error.key or group, error.problem, error.remedy or ""))
    return found


def admitted(node: object, *, key: str, by: Author) -> None:
    """Refuse a config node that calls what it may not; ``key`` is its group, or begins with it.

    What is allowed by its name is imported and must be of the kind that its place wants.

    Raises:
        UsageError: It names something else, or what it names is of another kind.
    """
    if by.is_user:
        return
    group = key.rpartition(": ")[2]
    judge = _Judge(by, declared())
    judge.judge(node, key, KINDS.get(group, _ANY_PART))
    for claim in judge.claims:
        claim.require()


def require_kind(part: object, *, group: str, key: str) -> None:
    """Refuse what is not a part of a group, whoever named it; ``key`` is where it stands.

    For a partial, such as an optimizer, its class is checked.

    Raises:
        UsageError: It is of another kind.
    """
    kinds = KINDS[group]
    cls = part.func if isinstance(part, functools.partial) else type(part)
    if not inspect.isclass(cls):
        return  # a function may return anything
    if not any(_derives(cls, kind) for kind in kinds):
        kind = kinds[0].rpartition(".")[2]
        raise UsageError(
            f"{cls.__name__} is not of type {kind}.", key=key, remedy=f"Derive it from {kinds[0]}."
        )
    lacking = [_methods_lacking(cls, kind) for kind in kinds]
    if all(lacking):
        raise UsageError(
            f"{cls.__name__} has no method {' and no '.join(lacking[0])}.",
            key=key,
            remedy=f"{kinds[0]} documents its methods.",
        )


def _derives(cls: type, kind: str) -> bool:
    """Whether a class derives from a kind, which a protocol's need not."""
    wanted, _ = _imported(kind)
    return getattr(wanted, "_is_protocol", False) or wanted in inspect.getmro(cls)


def _methods_lacking(cls: type, kind: str) -> list[str]:
    """The methods of a protocol that a class lacks; none if ``kind`` is not a protocol."""
    wanted, _ = _imported(kind)
    if not getattr(wanted, "_is_protocol", False):
        return [] if wanted in inspect.getmro(cls) else [kind]
    own = [name for name, item in vars(wanted).items() if inspect.isfunction(item)]
    called = [name for name in own if not name.startswith("_") or name == "__call__"]
    return [name for name in called if not callable(getattr(cls, name, None))]


@dataclass(frozen=True)
class _Claim:
    """A target that is allowed by its name: as one of a ``kind``, or as a module's own code."""

    key: str
    target: str
    by: Author
    kind: str | None = None
    module: str | None = None

    def require(self) -> None:
        """Import the target and hold it against the claim."""
        found, owners = _imported(self.target)
        if self.kind is not None:
            if not inspect.isclass(found) or not _derives(found, self.kind):
                raise _refused(self, f"which is no {self.kind.rpartition('.')[2]}")
        elif self.module is not None:
            defined = [getattr(item, "__module__", None) for item in (*owners, found)]
            if not all(f"{where}.".startswith(f"{self.module}.") for where in defined):
                raise _refused(self, f"which {self.module} does not define")


def _imported(target: str) -> tuple[object, list[object]]:
    """What a dotted path names, and the classes on the way from its module to it."""
    parts = present(target).split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        owners = []
        for name in parts[length:]:
            owners.append(found)
            found = getattr(found, name)
        return found, owners[1:]
    raise ModuleNotFoundError(f"No module named {parts[0]!r}", name=parts[0])


class _Judge:
    """Decides about the nodes of a stored config by their names.

    Attributes:
        claims: What is allowed, to be held against the objects once they are imported.
    """

    def __init__(self, by: Author, trusted: Declared) -> None:
        self.by = by
        self.trusted = trusted
        self.claims: list[_Claim] = []

    def judge(self, value: object, key: str, kinds: Sequence[str]) -> None:
        """A value where parts of these kinds are wanted; raises :class:`UsageError`."""
        if isinstance(value, str) and "${" in value:
            raise UsageError(
                f"{self.by.where} holds the interpolation {value!r}; stored configs hold values.",
                key=key,
                remedy="Nothing of it was run. Write the value there if the file is yours.",
            )
        if isinstance(value, list | tuple):
            for number, item in enumerate(value):
                self.judge(item, f"{key}[{number}]", kinds)
        elif isinstance(value, Mapping):
            if "_target_" in value:
                self._call(value, key, kinds)
            else:
                for name, item in value.items():
                    self.judge(item, f"{key}.{name}", kinds)

    def _call(self, node: Mapping[str, Any], key: str, kinds: Sequence[str]) -> None:
        named = node["_target_"]
        if not isinstance(named, str):
            text = f"{self.by.where} has {named!r} as a _target_, which is not a dotted path."
            raise UsageError(text, key=f"{key}._target_", remedy="Nothing of it was run.")
        target = present(named)
        self._target(target, key, kinds)
        if node.get("_partial_") and _OPTIMIZER not in kinds and not self._is_trusted(target):
            raise UsageError(
                f"{self.by.where} asks for a part of {named} by _partial_, which only an optimizer "
                f"can be.",
                key=f"{key}._partial_",
                remedy="Nothing of it was run.",
            )
        if not self._is_trusted(target) and target.startswith(f"{_LIBRARIES[_METRIC]}."):
            self._refuse_files(node, key)
        for name, value in node.items():
            if name == "_args_" and isinstance(value, list | tuple):
                for number, item in enumerate(value):
                    self.judge(item, f"{key}._args_[{number}]", self._wanted(target, number))
            elif name != "_target_":
                # Hydra builds what stands under its own keys, too.
                wanted = () if name in RESERVED else self._wanted(target, name)
                self.judge(value, f"{key}.{name}", wanted)

    def _refuse_files(self, node: Mapping[str, Any], key: str) -> None:
        """Metrics of torchmetrics read their weights with torch-fidelity, which unpickles them."""
        for name, value in node.items():
            if name == "_args_" or (value is not None and "path" in str(name)):
                raise UsageError(
                    f"{self.by.where} gives {node['_target_']} the file {value!r}, which would be "
                    "unpickled.",
                    key=f"{key}.{name}",
                    remedy=f"Nothing of it was run. If the file is yours, name {key}._target_="
                    f"{node['_target_']} in the command.",
                )

    def _target(self, target: str, key: str, kinds: Sequence[str]) -> None:
        if target in self.trusted.targets:
            return
        claim = _Claim(key, target, self.by, module=self.trusted.module_of(target))
        if claim.module is None:
            kind = next((kind for kind in kinds if _is_kind(target, kind)), None)
            if kind is None:
                listed = () if kinds is _ANY_PART else kinds
                wanted = " or ".join(dict.fromkeys(k.rpartition(".")[2] for k in listed))
                why = f"which is no {wanted or 'part'} of flowexp's or of a package that you trust"
                raise _refused(claim, why)
            claim = _Claim(key, target, self.by, kind=None if _is_function(target) else kind)
        self.claims.append(claim)

    def _is_trusted(self, target: str) -> bool:
        return target in self.trusted.targets or self.trusted.module_of(target) is not None

    def _wanted(self, target: str, argument: str | int) -> Sequence[str]:
        """The kinds of parts that may be given as an argument of a target."""
        try:
            signature = signature_of(target)
        except UnknownTargetError:
            signature = None
        parameters = {} if signature is None else signature.parameters
        if isinstance(argument, int):
            argument = next(iter(list(parameters)[argument : argument + 1]), "")
        parameter = parameters.get(argument)
        if parameter is not None:
            named = classes_in(parameter.module, parameter.annotation)
            if named or target.startswith("flowexp."):
                return named
        if self._is_trusted(target):
            return _ANY_PART
        return () if target.startswith("flowexp.") else (_MODULE,)


def _is_kind(target: str, kind: str) -> bool:
    """Whether a target is by its name a class of a kind, or a function of flowexp's that makes one.

    Names of libraries are trusted as far as an import of the library goes, see :class:`_Claim`.
    """
    if _LIBRARIES.get(kind) in _library_of(target):
        return True
    if not target.startswith("flowexp.") or target.rpartition(".")[2].startswith("_"):
        return False
    if _is_function(target):
        home, node = definition_of(target) or ("", None)
        made = classes_in(home, getattr(node, "returns", None))
        return any(kind in lineage(cls) for cls in made)
    ancestors = lineage(target)
    if not ancestors or not ancestors[0].startswith("flowexp."):
        return False
    # What metrics and objectives know of each other is a protocol, met by what has its methods.
    met = "typing.Protocol" in lineage(kind) and "abc.ABC" in ancestors
    return kind in ancestors or (met and _methods(kind) <= _methods(target))


def _methods(target: str) -> set[str]:
    """The methods that flowexp's own classes give to a class."""
    found = [definition_of(cls) for cls in lineage(target) if cls.startswith("flowexp.")]
    bodies = [node.body for _, node in filter(None, found) if isinstance(node, ast.ClassDef)]
    return {item.name for body in bodies for item in body if isinstance(item, ast.FunctionDef)}


def _library_of(target: str) -> list[str]:
    """The package of foreign parts of which a target is a class by its name, if it is one."""
    package, _, name = target.rpartition(".")
    return [p for p in _LIBRARIES.values() if p == package and re.fullmatch(r"[A-Z]\w*", name)]


_OF_A_RUN = ("dataset", "path", "network", "parameterization", "sampler", "guidance", "task",
             "metric")  # fmt: skip


def must_be_declared(
    config: Mapping[str, Any], *, groups: Collection[str] = _OF_A_RUN
) -> list[str]:
    """What must be trusted for groups of a config, by default those that are read from a run.

    The packages that they name beside flowexp and the classes of libraries.
    """
    chosen = {group: config.get(group) for group in groups}
    named = {present(str(node["_target_"])) for _, node in nodes(chosen) if "_target_" in node}
    return sorted({_to_trust(t) for t in named if not _library_of(t)} - {"flowexp"})


def _to_trust(target: str) -> str:
    """The package of a target; of an installed one the target, since it holds much besides parts.

    Nobody means to trust ``torch.load`` when he trusts a class of torch.
    """
    package = target.partition(".")[0]
    return target if package != "flowexp" and is_library(package) else package


def _is_function(target: str) -> bool:
    """Whether it is a public function of one of flowexp's packages, ``flowexp.guidance.guided``."""
    if not re.fullmatch(r"flowexp\.\w+\.[a-z]\w*", target):
        return False
    try:
        found = definition_of(target)
    except UnknownTargetError:
        return False
    package = ".".join(target.split(".")[:2])
    return found is not None and not lineage(target) and found[0].startswith(f"{package}.")


def _refused(claim: _Claim, why: str) -> UsageError:
    package, named = claim.target.partition(".")[0], _to_trust(claim.target)
    name = claim.target.rpartition(".")[2]
    remedy = "Nothing of it was run: flowexp does not write such a config."
    is_part = name[:1].isupper() and package not in sys.stdlib_module_names | {"flowexp"}
    if is_part or not is_library(package):
        remedy = (
            f"Nothing of it was run. If you trust {named}, set FLOWEXP_TRUST={named}, add it "
            f"to trust: [...] in {settings_file() or 'flowexp/settings.yaml'}, or name a "
            f"--config-dir whose files name it."
        )
        if not is_there(package):
            where = where_it_is(package, near=[Path(claim.by.where).parent])
            remedy += f" There is no module {package} here: {where[0].lower()}{where[1:]}"
    return UsageError(
        f"{claim.by.where} names {claim.target}, {why}.",
        key=f"{claim.key}._target_",
        remedy=remedy,
    )
