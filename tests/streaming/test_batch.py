"""The stages of a stream as one batch: equal to one frame at a time, at the stated cost."""

import pytest
import torch

from flowexp.models import FlowModel, Model
from flowexp.networks import UNet
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import VE, VP, Linear, Path, Prediction, Trigonometric
from flowexp.streaming import (
    FullNegative,
    OneTimeNegative,
    SelfNegative,
    StreamBatch,
    lcm_scalings,
)
from tests.networks.tiny import perturb
from tests.streaming.models import (
    GUIDANCE,
    LABEL,
    SHAPE,
    TIMES,
    TanhModel,
    frames,
    pipeline,
    stream,
    through,
)

EQUAL = {"rtol": 0.0, "atol": 1e-12}
PATHS = {"linear": Linear(), "vp": VP(), "trigonometric": Trigonometric(), "ve": VE()}
OPTIONS = {
    "plain": {},
    "boundary": {"c_skip": [0.3, 0.2, 0.1], "c_out": [0.8, 0.9, 1.0]},
    "no_noise": {"add_noise": False},
}


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_stream_equals_one_frame_at_a_time(guidance, path, group, options):
    batch = stream(
        TanhModel(PATHS[path]), guidance=GUIDANCE[guidance], group=group, **OPTIONS[options]
    )
    x = frames(6)
    alone = torch.cat([batch.sequential(part) for part in x.split(group)])
    torch.testing.assert_close(through(batch, x), alone, **EQUAL)


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_a_result_depends_on_its_frame_only(guidance):
    """Not on the frames around it, nor on how many are taken in a call."""
    options = {"guidance": GUIDANCE[guidance], "seed": 7}
    single = through(stream(**options), frames(6))
    for group in (2, 3, 6):
        torch.testing.assert_close(
            through(stream(group=group, **options), frames(6)), single, **EQUAL
        )
    mixed = torch.cat([frames(2, seed=5), frames(6)[2:]])
    torch.testing.assert_close(through(stream(**options), mixed)[2:], single[2:], **EQUAL)
    assert not torch.allclose(
        through(stream(guidance=GUIDANCE[guidance], seed=8), frames(6)), single
    )


@pytest.mark.parametrize(
    ("guidance", "rows"), [("none", 3), ("self", 3), ("one_time", 4), ("full", 6)]
)
@pytest.mark.parametrize("group", [1, 2])
def test_rows_of_a_call(guidance, rows, group):
    model = TanhModel(VP())
    batch = stream(model, guidance=GUIDANCE[guidance], group=group)
    for part in frames(4 * group).split(group):
        batch.push(part)
    assert model.rows == [rows * group] * 4
    assert batch.evaluations == 4 * rows * group
    model.rows.clear()
    batch.sequential(frames(group))
    assert sum(model.rows) == rows * group


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
def test_every_frame_comes_out_once_and_in_order(stages, length):
    batch = stream(times=[0.9, 0.6, 0.4, 0.1][:stages], guidance=SelfNegative(scale=1.3))
    x = frames(length)
    early = [batch.push(part) for part in x.split(1)] if length else []
    assert [y is None for y in early] == [i < stages - 1 for i in range(length)]
    found = [y for y in early if y is not None] + batch.flush()
    assert len(found) == length
    for part, y in zip(x.split(1), found, strict=False):
        torch.testing.assert_close(y, batch.sequential(part), **EQUAL)
    assert batch.flush() == []
    # Nothing of the flushing is left in the stream that follows.
    if length:
        torch.testing.assert_close(through(batch, x), torch.cat(found), **EQUAL)


@pytest.mark.parametrize("kind", [FullNegative, SelfNegative, OneTimeNegative])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_up_to_scale_one_guidance_is_off_and_free(kind, scale):
    plain, model = through(stream(), frames(4)), TanhModel(VP())
    off = stream(model, guidance=kind(scale=scale))
    torch.testing.assert_close(through(off, frames(4)), plain, **EQUAL)
    assert set(model.rows) == {3}


def noise_of(batch, x, t, label=2):
    times = torch.full((len(x),), t, dtype=torch.float64)
    return batch.model.noise(x, times, labels=torch.full((len(x),), label))


def test_full_guidance_by_hand():
    batch = stream(guidance=FullNegative(scale=1.6), times=[0.6])
    x = frames(1)
    c = batch.model.path.schedule.coefficients(torch.tensor(0.6, dtype=torch.float64))
    state = c.alpha * x + c.sigma * batch._noise
    good, bad = noise_of(batch, state, 0.6), noise_of(batch, state, 0.6, label=-1)
    expected = (state - c.sigma * (bad + 1.6 * (good - bad))) / c.alpha
    torch.testing.assert_close(batch.push(x), expected, **EQUAL)


@pytest.mark.parametrize("delta", [0.0, 0.7, 1.0])
def test_self_negative_by_hand(delta):
    """At the first stage the virtual noise is n_0 itself; delta = 0 leaves ``w e_c``."""
    batch = stream(guidance=SelfNegative(scale=1.6, delta=delta), times=[0.6])
    x = frames(1)
    c = batch.model.path.schedule.coefficients(torch.tensor(0.6, dtype=torch.float64))
    state = c.alpha * x + c.sigma * batch._noise
    good, bad = noise_of(batch, state, 0.6), delta * batch._noise
    expected = (state - c.sigma * (bad + 1.6 * (good - bad))) / c.alpha
    torch.testing.assert_close(batch.push(x), expected, **EQUAL)
    # A second frame must not see anything of the first.
    torch.testing.assert_close(batch.push(x), expected, **EQUAL)


def test_one_time_negative_with_the_same_condition_changes_nothing_at_the_first_stage():
    guided = stream(guidance=OneTimeNegative(scale=1.9), times=[0.6], negative=LABEL)
    torch.testing.assert_close(guided.push(frames(1)), stream(times=[0.6]).push(frames(1)), **EQUAL)


@pytest.mark.parametrize("guidance", ["self", "one_time"])
def test_the_recursion_is_the_definition_of_the_virtual_noise(guidance):
    """``s_i = (x_i - a_i x_ref) / b_i`` with the frame, or the first negative data, as x_ref."""
    batch = stream(guidance=GUIDANCE[guidance])
    x = frames(1)
    batch.push(x)
    c = batch.model.path.schedule.coefficients(torch.tensor(TIMES, dtype=torch.float64))
    first = c.alpha[0] * x + c.sigma[0] * batch._noise[:1]
    reference = x
    if guidance == "one_time":
        reference = (first - c.sigma[0] * noise_of(batch, first, TIMES[0], -1)) / c.alpha[0]
    for stage in (1, 2):
        place = slice(stage - 1, stage)
        expected = (batch.states[place] - c.alpha[stage] * reference) / c.sigma[stage]
        torch.testing.assert_close(batch.virtual_noise[place], expected, rtol=0, atol=1e-11)
        batch.push(frames(1, seed=9))


class PointMass(Model):
    """The ideal model of one picture: every prediction leads to it."""

    def __init__(self, picture):
        self.path, self.time_range, self.picture = Path(VP()), (1e-3, 1.0), picture

    def predict(self, x_t, t, **conditions):
        return Prediction.of_data(self.path, x_t, t, self.picture.expand_as(x_t))


def test_a_model_that_predicts_the_frame_returns_it():
    """The conditional noise is the virtual noise at every stage, whatever the scale."""
    picture = frames(1)
    for guidance in (SelfNegative(scale=3.0), None):
        batch = stream(PointMass(picture), guidance=guidance, conditions=None)
        torch.testing.assert_close(batch.sequential(picture), picture, **EQUAL)


def test_lcm_scalings():
    skip, out = lcm_scalings([0, 499])
    assert skip == pytest.approx([1.0, 0.25 / (4990.0**2 + 0.25)])
    assert out == pytest.approx([0.0, 4990.0 / (4990.0**2 + 0.25) ** 0.5])


def test_a_network_in_float32_and_without_conditions():
    torch.manual_seed(0)
    network = perturb(
        UNet(img_resolution=8, in_channels=1, out_channels=1, model_channels=8, pixel_unshuffle=1)
    ).eval()
    model = FlowModel(Path(Linear()), network=network, parameterization=VelocityPrediction())
    batch = StreamBatch(pipeline(model, (1, 8, 8)), times=TIMES, guidance=SelfNegative(scale=1.3))
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = through(batch, x)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    alone = torch.cat([batch.sequential(part) for part in x.split(1)])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": []}, "one or more times"),
        ({"times": [0.2, 0.5]}, "decrease"),
        ({"times": [0.5, 0.0]}, "above 0"),
        ({"times": [1.5, 0.5]}, r"within \[0.0, 1.0\]"),
        ({"times": [1.0, 0.5]}, "nothing is left of the frame"),
        ({"group": 0}, "group is 0"),
        ({"c_out": [1.0]}, r"c_out is \[1.0\]"),
        ({"noise": torch.zeros(2, *SHAPE)}, r"noise has shape \(2, 2, 3, 3\)"),
        ({"negative": {"labels": None}}, "expected all of"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        stream(TanhModel(Linear()), **options)


def test_refuses_frames_of_another_shape():
    with pytest.raises(ValueError, match=r"expected \(1, 2, 3, 3\)"):
        stream().push(torch.zeros(1, 2, 4, 3))
    with pytest.raises(ValueError, match="scale is inf"):
        SelfNegative(scale=float("inf"))
    with pytest.raises(ValueError, match="delta is nan"):
        OneTimeNegative(scale=1.2, delta=float("nan"))
