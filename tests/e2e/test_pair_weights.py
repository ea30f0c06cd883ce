"""The weight that a coupling gives a pair multiplies its loss, in every objective, once."""

from dataclasses import replace

import pytest
import torch

from flowexp.config.check import check_job
from flowexp.couplings import Pairs
from flowexp.data import gather_batch
from flowexp.objectives import WeightedSum
from flowexp.runs.assemble import build
from flowexp.seeding import generator
from flowexp.training import training_parts
from flowexp.training.inputs import TrainingDraws
from tests.e2e.option_pairs import covering_rows, overrides_of

ROWS = {row["objective"]: row for row in reversed(covering_rows())}
SF2M = "flow_and_score_matching"
FLOW_MAPS = ("meanflow", "tvm", "shortcut", "imm")
WEIGHT = torch.tensor([0.0, 0.5, 1.0, 3.0], dtype=torch.float64)


def overrides(name):
    if name in FLOW_MAPS:
        law = {"meanflow": "sorted", "tvm": "tvm", "shortcut": "dyadic", "imm": "imm"}[name]
        averaged = ["+ema.target={_target_: flowexp.training.ConstantEMA, decay: 0.99}"]
        return [
            "dataset=digits",
            f"objective={name}",
            f"timestep={law}",
            "parameterization=average_velocity",
            "sampler=flow_map",
            "network.model_channels=8",
            "network.pixel_unshuffle=1",
            *(averaged if name == "tvm" else []),
        ]
    if name == SF2M:
        return ["experiment=toy2d/sf2m", "metric=none"]
    return [*overrides_of(*ROWS[name].items()), "metric=none"]


def losses(parts, pairs, t):
    torch.manual_seed(0)
    model = parts.model
    model.averages = dict.fromkeys(parts.objective.averages, model)
    return parts.objective.loss(model, pairs, t, rng=generator(0, "objective"))


@pytest.mark.parametrize("name", [*sorted(ROWS), *FLOW_MAPS, SF2M])
def test_the_weight_multiplies_the_loss_of_its_pair(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = check_job("train", overrides(name)).config
    config["coupling"] = {"_target_": "flowexp.couplings.Independent"}
    config["trainer"]["accelerator"] = "cpu"
    torch.manual_seed(0)
    built = build(config)
    parts = training_parts(config, built)
    draws = TrainingDraws.of(parts, seed=0)
    pairs, t = draws(gather_batch(built.dataset.train(), torch.arange(4).numpy()), 0)
    assert isinstance(pairs, Pairs)
    assert pairs.weight is None
    plain = losses(parts, pairs, t)
    found = losses(parts, replace(pairs, weight=WEIGHT), t)
    torch.testing.assert_close(found.per_sample, WEIGHT.float() * plain.per_sample)
    if not isinstance(parts.objective, WeightedSum):
        torch.testing.assert_close(found.metrics, plain.metrics)
