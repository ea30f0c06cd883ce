"""The first-order defect against oracles and a closed form."""

import pytest
import torch

from flowexp.diagnostics import FirstOrderDefect, Straightness
from flowexp.paths import VE, VP, Linear, Path
from tests.diagnostics.fields import DataModel, draws, measure
from tests.samplers.closed_forms import GaussianModel

X = torch.tensor([[0.7, -0.2]], dtype=torch.float64)

# Where hardly any data is left at the start, because sampling neglects it there.
PATHS = {
    "linear": Linear(),
    "ve": VE(t_min=1e-3, t_max=1e9),
    "vp": VP(beta_max=200.0),
}


@pytest.mark.parametrize("path", PATHS)
def test_an_oracle_of_pairs_has_none(path):
    model = DataModel(Path(PATHS[path]), X)
    assert measure(FirstOrderDefect(steps=40), model, batch_size=8).value < 1e-15
    assert measure(Straightness(steps=40), model, batch_size=8).value < 1e-15


@pytest.mark.parametrize("per_dimension", [True, False])
def test_gaussian_data(per_dimension):
    """e_theta = t/sqrt(q) e on z = sqrt(q) e, q = ((1-t) s)^2 + t^2; Euler's error is below 1 %."""
    std, steps = 0.4, 800
    mean = torch.zeros(1, 2, dtype=torch.float64)
    model = GaussianModel(Path(Linear()), mean=mean, std=std)
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    share = float((t / (((1.0 - t) * std) ** 2 + t**2).sqrt() - 1.0).square().mean())
    size = float(draws(model).square().sum(1).mean()) / (2 if per_dimension else 1)
    record = measure(FirstOrderDefect(steps=steps, per_dimension=per_dimension), model)
    assert record.value == pytest.approx(size * share, rel=0.01)
    assert ("per dimension" in record.title) is per_dimension


def test_a_defect_is_the_same_on_ve():
    mean = torch.zeros(1, 2, dtype=torch.float64)
    values = [
        measure(FirstOrderDefect(steps=400), GaussianModel(Path(schedule), mean=mean, std=0.4))
        for schedule in (Linear(), VE(t_min=1e-4, t_max=3000.0))
    ]
    assert values[1].value == pytest.approx(values[0].value, rel=0.01)
