"""The two rules by which seeds become latents, labels and noise."""

import math

import numpy as np
import pytest
import torch

from flowexp.paths import Gaussian, StudentT
from flowexp.pipeline.latents import FlowexpLatents, ReferenceLatents
from flowexp.seeding import generator
from tests.goldens.harness import cases

SEEDS = [3, 2**32 + 1, 11]


def by_name(folder, name):
    return np.load(next(p for p in cases(folder) if p.name.startswith(name)))


@pytest.mark.parametrize("source", [Gaussian(), StudentT(3.0)])
def test_own_latents_are_draws_of_the_source(source):
    drawn = FlowexpLatents().draw(SEEDS, shape=(3, 4, 4), source=source, num_classes=5)
    for row, seed in zip(drawn.e, SEEDS, strict=True):
        expected = source.sample((1, 3, 4, 4), rng=generator(seed, "latents"))
        assert torch.equal(row, expected[0])
    assert drawn.labels is None


@pytest.mark.parametrize("source", [Gaussian(), StudentT(5.0)])
@pytest.mark.parametrize("rule", [FlowexpLatents(), ReferenceLatents()])
def test_a_row_belongs_to_its_seed(rule, source):
    options = {"shape": (1, 2, 2), "source": source, "num_classes": 7}
    whole = rule.draw(SEEDS, **options)
    alone = rule.draw(SEEDS[1:2], **options)
    assert torch.equal(whole.e[1:2], alone.e)
    if whole.labels is not None:
        assert torch.equal(whole.labels[1:2], alone.labels)
    like = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    assert torch.equal(whole.noise(0, like)[1:2], alone.noise(0, like[:1]))


def test_edm_reference():
    data = by_name("edm", "stacked_rng_cpu")
    seeds, shape = data["seeds"].tolist(), data["latents_f32"].shape[1:]
    drawn = ReferenceLatents().draw(seeds, shape=shape, source=Gaussian(), num_classes=10)
    assert drawn.e.dtype == torch.float32
    assert np.array_equal(drawn.e.numpy(), data["latents_f32"])
    assert np.array_equal(drawn.labels.numpy(), data["labels"])
    like = torch.zeros(data["step_noise_f64"].shape, dtype=torch.float64)
    assert np.array_equal(drawn.noise(0, like).numpy(), data["step_noise_f64"])


def test_pfgmpp_reference():
    data = by_name("pfgmpp", "prior")
    seeds = data["seeds"].tolist()
    for key in (k for k in data.files if k.endswith("/latents")):
        expected = torch.from_numpy(data[key])
        source = StudentT(float(key.removeprefix("D").removesuffix("/latents")))
        drawn = ReferenceLatents().draw(seeds, shape=expected.shape[1:], source=source)
        torch.testing.assert_close(80.0 * drawn.e, expected, rtol=1e-6, atol=0.0)
    labels = ReferenceLatents().draw(seeds, shape=(1,), source=source, num_classes=10).labels
    first = [torch.randint(10, (), generator=torch.Generator().manual_seed(s)) for s in seeds]
    assert labels.tolist() == [int(v) for v in first]


def test_the_student_t_law():
    # |e|^2 / N follows F(N, D), whose mean is D / (D - 2); five standard errors: alarm 6e-7
    drawn = ReferenceLatents().draw(range(4000), shape=(16,), source=StudentT(12.0)).e
    mean_square = drawn.square().mean(1)
    deviation = 2 * 12**2 * (16 + 12 - 2) / (16 * 10**2 * 8)
    error = math.sqrt(deviation / 4000)
    assert abs(float(mean_square.mean()) - 1.2) < 5 * error


def test_another_source_is_refused():
    class Uniform(Gaussian):
        is_gaussian = False

    with pytest.raises(ValueError, match="Gaussian and Student-t"):
        ReferenceLatents().draw([0], shape=(1,), source=Uniform())
