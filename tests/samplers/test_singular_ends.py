"""Every sampler on every path with every parameterization: finite at both ends."""

import pytest
import torch

from flowexp.models import FlowModel
from flowexp.parameterizations import (
    DataPrediction,
    EDMPreconditioning,
    NoisePrediction,
    ScorePrediction,
    VelocityPrediction,
)
from flowexp.paths import (
    VE,
    VP,
    Cosine,
    Linear,
    LinearVP,
    Path,
    Polynomial,
    Trigonometric,
)
from flowexp.samplers import (
    DDIM,
    DEIS,
    DPM2,
    IPNDM,
    RK4,
    AdamsBashforth,
    DormandPrince,
    DPMSolver,
    EDMGrid,
    EDMHeun,
    Euler,
    Heun,
    Heun3,
    IPNDMVariable,
    Midpoint,
    Natural,
    NoiseToSignal,
    Quadratic,
    Shifted,
    VPGrid,
)
from flowexp.seeding import SampleNoise

PATHS = {
    "linear": Linear(),
    "linear_noisy": Linear(sigma_min=1e-4),
    "polynomial": Polynomial(),
    "ve": VE(),
    "vp": VP(),
    "linear_vp": LinearVP(),
    "cosine": Cosine(),
    "trigonometric": Trigonometric(),
}
HEADS = {
    "velocity": VelocityPrediction(),
    "noise": NoisePrediction(),
    "score": ScorePrediction(),
    "data": DataPrediction(),
    "edm": EDMPreconditioning(),
}
NATURAL = {"steps": 5, "time_grid": Natural()}
SAMPLERS = {
    "euler": Euler(**NATURAL),
    "heun": Heun(**NATURAL),
    "midpoint": Midpoint(**NATURAL),
    "heun3": Heun3(**NATURAL),
    "rk4": RK4(**NATURAL),
    "ddim": DDIM(**NATURAL),
    "ancestral": DDIM(**NATURAL, eta=1.0),
    "ab4": AdamsBashforth(**NATURAL),
    "quadratic": Heun(steps=5, time_grid=Quadratic()),
    "shifted": Euler(steps=5, time_grid=Shifted()),
    "edm_heun": EDMHeun(steps=5, time_grid=EDMGrid()),
    "churn": EDMHeun(steps=5, time_grid=EDMGrid(), S_churn=3.0),
    "dpm2": DPM2(steps=5, time_grid=EDMGrid()),
    "ipndm": IPNDM(steps=5, time_grid=EDMGrid()),
    "ipndm_v": IPNDMVariable(steps=5, time_grid=EDMGrid(), final_euler=False),
    "deis": DEIS(steps=5, time_grid=VPGrid(), final_euler=False),
    "analytic": DPMSolver(steps=6, time_grid=Natural(), analytic_first_step=True),
    "lms": AdamsBashforth(steps=5, time_grid=EDMGrid(), variable=NoiseToSignal()),
    "dopri5": DormandPrince(rtol=0.05, atol=0.05),
    "dopri5_shared": DormandPrince(rtol=0.05, atol=0.05, per_sample=False),
}


class TinyNetwork(torch.nn.Module):
    """A smooth function of the scaled state and of the time condition."""

    def forward(self, x, c_noise, **conditions):
        assert torch.isfinite(x).all()
        assert torch.isfinite(c_noise).all()
        return torch.tanh(0.7 * x.flip(-1) + 0.1 * torch.sin(c_noise)[:, None])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("path", PATHS)
def test_finite(path, head):
    model = FlowModel(Path(PATHS[path]), network=TinyNetwork(), parameterization=HEADS[head])
    e = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    for name, sampler in SAMPLERS.items():
        samples = sampler.sample(model, e, noise=SampleNoise([0, 1]))
        assert torch.isfinite(samples.x).all(), name
        assert samples.x.dtype == torch.float32, name
        assert int(samples.nfe.min()) >= 5, name
