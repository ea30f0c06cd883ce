"""The stream batch, its guidance and the similarity filter against the authors' code."""

import numpy as np
import pytest
import torch

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.paths import Path, Prediction
from flowexp.paths.base import Coefficients, Schedule
from flowexp.pipeline import Pipeline
from flowexp.samplers import Euler
from flowexp.streaming import (
    FullNegative,
    NoNegative,
    OneTimeNegative,
    SelfNegative,
    SimilarityFilter,
    StreamBatch,
    lcm_scalings,
    skip_probability,
)
from tests.goldens.harness import dispatch, parametrize

EXACT = {"rtol": 0.0, "atol": 1e-10}
GUIDANCE = {
    "none": lambda scale, delta: NoNegative(),
    "self": lambda scale, delta: SelfNegative(scale=scale, delta=delta),
    "initialize": lambda scale, delta: OneTimeNegative(scale=scale, delta=delta),
    "full": lambda scale, delta: FullNegative(scale=scale),
}


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(data, key):
    return torch.from_numpy(data[key])


class Levels(Schedule):
    """The noise levels of a discrete schedule, by their number: t = (T + 1) / 1000."""

    def __init__(self, timesteps, alphas_cumprod):
        super().__init__(0.0, 1.0)
        self.known = dict(zip(timesteps.tolist(), alphas_cumprod.tolist(), strict=True))

    def coefficients(self, t):
        steps = (t * 1000.0).round().reshape(-1).tolist()
        signal = torch.tensor([self.known[int(n)] for n in steps], dtype=torch.float64)
        signal = signal.reshape(t.shape)
        nothing = torch.zeros_like(signal)
        return Coefficients(signal.sqrt(), (1.0 - signal).sqrt(), nothing, nothing, nothing + 1.0)

    def time_at_nsr(self, nsr):
        raise NotImplementedError


class TanhNoise(Model):
    """``eps(x, T, c) = tanh(W x + c u + T/1000)``; counts the rows of its calls."""

    def __init__(self, data):
        self.path = Path(Levels(data["timesteps"], data["alphas_cumprod"]))
        self.time_range = (0.0, 1.0)
        self.W, self.u = tensor(data, "unet_W"), tensor(data, "unet_u")
        self.rows = []

    def predict(self, x_t, t, **conditions):
        self.rows.append(len(x_t))
        c = conditions["labels"]
        inner = x_t.reshape(len(x_t), -1) @ self.W.T + c * self.u + expand_as(t, c)
        return Prediction.of_noise(self.path, x_t, t, torch.tanh(inner).reshape(x_t.shape))


def stream_of(data, model):
    scale, delta = float(data["guidance_scale"]), float(data["delta"])
    condition, negative = (tensor(data, f"cond_{k}").reshape(1, 1) for k in ("pos", "neg"))
    shape = data["frames"].shape[2:]
    return StreamBatch(
        Pipeline(model=model, sampler=Euler(steps=1), shape=shape),
        times=(data["timesteps"] / 1000.0).tolist(),
        guidance=GUIDANCE[str(data["cfg_type"])](scale, delta),
        noise=tensor(data, "init_noise"),
        group=data["frames"].shape[1],
        c_skip=data["c_skip"].tolist(),
        c_out=data["c_out"].tolist(),
        conditions={"labels": condition},
        negative={"labels": negative},
        dtype=torch.float64,
    )


def check_stream(case):
    data = load(case)
    model = TanhNoise(data)
    stream = stream_of(data, model)
    frames = tensor(data, "frames")
    waiting = stream.stages - 1
    skip, out = lcm_scalings(data["timesteps"].tolist())
    np.testing.assert_allclose(data["c_skip"], skip, rtol=1e-6)
    np.testing.assert_allclose(data["c_out"], out, rtol=1e-6)
    for call, frame in enumerate(frames):
        torch.testing.assert_close(stream._entered(frame)[0], tensor(data, "x_tau0")[call], **EXACT)
        torch.testing.assert_close(stream.step(frame), tensor(data, "x0_out")[call], **EXACT)
        torch.testing.assert_close(stream.states, tensor(data, "buffers")[call], **EXACT)
        if stream.guidance.uses_virtual_noise and stream.guidance.is_on:
            expected = tensor(data, "stock_noise")[call, :waiting]
            torch.testing.assert_close(stream.virtual_noise, expected, **EXACT)
    assert model.rows == data["unet_batch"].tolist()
    # What was pushed is what comes out, and one by one it is the same.
    stream.reset()
    results = [x for frame in frames if (x := stream.push(frame)) is not None] + stream.flush()
    assert len(results) == len(frames)
    for call, (frame, result) in enumerate(zip(frames, results, strict=True)):
        torch.testing.assert_close(result, stream.sequential(frame), rtol=0, atol=1e-12)
        if call + waiting < len(frames):
            torch.testing.assert_close(result, tensor(data, "x0_out")[call + waiting], **EXACT)


def check_filter(case):
    data = load(case)
    for i, (reference, frame) in enumerate(zip(data["ref"], data["cur"], strict=True)):
        threshold, cosine = float(data["threshold"][i]), float(data["cos"][i])
        pair = torch.from_numpy(frame), torch.from_numpy(reference)
        p = skip_probability(*pair, threshold=threshold)
        assert p == pytest.approx(max(0.0, float(data["skip_prob"][i])), abs=1e-9)
        if threshold < 1.0:
            assert p == pytest.approx(max(0.0, (cosine - threshold) / (1.0 - threshold)), abs=1e-9)


def check_sequence(case):
    data = load(case)
    decide = SimilarityFilter(
        threshold=float(data["threshold"]), max_skip=int(data["max_skip_frame"])
    )
    skipped, counts = [], []
    for frame, u in zip(tensor(data, "frames"), data["uniforms"].tolist(), strict=True):
        skipped.append(decide.skips(frame, u=u))
        counts.append(decide.skipped)
    assert skipped == data["skipped"].tolist()
    assert counts == data["skip_count"].tolist()


CHECKS = {"stream_": check_stream, "ssf.": check_filter, "ssf_sequence": check_sequence}


@parametrize("stream-batch")
def test_golden(case):
    dispatch(case, CHECKS)
