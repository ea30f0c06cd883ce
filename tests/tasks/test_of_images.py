"""Conditions made of images: the same in training and sampling, and functions of the seed."""

import numpy as np
import pytest
import torch

from flowexp.config.check import check_job
from flowexp.couplings import Independent
from flowexp.data import as_data, gather_batch
from flowexp.errors import UsageError
from flowexp.networks.conditions import Image
from flowexp.paths import Linear, Path
from flowexp.tasks import FromLevels, FromPartner, Half
from flowexp.timesteps import Uniform
from flowexp.training.inputs import TrainingDraws
from tests.tasks.pictures import TASKS, Pictures, class_examples, inpainting, semantic_images

MASK = "_target_:flowexp.networks.conditions.Mask"
every = pytest.mark.parametrize("kind", sorted(TASKS))


def number_of(images):
    """The position of pictures in their split; see :class:`Pictures`."""
    levels = torch.as_tensor(images)
    return levels.reshape(*levels.shape[:-3], -1)[..., 0]


def training(task, *, count=6, rank=0, world_size=1, step=4):
    draws = TrainingDraws(
        Path(Linear()),
        coupling=Independent(),
        timestep=Uniform(),
        conditional=task.num_classes > 0,
        task=task,
        seed=1,
        rank=rank,
        world_size=world_size,
    )
    index = np.arange(count)[rank * count // world_size : (rank + 1) * count // world_size]
    return draws(gather_batch(Pictures().train(), index), step)[0]


@every
def test_the_conditions_of_a_seed_do_not_depend_on_the_others(kind):
    task = TASKS[kind](num_classes=3)
    whole = task.conditions(range(10))
    assert set(whole) == {"labels", *task.gives}
    for seed in (0, 9):
        alone = TASKS[kind](num_classes=3).conditions([seed])
        for name, value in whole.items():
            assert torch.equal(alone[name], value[seed : seed + 1]), name


@every
def test_sample_i_belongs_to_heldout_image_i_mod_n_and_has_its_label(kind):
    task = TASKS[kind](num_classes=3)
    seeds = [0, 6, 7, 7000]
    assert task.conditions(seeds, labels=torch.zeros(4))["labels"].tolist() == [0, 0, 0, 0]
    assert task.conditions([1, 2, 8])["labels"].tolist() == [1, 2, 1]
    target = task.targets(seeds)
    if kind == "class_examples":
        assert target is None
    else:
        assert number_of(target).tolist() == [100, 106, 100, 100]
        assert target.dtype == torch.uint8
    assert "labels" not in TASKS[kind]().conditions(seeds)


@every
def test_training_has_the_conditions_of_sampling(kind):
    task = TASKS[kind](num_classes=3)
    pairs, again = training(task), training(task)
    assert set(pairs.conditions) == set(task.conditions([0]))
    for name, value in pairs.conditions.items():
        sampled = task.conditions([0])[name]
        assert (value.shape[1:], value.dtype) == (sampled.shape[1:], sampled.dtype), name
        assert torch.equal(value, again.conditions[name])
    assert set(training(TASKS[kind]()).conditions) == set(task.gives)


@every
def test_the_draws_of_a_step_do_not_depend_on_the_number_of_processes(kind):
    whole = training(TASKS[kind]()).conditions
    for rank in range(3):
        part = training(TASKS[kind](), rank=rank, world_size=3).conditions
        for name, value in part.items():
            assert torch.equal(value, whole[name][2 * rank : 2 * rank + 2]), name


@every
def test_micro_batches_take_their_rows(kind):
    pairs = training(TASKS[kind]())
    rows = pairs.rows(slice(2, 4))
    assert all(torch.equal(rows.conditions[n], v[2:4]) for n, v in pairs.conditions.items())


def test_the_hole_is_black_and_marked_and_the_rest_is_the_image():
    pairs = training(inpainting())
    image, mask = pairs.conditions["image"], pairs.conditions["mask"]
    assert set(mask.unique().tolist()) == {-1.0, 1.0}
    hole = mask > 0
    assert torch.equal(image[~hole], pairs.x[~hole])
    assert (image[hole] == -1.0).all()
    other = training(inpainting(), step=5).conditions["mask"]
    assert not torch.equal(mask, other)


def test_known_pixels_are_pasted_on_demand():
    task, x = inpainting(paste=True, mask=Half()), torch.full((3, 1, 6, 6), 0.3)
    given = task.conditions([0, 1, 2])
    pasted = task.finished(x, given)
    hole = given["mask"] > 0
    assert (pasted[hole] == 0.3).all()
    assert torch.equal(pasted[~hole], given["image"][~hole])
    assert task.finished(x, given).dtype == x.dtype
    assert inpainting().finished(x, given) is x


def test_maps_of_levels_and_of_partners():
    x = torch.tensor([-1.0, -0.5, 0.49, 1.0]).reshape(1, 1, 2, 2)
    assert FromLevels(classes=4)(x, None).tolist() == [[[0, 1], [2, 3]]]
    stored = as_data(torch.tensor([0, 3, 255, 18], dtype=torch.uint8).reshape(1, 1, 2, 2))
    assert FromPartner(classes=19)(x, stored).tolist() == [[[0, 3], [-1, 18]]]
    with pytest.raises(ValueError, match="no map"):
        FromPartner(classes=19)(x, None)
    assert FromPartner(classes=19).of_partners
    assert semantic_images(maps=FromPartner(classes=19)).of_partners
    assert not semantic_images().of_partners


def test_partners_are_those_of_the_images():
    task = TASKS["paired_image"]()
    given = task.conditions([3, 10])["image"]
    torch.testing.assert_close(given, -as_data(task.targets([3, 10])))
    pairs = training(task)
    torch.testing.assert_close(pairs.conditions["image"], -pairs.x)


def levels(examples):
    return number_of(((examples + 1.0) * 127.5).round().long())


def test_examples_are_other_images_of_the_class_in_the_same_split():
    task = class_examples(count=50)
    seen = levels(training(task, count=20).conditions["examples"])
    for item, row in enumerate(seen):
        others = {k for k in range(20) if k % 3 == item % 3 and k != item}
        assert set(row.tolist()) == others
    for seed, row in zip((0, 8), levels(task.conditions([0, 8])["examples"]), strict=True):
        others = {100 + k for k in range(7) if k % 3 == seed % 7 % 3 and k != seed % 7}
        assert set(row.tolist()) == others


def test_an_image_alone_in_its_class_has_no_example():
    task = class_examples(Pictures(heldout=4))
    assert not task.conditions([1])["examples"].any()
    assert task.conditions([0])["examples"].any()


@pytest.mark.parametrize("kind", ["inpainting", "paired_image", "semantic_map"])
def test_a_training_does_not_read_the_data_a_second_time(kind):
    data = Pictures()
    training(TASKS[kind](data))
    assert data.reads == 0
    task = TASKS[kind](data)
    task.conditions([0])
    task.targets([1])
    assert data.reads == 1


def test_without_heldout_images_the_split_is_asked_for():
    with pytest.raises(UsageError, match="pictures has none") as refusal:
        inpainting(Pictures(heldout=0)).conditions([0])
    assert refusal.value.key == "task.split"
    assert refusal.value.remedy == "Set task.split=train."
    task = inpainting(Pictures(heldout=0), split="train")
    assert number_of(task.targets([3, 20])).tolist() == [3, 0]


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: inpainting(inputs={"image": Image(channels=1)}), "inputs is image; allowed"),
        (lambda: inpainting(inputs={}), "inputs is empty; allowed: image, mask"),
        (lambda: inpainting(split="test"), "split is 'test'"),
        (lambda: inpainting(num_classes=-1), "num_classes is -1"),
        (lambda: class_examples(count=0), "count is 0"),
        (lambda: FromLevels(classes=0), "classes is 0"),
    ],
)
def test_bad_values_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["task=inpainting"], None),
        (["task=inpainting", "task/mask=strokes", "network=dit"], None),
        (["task=semantic_map", "task.maps.classes=8"], None),
        (["task=paired_image", "dataset=digits_blurred"], None),
        (["task=class_examples", "network.label_dim=0"], None),
        (["task=paired_image"], "needs an image stored with each image"),
        (["task=semantic_map", "task/maps=partner"], "Use task/maps=levels"),
        (["task=inpainting", "network.conditions={}"], "gives image and mask, which the network"),
        (["task=inpainting", "task.inputs.image.dropout=2"], "dropout=2; allowed"),
        (["task=inpainting", "task.inputs.image.channels=0"], "channels=0; allowed"),
        (
            ["task=paired_image", "dataset=digits_blurred", "augmentation=edm"],
            "EDMAugmentation changes images",
        ),
        ([f"network.conditions={{mask:{{{MASK}}}}}"], "the network always had mask"),
        ([f"network.conditions={{mask:{{{MASK},dropout:0.5}}}}"], None),
    ],
)
def test_network_and_task_need_each_other(overrides, named):
    problems = [str(p) for p in check_job("train", overrides).problems]
    assert bool(problems) == (named is not None), problems
    assert named is None or any(named in problem for problem in problems)


def test_the_network_has_the_inputs_of_the_task():
    config = check_job("train", ["task=inpainting", "task.inputs.image.noise=0.2"]).config
    assert config["network"]["conditions"] == config["task"]["inputs"]
    assert config["network"]["conditions"]["image"]["noise"] == 0.2
    assert check_job("train", []).config["network"]["conditions"] == {}
