"""Guidance of a network that was trained without dropped labels gives a warning, not a refusal."""

import pytest
import yaml
from torch import nn

from flowexp.config.check import check
from flowexp.config.rules import labels_dropped
from flowexp.errors import UsageError
from flowexp.guidance import ClassifierFree, guided
from flowexp.models import FlowModel
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.runs.assemble import build, fit_task
from flowexp.tasks import Generation


def warned(checked):
    assert checked.problems == []
    return [remark.partition(":")[0] for remark in checked.remarks if "never learns" in remark]


@pytest.fixture
def run(tmp_path):
    """Makes the folder of a run as far as a check reads it."""

    def make(name, *overrides):
        folder = tmp_path / name
        folder.mkdir()
        config = check("train", ["dataset=digits", *overrides]).sound()
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        return str(folder)

    return make


GUIDED = ["dataset=digits", "guidance=cfg"]
CAPTIONED = ["dataset=fashion10k", "network=captioned", "task=captions", "guidance=cfg"]


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (GUIDED, ["guidance"]),
        ([*GUIDED, "guidance.scale=0"], ["guidance"]),
        ([*GUIDED, "guidance.scale=1"], []),
        ([*GUIDED, "network.label_dropout=0.1"], []),
        ([*GUIDED, "network=lora"], ["guidance"]),
        ([*GUIDED, "network=lora", "network.network.label_dropout=0.1"], []),
        (CAPTIONED, []),
        (
            [*CAPTIONED, "network.label_dropout=0"],
            ["guidance"],
        ),
        ([*GUIDED, "network._target_=torch.nn.Bilinear"], []),
        (["dataset=digits", "task.label=-1"], ["task.label"]),
        (["dataset=digits", "task.num_classes=0"], ["task.label"]),
        (["dataset=digits", "task.label=-1", "network.label_dim=0"], []),
        (["dataset=digits", "task.label=3"], []),
    ],
    ids=lambda value: " ".join(value) if value and "=" in value[0] else None,
)
def test_a_training_without_dropped_labels(overrides, keys):
    found = check("train", overrides)
    found.problems = [p for p in found.problems if "Bilinear" not in p.text]
    assert warned(found) == keys


@pytest.mark.parametrize("verb", ["eval", "sample", "pairs", "stream", "calibrate"])
def test_a_run_counts_with_the_training_of_its_weights(verb, run):
    """Its stored config tells, also of the run that it started from; what is typed does not."""
    more = ["calibration=boss"] if verb == "calibrate" else []
    with_, without = run("with", "network.label_dropout=0.1"), run("without")
    tuned = run("tuned", f"init={with_}")
    for folder, keys in ((with_, []), (without, ["guidance"]), (tuned, [])):
        assert warned(check(verb, [f"run={folder}", "guidance=cfg", *more])) == keys
    claimed = [f"run={without}", "guidance=cfg", "network.label_dropout=0.5", *more]
    assert warned(check(verb, claimed)) == ["guidance"]
    borrowed = [f"run={without}", f"recipe={with_}", "guidance=cfg", *more]
    assert warned(check(verb, borrowed)) == ["guidance"]


@pytest.mark.parametrize(("form", "keys"), [("full", True), ("one_time", True), ("self", False)])
def test_the_negative_side_of_a_stream(form, keys, run):
    typed = [f"residual_guidance={form}", "residual_guidance.scale=1.5"]
    for dropout, expected in ((0.1, False), (0.0, keys)):
        folder = run(f"{dropout}", f"network.label_dropout={dropout}")
        assert bool(warned(check("stream", [f"run={folder}", *typed]))) is expected


def test_what_cannot_be_known_is_not_said(tmp_path):
    assert labels_dropped({"run": str(tmp_path)}) is None
    assert labels_dropped(check("train", ["dataset=digits", "network.label_dim=0"]).config) is None
    config = check("train", ["dataset=digits"]).config
    assert labels_dropped(config) is False
    assert labels_dropped({**config, "init": str(tmp_path)}) is None
    # an exported file does not tell where its training started
    assert labels_dropped({"network": config["network"]}) is None
    config["objective"] = {"_target_": "flowexp.objectives.VelocityRefinement", "teacher": None}
    assert labels_dropped(config) is None or labels_dropped(config) is True


def test_a_number_carries_the_caveat_and_scale_one_is_exact(caplog):
    tiny = ["dataset=digits", "network.model_channels=8", "network.pixel_unshuffle=1"]
    plain = build(check("train", [*tiny, "sampler.steps=2"]).config).pipeline
    assert plain.notice is None
    two = plain.replace(model=ClassifierFree(scale=2.0).wrap(plain.model))
    assert "never learns" in two.notice
    assert "never learns" in caplog.text
    one = plain.replace(model=ClassifierFree(scale=1.0).wrap(plain.model))
    assert one.notice is None
    assert one.sample([0, 1]).equal(plain.sample([0, 1]))
    unlabelled = plain.replace(task=Generation(num_classes=10, label=-1))
    assert "never learns" in unlabelled.notice


def test_a_guided_teacher_is_warned_of_when_it_is_made(caplog):
    model = FlowModel(Path(Linear()), network=nn.Identity(), parameterization=VelocityPrediction())
    for known, warns in ((None, False), (True, False), (False, True)):
        model.labels_dropped = known
        caplog.clear()
        guided(model, guidance=ClassifierFree(scale=2.0))
        assert ("never learns" in caplog.text) is warns


def test_a_label_that_nothing_takes_is_refused():
    with pytest.raises(UsageError, match=r"task\.label: 3 is chosen, .* takes no labels"):
        fit_task(Generation(num_classes=10, label=3), nn.Identity())
    fit_task(Generation(num_classes=10, label=-1), nn.Identity())
