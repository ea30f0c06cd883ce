"""Continuous speculative decoding: acceptance, residual and mask schedule.

Nothing here has a gradient: tokens are accepted or not.
"""

from pathlib import Path as File

import numpy as np
import torch

from flowexp.samplers.speculation import (
    Gaussian,
    log_acceptance,
    log_residual_acceptance,
    log_sigma,
    tokens_per_step,
)
from tests.goldens.harness import dispatch, parametrize

TOLERANCE = {"rtol": 1e-9, "atol": 0.0}


def tensors(case: File) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(a)) for name, a in np.load(case).items()}


def same(found, expected):
    torch.testing.assert_close(found, expected, **TOLERANCE)


def check_acceptance(case: File):
    data = tensors(case)
    p = Gaussian(data["target_mean"], data["target_std"])
    q = Gaussian(data["draft_mean"], data["draft_std"])
    sigma = log_sigma(data["draft_logstd_traj"], data["target_logstd_traj"])
    ratio = log_acceptance(data["x"], target=p, draft=q, log_sigma=sigma)
    again = log_acceptance(data["proposal"], target=p, draft=q, log_sigma=sigma)
    same(sigma.exp(), data["paper_Sigma"])
    same(ratio.exp(), data["paper_accept_ratio"])
    same(log_residual_acceptance(again).exp(), data["paper_resample_accept"])

    # the authors' code: Sigma inverted, and the exponents divided by 42^2
    same((-sigma).exp(), data["ref_fixed_term"])
    inverted = log_acceptance(data["x"], target=p, draft=q, log_sigma=-sigma)
    same(inverted.exp(), data["ref_accept_ratio_T1"])
    assert not torch.allclose(inverted.exp(), data["paper_accept_ratio"], rtol=1e-7)
    again = log_acceptance(data["proposal"], target=p, draft=q, log_sigma=-sigma)
    same(log_residual_acceptance(again).exp(), data["ref_resample_accept"])
    squares = [((data["x"] - g.mean) / g.std).square().sum(1) for g in (p, q)]
    # without the exponents, and then with what is left of them
    wide = inverted + 0.5 * (1.0 - 42.0**-2) * (squares[0] - squares[1])
    same(wide.exp(), data["ref_accept_ratio_T42"])


def check_oned(case: File):
    data = tensors(case)
    grid = data["grid"][:, None]
    p = Gaussian(torch.zeros_like(grid), torch.ones(1, dtype=grid.dtype))
    q = Gaussian(torch.full_like(grid, data["draft_mean"]), data["draft_std"][None])
    densities = [(g.log_density(grid)).exp() / (2.0 * torch.pi) ** 0.5 for g in (p, q)]
    same(densities[0], data["p"])
    same(densities[1], data["q"])
    ratio = log_acceptance(grid, target=p, draft=q)
    accepted = torch.trapezoid(densities[1] * ratio.exp().clamp(max=1.0), data["grid"])
    same(accepted, data["accept_prob"])
    residual = densities[0] * log_residual_acceptance(ratio).exp()
    mass = torch.trapezoid(residual, data["grid"])
    torch.testing.assert_close(mass, data["residual_Z"], rtol=1e-7, atol=0.0)
    torch.testing.assert_close(residual / mass, data["residual"], rtol=1e-6, atol=1e-12)


def check_schedule(case: File):
    data = tensors(case)
    found = tokens_per_step(int(data["seq_len"]), int(data["num_iter"]))
    assert found == data["tokens_per_step"].tolist()


CHECKS = {
    "acceptance": check_acceptance,
    "oned_exactness": check_oned,
    "mar_mask_schedule": check_schedule,
}


@parametrize("csd")
def test_golden(case: File):
    dispatch(case, CHECKS)
