"""Combinations that make no sense, refused with the names of the two parts."""

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowexp.config.problems import Problem
from flowexp.config.signatures import class_attribute
from flowexp.tree import nodes

__all__ = ["check_rules"]

Config = Mapping[str, Any]


def check_rules(config: Config) -> list[Problem]:
    """All violated rules of a plain, resolved config."""
    return [problem for rule in _RULES for problem in rule(config)]


def _select(config: Config, key: str) -> Any:  # noqa: ANN401 - a yaml value is what it is
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _name(config: Config, group: str) -> str:
    target = _select(config, f"{group}._target_")
    return str(target).rpartition(".")[2] if target else group


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


# key, test, what is expected
_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("path.D", lambda v: v > 0, "a positive number, or inf for Gaussian noise"),
    ("sampler.steps", lambda v: v >= 1, "at least 1"),
    ("sampler.rtol", lambda v: v > 0, "a positive number"),
    ("sampler.atol", lambda v: v > 0, "a positive number"),
    ("trainer.batch_size", lambda v: v >= 1, "at least 1"),
    ("trainer.max_kimg", lambda v: v > 0, "a positive number of thousands of images"),
    ("optimizer.lr", lambda v: v > 0, "a positive number"),
    ("num_samples", lambda v: v >= 2, "at least 2"),
    ("batch_size", lambda v: v >= 1, "at least 1"),
    ("repeats", lambda v: v >= 1, "at least 1"),
    ("num", lambda v: v >= 1, "at least 1"),
    ("shard_size", lambda v: v >= 1, "at least 1"),
    ("group", lambda v: v >= 1, "at least 1"),
    ("queue_size", lambda v: v >= 1, "at least 1"),
    ("network.dropout", lambda v: 0 <= v < 1, "in [0, 1)"),
    ("network.label_dropout", lambda v: 0 <= v < 1, "in [0, 1)"),
)


def _ranges(config: Config) -> Iterator[Problem]:
    for key, test, wanted in _RANGES:
        value = _number(_select(config, key))
        if value is not None and not test(value):
            yield Problem(key, f"{value:g} is out of range.", f"It must be {wanted}.")


def _gaussian_only(config: Config) -> Iterator[Problem]:
    """Churn, SDE samplers and scores assume Gaussian noise."""
    D = _number(_select(config, "path.D"))
    if D is None or math.isinf(D) or D <= 0:
        return
    source = f"the Student-t source of path.D={D:g}"
    target = _select(config, "sampler._target_")
    if isinstance(target, str) and _declares(target, "needs_gaussian"):
        text = f"{_name(config, 'sampler')} assumes Gaussian noise, which {source} is not."
        yield Problem("sampler", text, "Take a deterministic sampler, or path.D=inf.")
    coupling = _select(config, "coupling._target_")
    if isinstance(coupling, str) and _declares(coupling, "needs_gaussian"):
        text = f"{_name(config, 'coupling')} adds two Gaussian draws, which {source} does not give."
        yield Problem("coupling", text, "Use coupling=pairs, or path.D=inf.")
    for name, node in (config.get("metric") or {}).items():
        if _declares(str(node.get("_target_", "")), "needs_gaussian"):
            text = f"{name} is defined for Gaussian noise, which {source} is not."
            yield Problem(f"metric.{name}", text, "Leave it out, or take path.D=inf.")
    for key in ("sampler.S_churn", "sampler.eta"):
        amount = _number(_select(config, key))
        if amount is not None and amount > 0:
            text = (
                f"{amount:g} adds Gaussian noise, but noise of {source} plus Gaussian noise is "
                f"no longer of that law."
            )
            yield Problem(key, text, f"Set {key}=0, or path.D=inf.")


def _stored_pairs(config: Config) -> Iterator[Problem]:
    """Couplings to stored draws need data with draws, which only they use."""
    coupling, pairs = _select(config, "coupling._target_"), _select(config, "pairs")
    if not isinstance(coupling, str):
        return
    name, dataset = _name(config, "coupling"), str(_select(config, "dataset._target_"))
    augmentation = str(_select(config, "augmentation._target_"))
    changes = not _declares(augmentation, "changes_pictures", value=False)
    if _declares(coupling, "gives_times") and _select(config, "coupling.run") is None:
        text = f"{name} are those of a trained model, but no run is given."
        yield Problem("init", text, "Name the directory of the teacher: init=outputs/...")
    if _declares(coupling, "gives_times") and changes:
        text = f"it changes pictures that {name} does not use."
        yield Problem("augmentation", text, "Use augmentation=none.")
    if not _declares(coupling, "needs_partner"):
        if pairs is not None:
            text = f"the noise stored there is not used by {name}."
            yield Problem("pairs", text, "Set coupling=pairs, or leave pairs out.")
        return
    if pairs is None and not _declares(dataset, "has_partners"):
        text = f"{name} needs noise-data pairs, but none are given."
        yield Problem(
            "pairs", text, "Make some with flowexp pairs run=DIR, then set pairs=DIR/pairs."
        )
    if changes:
        text = f"it changes pictures, but not the noise that {name} couples them to."
        yield Problem("augmentation", text, "Use augmentation=none; dataset.hflip flips both.")


def _unit_time(config: Config) -> Iterator[Problem]:
    """Laws of t in (0, 1) and objectives on bridges need a path whose time runs from 0 to 1."""
    t_max = _number(_select(config, "path.schedule.t_max"))
    if t_max is None or t_max <= 1.0:
        return
    schedule = f"the {_name(config, 'path.schedule')} path, where time is the noise level"
    law = _time_law(config)
    target = law.get("_target_")
    on_any_time = "low" in law or "value" in law
    if isinstance(target, str) and not on_any_time and not _declares(target, "in_nsr"):
        text = f"{target.rpartition('.')[2]} draws t in (0, 1), which does not suit {schedule}."
        yield Problem("timestep", text, "Use timestep=lognormal, or a path with time in [0, 1].")
    objective = _select(config, "objective._target_")
    if isinstance(objective, str) and _declares(objective, "needs_unit_time"):
        text = f"{_name(config, 'objective')} needs t in [0, 1], which does not suit {schedule}."
        yield Problem("objective", text, "Use another objective, or a path with time in [0, 1].")


def _time_law(config: Config) -> Config:
    """The innermost timestep law."""
    law = _select(config, "timestep")
    while isinstance(law, Mapping) and isinstance(law.get("law"), Mapping):
        law = law["law"]
    return law if isinstance(law, Mapping) else {}


def _source_end(config: Config) -> Iterator[Problem]:
    """Laws that draw the source end itself, where some parts are not defined."""
    law, schedule = _time_law(config), str(_select(config, "path.schedule._target_"))
    last = _number(law.get("value", law.get("high")))
    drawn = last is not None and last >= 1.0 and _declares(str(law.get("_target_")), "includes_end")
    if not (drawn and _declares(schedule, "ends_in_source")):
        return
    for key in ("parameterization", "objective", "objective.weighting"):
        if _declares(str(_select(config, f"{key}._target_")), "needs_signal"):
            text = f"it draws t=1, pure noise, where {_name(config, key)} is not defined."
            setting = "timestep.value" if "value" in law else "timestep.high"
            remedy = f"Set {setting}=0.99999, or take another {key.partition('.')[2] or key}."
            yield Problem("timestep", text, remedy)


def _declares(target: str, attribute: str, *, value: bool = True) -> bool:
    """Whether a class (or a base of it) sets ``attribute`` to ``value`` in its body."""
    found = class_attribute(target, attribute)
    return isinstance(found, ast.Constant) and found.value is value


def _labels(config: Config) -> Iterator[Problem]:
    """Conditional networks need labels of their number."""
    label_dim = _number(_select(config, "network.label_dim"))
    classes = _number(_select(config, "dataset.num_classes"))
    dataset = _name(config, "dataset")
    if label_dim is None or classes is None:
        return
    if label_dim > 0 and classes == 0:
        text = f"the network expects {label_dim:g} classes, but {dataset} has no labels."
        yield Problem("network.label_dim", text, "Set network.label_dim=0.")
    elif label_dim > 0 and label_dim != classes:
        text = f"the network expects {label_dim:g} classes, but {dataset} has {classes:g}."
        yield Problem("network.label_dim", text, f"Set network.label_dim={classes:g}.")
    chosen = _number(_select(config, "task.label"))
    if chosen is not None and not 0 <= chosen < max(label_dim, 0):
        text = f"there is no class {chosen:g} in a network with {label_dim:g} classes."
        yield Problem("task.label", text, "Give a class index, or null for random classes.")


def _captions(config: Config) -> Iterator[Problem]:
    """A network that is told captions, and a task that makes them, need each other."""
    network, task = (str(_select(config, f"{key}._target_")) for key in ("network", "task"))
    takes, gives = _declares(network, "takes_tokens"), _declares(task, "gives_tokens")
    if takes and not gives:
        text = f"{_name(config, 'network')} is told captions, which {_name(config, 'task')} lacks."
        yield Problem("task", text, "Use task=captions.")
    elif gives and not takes:
        text = f"{_name(config, 'task')} makes captions, which {_name(config, 'network')} ignores."
        yield Problem("network", text, "Use network=captioned, or task=generation.")


def _guidance(config: Config) -> Iterator[Problem]:
    """Classifier-free guidance needs a network that knows labels."""
    scale = _number(_select(config, "guidance.scale"))
    label_dim = _number(_select(config, "network.label_dim"))
    if scale is not None and scale != 1.0 and label_dim == 0:
        part = _name(config, "guidance")
        text = f"{part} compares with and without label, but the network knows no labels."
        yield Problem("guidance", text, "Use guidance=none, or a class-conditional network.")


def _channels(config: Config) -> Iterator[Problem]:
    """Network and dataset must agree on channels and resolution."""
    dataset = _name(config, "dataset")
    for mine, theirs in (
        ("network.in_channels", "dataset.channels"),
        ("network.out_channels", "dataset.channels"),
        ("network.img_resolution", "dataset.resolution"),
    ):
        a, b = _number(_select(config, mine)), _number(_select(config, theirs))
        if a is None or b is None:
            continue
        allowed = [b]
        if mine.endswith("out_channels"):
            allowed = _output_channels(config, b)
        elif mine.endswith("in_channels") and _doubles_input(config):
            allowed = [2 * b]
        if a not in allowed:
            text = f"{a:g} does not fit {dataset}, whose {theirs.partition('.')[2]} is {b:g}."
            values = " or ".join(f"{value:g}" for value in allowed)
            yield Problem(mine, text, f"Leave it out, or set {mine}={values}.")


def _doubles_input(config: Config) -> bool:
    """Whether the network sees a second image beside the state."""
    return _declares(str(_select(config, "parameterization._target_")), "doubles_input")


def _refiner(config: Config) -> Iterator[Problem]:
    """A network that corrects a velocity is trained by the objective that gives it one, only."""
    objective = _select(config, "objective._target_")
    if not isinstance(objective, str):
        return
    name, parameterization = _name(config, "objective"), _name(config, "parameterization")
    gives, takes = _declares(objective, "trains_refiner"), _doubles_input(config)
    if gives and not takes:
        text = f"{name} trains a network that is given a velocity, but {parameterization} has none."
        yield Problem("parameterization", text, "Use parameterization=velocity_increment.")
    elif takes and not gives:
        text = f"{parameterization} corrects a velocity, but {name} gives it none."
        yield Problem("objective", text, "Use objective=velocity_refinement.")


def _output_channels(config: Config, channels: float) -> list[float]:
    """How many output channels the parameterization can use with data of ``channels``."""
    allowed, parameterization = [channels], str(_select(config, "parameterization._target_"))
    declared = class_attribute(parameterization, "extra_channels")
    if isinstance(declared, ast.Constant) and declared.value == 1:
        allowed.append(channels + 1)
    if _declares(parameterization, "doubles_channels"):
        allowed.append(2 * channels)
    return allowed


def _micro_batch(config: Config) -> Iterator[Problem]:
    micro = _number(_select(config, "trainer.micro_batch"))
    batch = _number(_select(config, "trainer.batch_size"))
    if micro is not None and batch is not None and not 1 <= micro <= batch:
        text = f"{micro:g} is not between 1 and trainer.batch_size={batch:g}."
        yield Problem("trainer.micro_batch", text, "Use null for no accumulation.")


def _image_metric_on_points(config: Config) -> Iterator[Problem]:
    """Image features of 2-D points do not exist; metrics of the model say what they measure."""
    if _select(config, "dataset.dim") is None:
        return
    for name, node in (config.get("metric") or {}).items():
        target = str(node.get("_target_", ""))
        measuring = str(_select(node, "extractor._target_") or target)
        if not _declares(measuring, "on_points"):
            text = f"{name} looks at images, but {_name(config, 'dataset')} holds points."
            yield Problem(f"metric.{name}", text, "Use metric=fd_raw.")


def _perceptual_loss_on_points(config: Config) -> Iterator[Problem]:
    """Networks of images say nothing about 2-D points."""
    if _select(config, "dataset.dim") is not None and _select(config, "objective.perceptual"):
        distance, dataset = _name(config, "objective.perceptual"), _name(config, "dataset")
        text = f"{distance} looks at images, but {dataset} holds points."
        yield Problem("objective", text, "Use an objective without a perceptual distance.")


def _trained_models(config: Config) -> Iterator[Problem]:
    """Parts that ask a trained model need the directory of a run."""
    for key, node in nodes(config):
        if "run" not in node or node["run"] is not None:
            continue
        if _declares(str(node.get("_target_")), "needs_run"):
            source = str(node.get("key", "teacher"))
            owner = key.rpartition(".")[0] or key
            text = f"{_name(config, owner)} asks a trained model, but {source} is not given."
            yield Problem(source, text, f"Name the directory of a run: {source}=outputs/...")


_RULES: tuple[Callable[[Config], Iterator[Problem]], ...] = (
    _ranges,
    _gaussian_only,
    _stored_pairs,
    _unit_time,
    _source_end,
    _labels,
    _captions,
    _guidance,
    _channels,
    _refiner,
    _micro_batch,
    _image_metric_on_points,
    _perceptual_loss_on_points,
    _trained_models,
)
