"""Pairs are what a teacher makes: of draws by seed, and of real pictures by inversion."""

import numpy as np
import pytest
import torch

from flowexp.data import gather_batch, quantize
from flowexp.pairs import FromData, FromNoise
from flowexp.paths import Gaussian
from flowexp.pipeline import FlowexpLatents, ReferenceLatents
from flowexp.samplers import Euler, Natural
from flowexp.tasks import Generation
from tests.pairs.gaussian import MEAN, SHAPE, SPREAD, data, image_of, teacher

SEEDS = np.array([10_000_003, 5, 17, 0, 2, 9])


def draws(seeds):
    return FlowexpLatents().draw(seeds.tolist(), shape=SHAPE, source=Gaussian()).e


def test_a_pair_is_a_draw_and_the_end_of_its_path():
    maker = FromNoise(images="float32", noise="arrays")
    columns = maker.make(teacher(), SEEDS)
    e = draws(SEEDS)
    assert np.array_equal(columns["noise"], e.numpy())
    assert np.abs(columns["images"] - image_of(e).numpy()).max() < 1e-4
    assert np.array_equal(columns["seeds"], SEEDS)
    assert (columns["nfe"] > 1).all()


def test_levels_are_those_of_the_one_quantiser():
    columns = FromNoise().make(teacher(), SEEDS)
    exact = quantize(image_of(draws(SEEDS))).numpy().astype(int)
    assert columns["images"].dtype == np.uint8
    assert np.abs(columns["images"].astype(int) - exact).max() <= 1
    assert "noise" not in columns


def test_the_stored_label_is_the_one_the_teacher_was_given():
    told = []
    of = teacher(sampler=Euler(steps=3, time_grid=Natural()))
    of.model.predict_plain = of.model.predict

    def predict(x_t, t, **conditions):
        told.append(conditions["labels"].clone())
        return of.model.predict_plain(x_t, t)

    of.model.predict = predict
    columns = FromNoise().make(of, SEEDS[:4])
    assert len(told) == 3
    assert all(np.array_equal(labels.numpy(), columns["labels"]) for labels in told)
    same = Generation(num_classes=2).conditions(SEEDS[:4].tolist())["labels"]
    assert np.array_equal(columns["labels"], same.numpy())


@pytest.mark.statistical
def test_labels_may_be_as_frequent_as_in_the_data():
    """A quarter of the data is of class 1; 400 draws, 4 standard deviations: about 6e-5."""
    of = teacher(data=data(), sampler=Euler(steps=1, time_grid=Natural()), batch_size=100)
    labels = FromNoise(labels_of_data=True).make(of, np.arange(400))["labels"]
    assert abs(labels.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)
    uniform = FromNoise().make(of, np.arange(400))["labels"]
    assert abs(uniform.mean() - 0.5) < 4 * np.sqrt(0.25 / 400)
    assert FromNoise(labels_of_data=True).label_distribution(of) == "as frequent as in made"
    of_class = teacher(task=Generation(num_classes=2, label=1))
    assert FromNoise().label_distribution(of_class) == "class 1"


def test_a_pair_does_not_depend_on_its_company():
    maker = FromNoise(images="float32")
    together = maker.make(teacher(), SEEDS)
    alone = maker.make(teacher(), SEEDS[2:3])
    assert np.abs(together["images"][2] - alone["images"][0]).max() < 1e-5
    assert together["labels"][2] == alone["labels"][0]


def test_inversion_leads_back_to_the_draw():
    of = teacher(data=data())
    index = np.array([3, 11, 0, 7, 19])
    columns = FromData().make(of, index)
    batch = gather_batch(data(), index)
    x = (batch.images / 127.5 - 1).double().flatten(1)
    exact = ((x - MEAN) / SPREAD).reshape(-1, *SHAPE)
    assert np.abs(columns["noise"] - exact.numpy()).max() < 1e-3
    assert np.array_equal(columns["images"], batch.images.numpy())
    assert np.array_equal(columns["index"], index)
    assert np.array_equal(columns["labels"], batch.labels.numpy())


def test_unconditional_teachers_make_pairs_without_labels():
    assert "labels" not in FromNoise().make(teacher(num_classes=0), SEEDS[:2])
    assert "labels" not in FromData().make(teacher(num_classes=0, data=data()), np.array([0, 1]))


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match=r"use start\.noise=arrays"):
        FromNoise().check(teacher(latents=ReferenceLatents()))
    FromNoise(noise="arrays").check(teacher(latents=ReferenceLatents()))
    with pytest.raises(ValueError, match="no classes"):
        FromNoise(labels_of_data=True).check(teacher(num_classes=0, data=data()))
    with pytest.raises(ValueError, match="allowed: uint8, float32"):
        FromNoise(images="png")
    with pytest.raises(ValueError, match="has no data set"):
        FromData().formats(teacher())


def test_draws_of_any_rule_can_be_kept():
    of = teacher(latents=ReferenceLatents(), num_classes=0)
    columns = FromNoise(noise="arrays", images="float32").make(of, SEEDS)
    assert np.abs(
        columns["images"] - image_of(torch.from_numpy(columns["noise"])).numpy()
    ).max() < (1e-4)
