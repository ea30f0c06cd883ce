import math

import numpy as np
import pytest
import torch
from scipy import stats

from flowexp.likelihood import ExactTrace, Hutchinson, log_likelihood
from flowexp.parameterizations import (
    DataPrediction,
    EDMPreconditioning,
    NoisePrediction,
    ScorePrediction,
)
from flowexp.paths import (
    VE,
    VP,
    DiscreteVP,
    Gaussian,
    Linear,
    Path,
    RadiusClippedStudentT,
    StudentT,
)
from tests.samplers.closed_forms import (
    DenoiserModel,
    GaussianModel,
    GaussianTruth,
    MixtureModel,
    finite_set_denoiser,
)
from tests.samplers.test_sde_marginals import paths

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


GAUSSIAN_PATHS = paths()
HEADS = {"velocity": None, "noise": NoisePrediction(), "score": ScorePrediction(),
         "data": DataPrediction(), "edm": EDMPreconditioning()}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("path", GAUSSIAN_PATHS)
def test_every_path_to_both_ends(path, head):
    """The flow of Gaussian data is affine, so the density that it carries back is known exactly.

    Whatever the range of the path and of the kind of output, up to ends where alpha or sigma is 0;
    what the range leaves out is part of the expected value. Within 1e-4 bits per dimension.
    """
    path, mean, std = GAUSSIAN_PATHS[path], 0.3, 0.5
    model = GaussianTruth(path, mean=mean, std=std, parameterization=HEADS[head])
    ends = torch.tensor(model.time_range, dtype=torch.float64)
    sigma = path.schedule.coefficients(ends[1]).sigma
    (first, last), (own, spread) = model.marginal(ends)
    x = mean + std * torch.tensor([[0.3, -1.2], [-0.4, 2.2]], dtype=torch.float64)
    # the Jacobian is diagonal, so that probes of signs are exact as well
    trace = ExactTrace() if head in ("velocity", "data") else Hutchinson(torch.sign(x))
    found = log_likelihood(model, x, divergence=trace, rtol=1e-6, atol=1e-6)
    latents = (last + spread / own * (x - first)) / sigma
    normal = torch.distributions.Normal(torch.zeros_like(sigma), torch.ones_like(sigma))
    expected = normal.log_prob(latents).sum(1) + 2 * torch.log(spread / own / sigma)
    tolerance = 2 * math.log(2.0) * 1e-4
    # between the levels of a table, where the slope jumps, the error is not controlled as well
    tolerance *= 50.0 if isinstance(path.schedule, DiscreteVP) else 1.0
    torch.testing.assert_close(found.log_p, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.latents, latents, rtol=0, atol=2e-3)


@pytest.mark.parametrize("D", [1.0, 3.0, 64.0, math.inf])
@pytest.mark.parametrize("n", [1, 2, 16])
def test_student_density(D, n):
    """scipy's, in any number of dimensions; the normal one in the limit."""
    e = torch.randn(6, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3.0
    law = stats.multivariate_normal if math.isinf(D) else stats.multivariate_t
    options = {} if math.isinf(D) else {"df": D}
    expected = torch.from_numpy(law(np.zeros(n), np.eye(n), **options).logpdf(e.numpy()))
    torch.testing.assert_close(StudentT(D).log_density(e), expected, rtol=1e-12, atol=1e-12)
    large = StudentT(1e8).log_density(e)
    torch.testing.assert_close(large, Gaussian().log_density(e), rtol=0, atol=1e-3)


@pytest.mark.parametrize("D", [1.0, 8.0, 2048.0])
def test_student_source(D):
    """PFGM++: data at two points under multivariate Student-t noise, in three dimensions.

    At the range's end, where the noise is 0.2, the density is the mean of two Student densities. At
    its start, noise of 2000, the points are taken to be one.
    """
    points = torch.tensor([[0.6, -0.2, 0.1], [-0.5, 0.3, 0.0]], dtype=torch.float64)
    path = Path(VE(t_min=0.2, t_max=2000.0), D=D)
    model = DenoiserModel(path, finite_set_denoiser(points, D=D))
    x = data()
    found = log_likelihood(model, x, divergence=ExactTrace(), rtol=1e-7, atol=1e-7)
    each = [path.source.log_density((x - p) / 0.2) - 3 * math.log(0.2) for p in points]
    expected = torch.logsumexp(torch.stack(each), dim=0) - math.log(2.0)
    torch.testing.assert_close(found.log_p, expected, rtol=0, atol=1e-3)


def test_a_source_without_density_is_refused():
    source = RadiusClippedStudentT(1.0, scale=80.0, smallest=1.0, largest=3000.0)
    mean = torch.zeros(1, 3, dtype=torch.float64)
    model = GaussianModel(Path(VE(), D=1.0, source=source), mean=mean, std=0.5)
    with pytest.raises(ValueError, match=r"density is known, which RadiusClippedStudentT"):
        log_likelihood(model, data(), divergence=ExactTrace())
    with pytest.raises(ValueError, match="radius is clipped"):
        source.log_density(data())
