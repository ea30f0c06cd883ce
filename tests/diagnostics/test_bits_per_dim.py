"""Bits per dimension against known densities, and who draws what."""

import math

import numpy as np
import pytest
import torch

from flowexp.data import ImageArrays
from flowexp.diagnostics import BitsPerDim, dequantized
from flowexp.errors import UsageError
from flowexp.paths import VE, Linear, Path, RadiusClippedStudentT
from flowexp.seeding import generator
from flowexp.tasks import Generation, Task
from tests.diagnostics.fields import Recorder, measure, points, rank, setting
from tests.refusals import refusal_of
from tests.samplers.closed_forms import GaussianModel, MixtureModel


def gaussian(std, shape=(2,), path=None):
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    return GaussianModel(path or Path(Linear()), mean=zero, std=std)


def pictures(levels, *, name="tiles/test", labels=None, num_classes=0) -> ImageArrays:
    array = np.asarray(levels, dtype=np.uint8)
    return ImageArrays.of(array, labels, num_classes=num_classes, name=name)


PATHS = {"linear": Linear(), "ve": VE(t_min=1e-5, t_max=3000.0)}


@pytest.mark.parametrize("exact_trace", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_gaussian_data_cost_their_entropy(path, exact_trace):
    """Points with |x|^2 / N = s^2 have the average density: 0.5 log2(2 pi e s^2) bits, to 1e-3."""
    std = 0.4
    data = points(std * np.array([[1.0, 1.0], [1.0, -1.0], [2.0**0.5, 0.0]]))
    metric = BitsPerDim(exact_trace=exact_trace, rtol=1e-6, atol=1e-6)
    record = measure(metric, gaussian(std, path=Path(PATHS[path])), heldout=data)
    assert record.value == pytest.approx(0.5 * math.log2(2 * math.pi * math.e * std**2), abs=1e-3)
    assert record.protocol.n_gen == 3
    assert record.protocol.reference_split == "test"
    assert record.extra["nfe"] == record.protocol.nfe > 20
    assert record.extra["standard_error"] < 1e-3


def test_pictures_are_dequantised_with_draws_of_their_own():
    std = 0.5
    levels = np.random.default_rng(0).integers(60, 200, (5, 1, 2, 2))
    found = Recorder()
    metric = BitsPerDim(repetitions=2, rtol=1e-6, atol=1e-6)
    record = measure(
        metric, gaussian(std, (1, 2, 2)), heldout=pictures(levels), shape=(1, 2, 2),
        seeds=range(7, 9), processes=found,
    )  # fmt: skip
    order = torch.randperm(5, generator=generator(7, "likelihood images")).tolist()
    expected = []
    for row in order:
        for k in range(2):
            rng = generator(7, "dequantization", row, k)
            u = torch.rand(1, 2, 2, dtype=torch.float64, generator=rng)
            x = (torch.from_numpy(levels[row]) + u) / 128.0 - 1.0
            nats = 0.5 * math.log(2.0 * math.pi * std**2) + x.square().mean() / (2.0 * std**2)
            expected.append(float(nats) / math.log(2.0) + 7.0)
    assert found.values("bits").tolist() == pytest.approx(expected, abs=1e-3)
    assert record.value == pytest.approx(np.mean(expected), abs=1e-3)
    spread = np.reshape(expected, (5, 2)).mean(1).std(ddof=1) / 5**0.5
    assert record.extra["standard_error"] == pytest.approx(spread, abs=1e-3)
    assert "uniform dequantisation, offset 7" in record.protocol.quantization
    assert record.title.startswith("bits/dim[Hutchinson, Rademacher, 2 draws, tolerance 1e-06] 5")


def test_the_probabilities_of_all_levels_sum_to_one():
    """2^-bits of a one-pixel picture estimates its level's probability: offset and sign are right.

    One draw of u per level is a Riemann sum over cells of width 1/128 within +-3.9 sigma.
    """
    found = Recorder()
    measure(
        BitsPerDim(num_images=None, exact_trace=True),
        gaussian(0.25, (1, 1, 1)),
        heldout=pictures(np.arange(256).reshape(256, 1, 1, 1)),
        shape=(1, 1, 1),
        batch_size=256,
        processes=found,
    )
    assert float((2.0 ** -found.values("bits")).sum()) == pytest.approx(1.0, abs=0.01)


def test_dequantisation_fills_the_cells_of_the_levels():
    y = torch.tensor([0, 255, 128], dtype=torch.uint8)
    low = dequantized(y, torch.zeros(3, dtype=torch.float64))
    assert low.tolist() == [-1.0, 1.0 - 1.0 / 128.0, 0.0]
    assert (dequantized(y, torch.full((3,), 1.0 - 1e-12)) - low).tolist() == pytest.approx(
        [1.0 / 128.0] * 3
    )


@pytest.mark.statistical
def test_hutchinson_is_unbiased():
    """Mean over 600 probes within 4 standard errors of the exact trace (false alarm 6e-5)."""
    law = [0.3, 0.7], [[0.5, -0.4], [-0.6, 0.9]], [[0.2, 0.1], [0.15, 0.3]]
    model, data = MixtureModel(Path(Linear()), *law), points([[0.1, 0.2]])
    exact = measure(BitsPerDim(exact_trace=True), model, heldout=data).value
    found = Recorder()
    measure(BitsPerDim(repetitions=600), model, heldout=data, processes=found, batch_size=600)
    bits = found.values("bits")
    error = float(bits.std()) / 600**0.5
    assert error > 1e-3
    assert abs(float(bits.mean()) - exact) < 4.0 * error


def test_an_image_draws_the_same_in_every_batch_and_process():
    data = pictures(np.random.default_rng(0).integers(0, 256, (7, 1, 2, 2)))
    model, metric = gaussian(0.5, (1, 2, 2)), BitsPerDim(num_images=5)
    common = {"heldout": data, "shape": (1, 2, 2)}
    alone = measure(metric, model, **common)
    assert measure(metric, model, batch_size=4, **common).value == pytest.approx(
        alone.value, rel=1e-9
    )
    assert measure(metric, model, seeds=range(8, 16), **common).value != alone.value
    mail: list = []
    for index in (3, 2, 1, 0):
        processes = rank(index, 4, mail)
        shared = metric.measure(model, setting=setting(model, processes=processes, **common))
    assert shared == (alone,)
    assert alone.protocol.n_gen == 5


def test_training_images_are_used_when_asked():
    data = points([[0.1, 0.2], [0.3, 0.1]], name="points/train")
    record = measure(BitsPerDim(training_images=True), gaussian(0.4), reference=data)
    assert (record.protocol.reference_split, record.protocol.n_gen) == ("train", 2)


class Listening(GaussianModel):
    """Keeps the labels it receives."""

    def predict(self, x_t, t, **conditions):
        self.labels = conditions.get("labels")
        return super().predict(x_t, t)


@pytest.mark.parametrize(("num_classes", "expected"), [(3, [2, 0]), (0, None)])
def test_a_model_that_knows_classes_is_told_the_image_s_own(num_classes, expected):
    model = Listening(Path(Linear()), mean=torch.zeros(1, 2, dtype=torch.float64), std=0.4)
    labels = np.array([2, 0], dtype=np.int64)
    data = points([[0.1, 0.2], [0.1, 0.2]], labels=labels, num_classes=3)
    task = Generation(num_classes=num_classes)
    found = BitsPerDim(exact_trace=True)
    measure(found, model, heldout=data, task=task)
    order = torch.randperm(2, generator=generator(0, "likelihood images")).tolist()
    wanted = None if expected is None else [expected[row] for row in order]
    assert (None if model.labels is None else model.labels.tolist()) == wanted


class Restoring(Task):
    """Conditions on a picture."""

    def conditions(self, seeds, *, labels=None, device="cpu"):
        return {"degraded": torch.zeros(len(seeds), 2)}


def test_what_has_no_likelihood_is_refused_before_sampling():
    metric, data = BitsPerDim(), points([[0.1, 0.2]])
    clipped = RadiusClippedStudentT(3.0, scale=80.0, smallest=1.0, largest=3000.0)
    refused = refusal_of(metric, path=Path(VE(), D=3.0, source=clipped))
    assert "the RadiusClippedStudentT source of path.D=3 has none" in refused
    assert refusal_of(metric, path=Path(VE(), D=3.0)) is None
    model = gaussian(0.4)
    with pytest.raises(UsageError, match="points/train has no held-out split"):
        metric.check_setting(model, setting=setting(model))
    with pytest.raises(UsageError, match="conditions the model on degraded"):
        metric.check_setting(model, setting=setting(model, heldout=data, task=Restoring()))
    metric.check_setting(model, setting=setting(model, heldout=data, task=Generation()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_images": 0}, "num_images is 0"),
        ({"repetitions": 0}, "repetitions is 0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"rtol": 0.0}, "rtol > 0 and atol > 0"),
    ],
)
def test_bad_values_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        BitsPerDim(**wrong)
