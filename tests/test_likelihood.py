import math

import pytest
import torch

from flowexp.likelihood import ExactTrace, Hutchinson, log_likelihood
from flowexp.paths import VE, VP, Linear, Path, StudentT
from tests.samplers.closed_forms import GaussianModel, MixtureModel

# Source ends where hardly any data is left: the density there is taken to be the source's.
PATHS = {
    "linear": Linear(),
    "ve": VE(t_min=1e-4, t_max=3000.0),
    "vp": VP(t_min=1e-6, beta_max=40.0),
}
W, M, C = [0.3, 0.7], [[0.5, -0.4, 0.1], [-0.6, 0.2, 0.9]], [[0.2, 0.1, 0.3], [0.15, 0.3, 0.2]]


def density(x):
    """Log density of the mixture."""
    m, c = torch.tensor(M, dtype=torch.float64), torch.tensor(C, dtype=torch.float64)
    normal = torch.distributions.Normal(m, c)
    log_w = torch.tensor(W, dtype=torch.float64).log()
    return torch.logsumexp(log_w + normal.log_prob(x[:, None]).sum(-1), dim=1)


def data(n=5):
    rng = torch.Generator().manual_seed(4)
    return 0.5 * torch.randn(n, 3, dtype=torch.float64, generator=rng)


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_exact_trace_gives_the_density(path, per_sample):
    """Within 1e-3 bits per dimension."""
    x, model = data(), MixtureModel(Path(PATHS[path]), W, M, C)
    result = log_likelihood(
        model, x, divergence=ExactTrace(), rtol=1e-7, atol=1e-7, per_sample=per_sample
    )
    expected = -density(x) / (3 * math.log(2.0))
    torch.testing.assert_close(result.bits_per_dim(offset=0.0), expected, rtol=0, atol=1e-3)
    assert (result.nfe.unique().numel() > 1) is per_sample


@pytest.mark.statistical
def test_hutchinson_is_unbiased():
    """Mean over 1000 sign vectors within 4 standard errors (false alarm below 1e-4)."""
    x, model = data(1), MixtureModel(Path(Linear()), W, M, C)
    n = 1000
    signs = torch.randint(2, (n, 3), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    exact = log_likelihood(model, x, divergence=ExactTrace(), rtol=1e-6, atol=1e-6).log_p
    estimates = log_likelihood(
        model, x.expand(n, 3), divergence=Hutchinson(signs), rtol=1e-6, atol=1e-6
    ).log_p
    error = estimates.std() / math.sqrt(n)
    assert float(error) > 1e-4
    assert abs(float(estimates.mean() - exact)) < 4 * float(error)


def test_hutchinson_with_signs_is_exact_for_a_diagonal_jacobian():
    model = GaussianModel(Path(Linear()), mean=torch.zeros(1, 3, dtype=torch.float64), std=0.5)
    x, signs = data(), torch.sign(data())
    by_signs = log_likelihood(model, x, divergence=Hutchinson(signs), rtol=1e-8, atol=1e-8)
    by_trace = log_likelihood(model, x, divergence=ExactTrace(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(by_signs.log_p, by_trace.log_p, rtol=0, atol=1e-9)


def test_standard_normal_data():
    """N(0, I) data in [-1, 1] scale: 0.5 log2(2 pi e) + 7 bits on average."""
    mean = torch.zeros(1, 2, dtype=torch.float64)
    model = GaussianModel(Path(Linear()), mean=mean, std=1.0)
    x = torch.tensor([[1.0, -1.0]], dtype=torch.float64)  # |x|^2 = N, the average
    bits = log_likelihood(model, x, divergence=ExactTrace(), rtol=1e-8, atol=1e-8).bits_per_dim()
    assert float(bits) == pytest.approx(0.5 * math.log2(2 * math.pi * math.e) + 7.0, abs=1e-6)


def test_latents_keep_shape_and_dtype():
    model = GaussianModel(Path(Linear()), mean=torch.zeros(1, 4, dtype=torch.float64), std=0.5)
    x = torch.zeros(2, 1, 2, 2)
    result = log_likelihood(model, x, divergence=Hutchinson(torch.ones(2, 1, 2, 2)))
    assert result.latents.shape == x.shape
    assert result.latents.dtype == torch.float32
    assert result.log_p.dtype == torch.float64


def test_student_source_is_refused():
    model = GaussianModel(
        Path(VE(), source=StudentT(3.0)), mean=torch.zeros(1, 3, dtype=torch.float64), std=0.5
    )
    with pytest.raises(ValueError, match=r"needs a Gaussian source.*StudentT\(D=3"):
        log_likelihood(model, data(), divergence=ExactTrace())
