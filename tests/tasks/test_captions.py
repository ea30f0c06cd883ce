"""Class names become captions, in training and in sampling alike."""

from types import SimpleNamespace

import pytest
import torch

from flowexp.config.check import check_job
from flowexp.couplings import Independent
from flowexp.data import DataBatch
from flowexp.errors import UsageError
from flowexp.paths import Linear, Path
from flowexp.tasks import Captions, Generation, WordTokenizer
from flowexp.timesteps import Uniform
from flowexp.training.inputs import TrainingDraws

CLOTHES = SimpleNamespace(name="clothes", num_classes=3, class_names=("bag", "coat", "T-shirt/top"))


def task(**kwargs):
    return Captions(dataset=CLOTHES, num_classes=3, **({"tokenizer": WordTokenizer()} | kwargs))


def test_a_class_has_the_tokens_of_its_caption():
    made = task(template="my {}!")
    labels = torch.tensor([2, 0, -1])
    conditions = made.conditions_of(labels)
    assert conditions["labels"] is labels
    expected = WordTokenizer()(["my T-shirt/top!", "my bag!"])
    assert torch.equal(conditions["tokens"][:2], expected)
    assert (conditions["tokens"][2] == -1).all()


def test_sampling_draws_the_classes_of_generation_and_adds_their_captions():
    seeds = range(20)
    found = task().conditions(seeds)
    expected = Generation(num_classes=3).conditions(seeds)["labels"]
    assert torch.equal(found["labels"], expected)
    assert torch.equal(found["tokens"], task().conditions_of(expected)["tokens"])


def test_one_text_for_all():
    found = task(text="an ankle boot").conditions([4, 5])
    assert found["labels"].tolist() == [-1, -1]
    assert torch.equal(found["tokens"], WordTokenizer()(["an ankle boot"] * 2))


def test_training_is_told_what_sampling_is_told():
    draws = TrainingDraws(
        Path(Linear()),
        coupling=Independent(),
        timestep=Uniform(),
        conditional=True,
        task=task(),
        seed=0,
    )
    labels = torch.tensor([1, 2])
    batch = DataBatch(torch.zeros(2, 1, 4, 4), labels, torch.arange(2))
    pairs, _ = draws(batch, 0)
    assert torch.equal(pairs.conditions["labels"], labels)
    assert torch.equal(pairs.conditions["tokens"], task().conditions_of(labels)["tokens"])


def test_words_are_told_apart_and_cut():
    tokens = WordTokenizer(length=3)(["Red RED red red", "red, red!", ""])
    assert tokens.shape == (3, 3)
    assert tokens[0].unique().numel() == 1
    assert tokens[1].tolist() == [*tokens[0, :2].tolist(), 0]
    assert tokens[2].tolist() == [0, 0, 0]
    assert WordTokenizer()(["bag"])[0, 0] != WordTokenizer()(["coat"])[0, 0]


def test_what_is_missing_is_asked_for():
    with pytest.raises(UsageError, match="need a tokenizer") as refusal:
        task(tokenizer=None)
    assert refusal.value.key == "task.tokenizer"
    nameless = SimpleNamespace(name="points", num_classes=3, class_names=None)
    with pytest.raises(UsageError, match="classes of points have no names"):
        Captions(dataset=nameless, tokenizer=WordTokenizer(), num_classes=3)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: task(template="a photo"), "task.template"),
        (lambda: task(label=1, text="bag"), "give one of them"),
        (lambda: task(label=3), "task.label is 3"),
        (lambda: task().conditions_of(None), "class indices"),
        (lambda: task().conditions_of(torch.eye(3)), "class indices"),
        (lambda: WordTokenizer(vocabulary=1), "vocabulary is 1"),
        (lambda: WordTokenizer(length=0), "length is 0"),
    ],
)
def test_bad_values_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["network=captioned"], "Use task=captions"),
        (["task=captions"], "Use network=captioned"),
        (["network=captioned", "task=captions"], None),
        (["experiment=fashion10k/captions", "network@network.network=dit"], None),
    ],
)
def test_network_and_task_need_each_other(overrides, named):
    problems = [str(p) for p in check_job("train", overrides).problems]
    assert len(problems) == (named is not None)
    assert named is None or named in problems[0]
