"""Checks of the EDM2 golden cases that concern training (collected by test_edm2.py)."""

from pathlib import Path as File

import numpy as np
import pytest
import torch
from torch import nn

from flowexp.couplings import Pairs
from flowexp.data.quantization import quantize, to_unit_range
from flowexp.models import Model
from flowexp.networks.magnitude_preserving import MPConv, mp_silu
from flowexp.objectives import LogVariance, SquaredL2, UncertaintyRegression, weightings
from flowexp.paths import Path, Prediction
from flowexp.power_averages import gamma_of_std, inner_products, post_hoc_shares, std_of_gamma
from flowexp.seeding import generator
from flowexp.timesteps import LogNormal
from flowexp.training import Constant, HalfLifeEMA, InverseSqrt, PowerEMA
from flowexp.training.ema import EMAWeights
from tests.goldens.edm2_networks import ANY_LEVEL, close, tensor


class GoldenModel(Model):
    """The stand-in ``D(x, sigma) = g x/(1 + sigma^2) + h tanh(x)``."""

    def __init__(self, g, h):
        self.path = Path(ANY_LEVEL)
        self.time_range = (ANY_LEVEL.t_min, ANY_LEVEL.t_max)
        self.g, self.h = g, h

    def predict(self, x_t, t, **conditions):
        data = self.g * x_t / (1.0 + t[:, None, None, None] ** 2) + self.h * torch.tanh(x_t)
        return Prediction.of_data(self.path, x_t, t, data)


class GoldenLogVariance(LogVariance):
    """The stand-in ``u = a + b ln(sigma)/4``."""

    def __init__(self, a, b):
        super().__init__(channels=1)
        self.a, self.b = a, b

    def forward(self, c):
        return self.a + self.b * torch.log(c.sigma) / 4


def check_loss(case: File) -> None:
    data = np.load(case)
    a, b, g, h = (tensor(data, f"p_{name}").double().requires_grad_() for name in "abgh")
    law = LogNormal(P_mean=float(data["P_mean"]), P_std=float(data["P_std"]))
    sigma = law.quantile(torch.special.ndtr(tensor(data, "rnd_normal").flatten()))
    close(sigma, tensor(data, "sigma").flatten(), rtol=1e-9)
    weighting = weightings.EDM(sigma_data=float(data["sigma_data"]))
    close(weighting(ANY_LEVEL.coefficients(sigma)), tensor(data, "weight").flatten(), rtol=1e-9)
    objective = UncertaintyRegression(
        "data",
        weighting=weighting,
        premetric=SquaredL2(),
        log_variance=GoldenLogVariance(a, b),
    )
    pairs = Pairs(tensor(data, "images"), tensor(data, "noise_unit"), {})
    model = GoldenModel(g, h)
    rows, _ = objective.losses(model, pairs, sigma)
    close(rows.detach(), tensor(data, "loss").flatten(1).mean(1), rtol=1e-9)
    close(rows.mean().detach(), tensor(data, "loss_mean"), rtol=1e-9)
    for name, slope in zip("abgh", torch.autograd.grad(rows.mean(), (a, b, g, h)), strict=True):
        close(slope, tensor(data, f"g_{name}"), rtol=1e-8)
    whole = objective.loss(model, pairs, sigma, rng=generator(0, "objective")).per_sample
    close(whole.double(), rows, rtol=1e-6)


def schedule_of(data):
    """EDM2's schedule in the terms of flowexp."""
    ramp = float(data["rampup_Mimg"]) * 1000.0
    batches = float(data["ref_batches"])
    if not batches:
        return Constant(ramp_up_kimg=ramp)
    size = float(data["batch_size"] if "batch_size" in data.files else data["batch"])
    return InverseSqrt(start_kimg=batches * size / 1000.0, ramp_up_kimg=ramp)


def check_lr(case: File) -> None:
    data = np.load(case)
    schedule = schedule_of(data)
    found = [float(data["ref_lr"]) * schedule.factor(float(n)) for n in data["cur_nimg"]]
    np.testing.assert_allclose(found, data["lr"], rtol=1e-12)


def check_profile(case: File) -> None:
    data = np.load(case)
    for std, gamma in zip(data["std"], data["exp_of_std"], strict=True):
        assert gamma_of_std(float(std)) == pytest.approx(float(gamma), rel=1e-9)
    for gamma, std in zip(data["exp_in"], data["std_of_exp"], strict=True):
        assert std_of_gamma(float(gamma)) == pytest.approx(float(std), rel=1e-9)
    batch = float(data["beta_batch"])
    for std, betas in zip(data["std"], data["beta"], strict=True):
        ema = PowerEMA(std=float(std))
        found = [ema.beta(float(n) - batch, batch) for n in data["beta_n"]]
        np.testing.assert_allclose(found, betas, rtol=1e-9, atol=1e-12)
    gammas = {side: np.array([gamma_of_std(s) for s in data[f"{side}_std"]]) for side in "ab"}
    found = inner_products(data["a_ofs"], gammas["a"], data["b_ofs"], gammas["b"])
    np.testing.assert_allclose(found, data["corr"], rtol=1e-9)


def tracked_average(trajectory, start, ema, *, batch, images_before=None):
    """An average after every step, from the value at initialisation; (steps, P)."""
    network = nn.Module()
    network.weights = nn.Parameter(torch.from_numpy(np.asarray(start)).clone())
    averages = EMAWeights({"main": ema})
    averages.start(network)
    found = []
    for number, weights in enumerate(torch.from_numpy(trajectory)):
        with torch.no_grad():
            network.weights.copy_(weights)
        before = number * batch if images_before is None else images_before[number]
        averages.update(images_seen_before=before, batch_size=batch)
        found.append(averages.state()["main"]["weights"].clone().numpy())
    return np.stack(found)


def check_posthoc(case: File) -> None:
    """Shares against two solves; averages tracked, made from snapshots, and tracked directly."""
    data = np.load(case)
    batch = int(data["batch"])
    shares = post_hoc_shares(
        data["in_ofs"].tolist(),
        data["in_std"].tolist(),
        wanted_times=data["out_ofs"].tolist(),
        wanted_stds=data["out_std"].tolist(),
    )
    tolerance = float(data["coef_tol"])
    np.testing.assert_allclose(shares, data["coefs"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(shares, data["coefs_hp"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, rtol=1e-12)
    averages = {
        float(std): tracked_average(
            data["traj"], data["theta0"], PowerEMA(std=float(std)), batch=batch
        )
        for std in {*data["in_std"].tolist(), *data["out_std"].tolist()}
    }

    def at(side):
        places = zip(data[f"{side}_ofs"], data[f"{side}_std"], strict=True)
        return np.stack([averages[float(std)][round(n / batch) - 1] for n, std in places])

    np.testing.assert_allclose(at("in"), data["tracked"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(at("out"), data["direct"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(shares.T @ at("in"), data["recon"], rtol=1e-6, atol=1e-9)


def check_traditional(case: File) -> None:
    """EDM2's average with a half-life counts the images after the step, EDM's those before it."""
    data = np.load(case)
    ratio, batch = float(data["rampup_ratio"]), int(data["batch"])
    ema = HalfLifeEMA(
        half_life_kimg=float(data["halflife_Mimg"]) * 1000.0,
        ramp_up_ratio=None if ratio < 0 else ratio,
    )
    after = [(number + 1) * batch for number in range(len(data["traj"]))]
    found = tracked_average(data["traj"], data["theta0"], ema, batch=batch, images_before=after)
    np.testing.assert_allclose(found, data["ema"], rtol=1e-12, atol=1e-14)


class GoldenNetwork(nn.Module):
    """``MPConv2(mp_silu(MPConv1(x)), gain)``."""

    def __init__(self, data):
        super().__init__()
        d_in, hidden, d_out = (int(data[key]) for key in ("D_in", "H", "D_out"))
        self.first = MPConv(d_in, hidden, kernel=0)
        self.second = MPConv(hidden, d_out, kernel=0)
        self.gain = nn.Parameter(torch.tensor(float(data["gain_init"])))
        self.double()
        with torch.no_grad():
            self.first.weight.copy_(tensor(data, "w1_init"))
            self.second.weight.copy_(tensor(data, "w2_init"))
            self.gain.copy_(tensor(data, "gain_init"))

    def forward(self, x):
        return self.second(mp_silu(self.first(x)), gain=self.gain)


def check_train(case: File) -> None:
    """The order of a step: normalised weights, loss, rate, Adam, averages of what Adam left."""
    data = np.load(case)
    network, batch = GoldenNetwork(data), int(data["batch"])
    schedule, rate = schedule_of(data), float(data["ref_lr"])
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.9, 0.99))
    averages = EMAWeights({str(i): PowerEMA(std=float(s)) for i, s in enumerate(data["stds"])})
    averages.start(network)
    names = {"w1": "first.weight", "w2": "second.weight", "gain": "gain"}

    def same(found, key, step):
        close(found.detach(), tensor(data, key)[step], rtol=1e-8, atol=1e-12)

    for step in range(int(data["steps"])):
        network.first.before_step()
        network.second.before_step()
        same(network.first.weight, "w1_fwd", step)
        same(network.second.weight, "w2_fwd", step)
        x, y = tensor(data, "x")[step], tensor(data, "y")[step]
        loss = (network(x) - y).square().sum() / batch
        same(loss, "loss", step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate * schedule.factor(step * batch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(float(data["lr"][step]), rel=1e-12)
        optimizer.step()
        averages.update(images_seen_before=step * batch, batch_size=batch)
        for short, name in names.items():
            same(network.get_parameter(name), f"{short}_step", step)
            for number in range(len(data["stds"])):
                average = averages.state()[str(number)][name]
                close(average, tensor(data, f"ema_{short}")[number, step], rtol=1e-8, atol=1e-12)


def check_encoder(case: File) -> None:
    """Pictures to data and back; flowexp has no latents, whose scaling the file also holds."""
    data = np.load(case)
    close(to_unit_range(tensor(data, "rgb_u8")), tensor(data, "rgb_encoded"), rtol=1e-6)
    assert torch.equal(quantize(tensor(data, "rgb_latent")), tensor(data, "rgb_decoded"))


CHECKS = {
    "encoder": check_encoder,
    "loss": check_loss,
    "lr": check_lr,
    "ema_profile": check_profile,
    "ema_traditional": check_traditional,
    "posthoc": check_posthoc,
    "train": check_train,
}
