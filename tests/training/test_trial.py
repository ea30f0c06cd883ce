"""A trial step finds what would end a training later, and changes nothing."""

import pytest
import torch
from pytorch_lightning import Callback

from flowexp.couplings import Coupling, Independent
from flowexp.errors import UsageError
from flowexp.objectives import Loss
from flowexp.samplers import Euler, FixedStepSampler
from flowexp.training import SampleGrid, TrainingParts
from flowexp.training.trial import try_out
from tests.training.tiny import Squares, adam, tiny_model, tiny_settings, train
from tests.training.tiny import Tiles as Data


class Broken(FixedStepSampler):
    """Euler's method, with a function that changes the result of every step."""

    def __init__(self, change):
        super().__init__(steps=3)
        self.change = change

    def step(self, field, z, interval, noise):
        return self.change(z + interval.length * field.slope(z, interval.start))


def failing(error):
    def change(*_, **__):
        raise error

    return change


class AtTheEnd(Callback):
    def __init__(self):
        self.calls = 0

    def on_train_batch_end(self, *_):
        self.calls += 1

    def on_train_end(self, *_):
        raise RuntimeError("at the end")


class OwnLoss(Squares):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def loss(self, model, pairs, t, *, rng):
        return self.change(super().loss(model, pairs, t, rng=rng))


class OnlyX(Coupling):
    def pair(self, x, e, conditions, *, rng, partner=None, images_seen=0):
        return Independent().pair(x[:1], e, conditions, rng=rng)


def parts(**changes):
    from flowexp.pipeline import Pipeline
    from flowexp.tasks import Generation
    from flowexp.timesteps import Uniform
    from flowexp.training import Constant, HalfLifeEMA

    model, data = tiny_model(), Data()
    sampler = changes.pop("sampler", Euler(steps=3))
    chosen = {
        "model": model,
        "dataset": data,
        "settings": tiny_settings(),
        "pipeline": Pipeline(
            model=model, sampler=sampler, shape=data.shape, task=Generation(num_classes=3)
        ),
        "coupling": Independent(),
        "timestep": Uniform(),
        "objective": Squares(),
        "optimizer": adam,
        "lr_schedule": Constant(),
        "emas": {"main": HalfLifeEMA(half_life_kimg=0.05)},
        "callbacks": {"grid": SampleGrid(num=16)},
    }
    return TrainingParts(**(chosen | changes))


def tried(**changes):
    chosen = parts(**changes)
    try_out(chosen, seed=0, config={"seed": 0}, arrays=chosen.dataset.train())
    return chosen


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": Broken(lambda z: z[..., :1])}, r"sampler: Broken\.sample passes through a"),
        ({"sampler": Broken(torch.Tensor.half)}, "sampler: .* a float16 tensor"),
        ({"objective": OwnLoss(lambda found: found.per_sample)}, "objective: .* a float32 tensor"),
        (
            {"objective": OwnLoss(lambda found: Loss(found.per_sample.mean()))},
            "objective: .*one loss per sample",
        ),
        (
            {"objective": OwnLoss(lambda found: Loss(found.per_sample.detach()))},
            "objective: .*without a gradient",
        ),
        ({"coupling": OnlyX()}, "coupling: OnlyX.pair returns Pairs with x as"),
    ],
)
def test_a_wrong_result_names_the_part(changes, words):
    with pytest.raises(UsageError, match=words):
        tried(**changes)


def test_what_parts_raise_is_raised_before_the_training():
    for callbacks in ({"grid": SampleGrid(num=4)}, {}):
        with pytest.raises(KeyError) as caught:
            tried(sampler=Broken(failing(KeyError("nothing"))), callbacks=callbacks)
        assert caught.value.__notes__ == [
            "Nothing was trained: the trial step before the training failed."
        ]
    with pytest.raises(RuntimeError, match="at the end"):
        tried(callbacks={"end": AtTheEnd()})


def test_nothing_is_changed_and_nothing_is_said(capsys, recwarn):
    callback = AtTheEnd()
    callback.on_train_end = lambda *_: None
    chosen = tried(callbacks={"mine": callback, "grid": SampleGrid(num=16)})
    weights = dict(tiny_model().network.state_dict())
    after = chosen.model.network.state_dict()
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert (callback.calls, chosen.objective.calls) == (0, 0)
    assert chosen.callbacks["grid"].num == 16
    assert "forward" not in vars(chosen.model.network)
    assert capsys.readouterr() == ("", "")
    assert not recwarn.list


def test_random_states_are_kept():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    chosen = parts()
    torch.manual_seed(7)
    try_out(chosen, seed=0, config={"seed": 0}, arrays=chosen.dataset.train())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_part_that_needs_more_samples_is_tried_with_the_whole_batch():
    def needs_sixteen(found):
        if len(found.per_sample) < 16:
            raise ValueError("too few")
        return found

    tried(objective=OwnLoss(needs_sixteen))


def test_a_training_after_a_trial_is_the_same(tmp_path):
    first = train(tmp_path / "a", settings=tiny_settings(max_kimg=0.064))
    model = tiny_model()
    chosen = parts(model=model)
    try_out(chosen, seed=0, config={"seed": 0}, arrays=chosen.dataset.train())
    second = train(tmp_path / "b", model=model, settings=tiny_settings(max_kimg=0.064))
    assert first.final_loss == second.final_loss
    one, two = (torch.load(r.checkpoint)["network"] for r in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)
