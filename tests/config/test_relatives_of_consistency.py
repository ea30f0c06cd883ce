"""A consistency model starts from EDM's weights, which mean the same to it, without a warning."""

import pytest
import yaml

from flowexp.config.relatives import problems_with_relatives

EDM = {"_target_": "flowexp.parameterizations.EDMPreconditioning", "sigma_min": 0.002}
INNER = {"_target_": "flowexp.parameterizations.ConsistencyPreconditioning", "sigma_min": 0.003}
MAP = {"_target_": "flowexp.parameterizations.FlowMap", "of": INNER, "conditions_on": []}
VELOCITY = {"_target_": "flowexp.parameterizations.VelocityPrediction", "time_scale": 1.0}


@pytest.mark.parametrize(("before", "warned"), [(EDM, False), (VELOCITY, True)])
def test_weights_that_mean_the_same_are_no_problem(tmp_path, before, warned):
    text = yaml.safe_dump({"parameterization": before})
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    config = {"parameterization": MAP, "init": str(tmp_path)}
    found = list(problems_with_relatives(config, [f"init={tmp_path}"]))
    assert [problem.key for problem in found] == (["parameterization.of"] if warned else [])
