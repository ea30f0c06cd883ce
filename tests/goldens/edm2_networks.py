"""Checks of the EDM2 golden cases that concern layers and networks (collected by test_edm2.py)."""

import json
from pathlib import Path as File

import numpy as np
import torch

from flowexp.models import FlowModel
from flowexp.networks import EDM2UNet
from flowexp.networks.base import BeforeStep
from flowexp.networks.magnitude_preserving import (
    MPConv,
    MPFourier,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
    pixel_norm,
)
from flowexp.networks.songunet_layers import resample, separable_filter
from flowexp.objectives import LogVariance
from flowexp.parameterizations import EDMPreconditioning
from flowexp.paths import VE, Path

ANY_LEVEL = VE(t_min=1e-9, t_max=1e9)


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key]))


def close(actual, expected, *, rtol=0.0, atol=0.0):
    torch.testing.assert_close(actual.to(expected.dtype), expected, rtol=rtol, atol=atol)


def to_largest(actual, expected, *, rtol):
    """Equal up to a share of the largest value."""
    close(actual, expected, atol=rtol * float(expected.abs().max()))


def check_ops(case: File) -> None:
    data = np.load(case)
    x, a, b, other = (tensor(data, key) for key in ("x", "a", "b", "b2"))
    kernel = separable_filter(data["filter"].tolist())
    found = {
        "normalize_all": normalize(x),
        "normalize_dim1": pixel_norm(x),
        "normalize_zero": normalize(0.0 * x),
        "normalize_eps": normalize(x, eps=float(data["eps"])),
        "silu_out": mp_silu(tensor(data, "silu_in")),
        "sum_out": torch.stack([mp_sum(a, other, t=float(t)) for t in data["t"]]),
        "cat_out": torch.stack([mp_cat(a, b, t=float(t)) for t in data["t"]]),
        "down": resample(x, kernel, up=False),
        "up": resample(x, kernel, up=True),
    }
    for name, value in found.items():
        close(value, tensor(data, name), rtol=1e-5, atol=1e-6)


def check_fourier(case: File) -> None:
    data = np.load(case)
    layer = MPFourier(len(data["freqs"]), bandwidth=float(data["bandwidth"]))
    layer.load_state_dict({name: tensor(data, name) for name in ("freqs", "phases")})
    close(layer(tensor(data, "x")), tensor(data, "out"), atol=2e-5)


def check_mpconv(case: File) -> None:
    data = np.load(case)
    weight, gain = tensor(data, "weight"), float(data["gain"])
    out_channels, in_channels, *kernel = weight.shape
    layer = MPConv(in_channels, out_channels, kernel=kernel[0] if kernel else 0)
    layer.load_state_dict({"weight": weight})
    x = tensor(data, "x").requires_grad_()
    to_largest(layer(x, gain=gain).detach(), tensor(data, "out_eval"), rtol=1e-5)
    assert torch.equal(layer.weight, weight)
    layer.before_step()
    after = tensor(data, "weight_after")
    to_largest(layer.weight.detach(), after, rtol=1e-5)
    out = layer(x, gain=gain)
    to_largest(out.detach(), tensor(data, "out_train"), rtol=1e-5)
    (out * tensor(data, "probe")).sum().backward()
    slope = layer.weight.grad
    to_largest(x.grad, tensor(data, "grad_x"), rtol=1e-4)
    to_largest(slope, tensor(data, "grad_weight"), rtol=1e-4)
    radial = (slope * layer.weight.detach()).flatten(1).sum(1)
    close(radial, tensor(data, "radial"), atol=1e-2 * float(slope.abs().max()))
    layer.before_step()
    to_largest(layer(x, gain=gain).detach(), tensor(data, "out_train2"), rtol=1e-5)


def build(options):
    """The network and the log-variance of a file's ``cfg_json``, and the data's deviation."""
    options = dict(options)
    sigma_data = options.pop("sigma_data", 0.5)
    uncertainty = LogVariance(channels=options.pop("logvar_channels", 128))
    options.pop("use_fp16", None)
    channels = options.pop("img_channels")
    network = EDM2UNet(in_channels=channels, out_channels=channels, **options)
    return network.eval(), uncertainty, sigma_data


def load_weights(data, network, uncertainty):
    """Stored weights (``sd/NAME``) if the file has them, else its fill rule."""
    modules = {"unet.": network, "logvar_": uncertainty}
    slots = {
        prefix + name: value
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    names = json.loads(str(data["names_json"]))
    assert sorted(slots) == sorted(names)
    shapes = dict(zip(names, json.loads(str(data["shapes_json"])), strict=True))
    assert {name: list(value.shape) for name, value in slots.items()} == shapes
    random = np.random.RandomState(int(data["fill_seed"]))
    for name in sorted(slots):
        z = random.standard_normal(tuple(slots[name].shape))
        if f"sd/{name}" in data.files:
            z = data[f"sd/{name}"]
        elif name.endswith("freqs"):
            z = 2 * np.pi * z
        elif name.endswith("phases"):
            z = (2 * np.pi * np.abs(z)) % (2 * np.pi)
        elif name.endswith("_gain"):
            z = 0.4 + 0.1 * z
        slots[name].copy_(torch.from_numpy(np.asarray(z, dtype=np.float32)))


def check_net(case: File) -> None:
    """Names, outputs, blocks, log-variance, and the numbers of training mode."""
    data = np.load(case)
    network, uncertainty, sigma_data = build(json.loads(str(data["cfg_json"])))
    load_weights(data, network, uncertainty)
    trained = [*network.parameters(), *uncertainty.parameters()]
    assert sum(p.numel() for p in trained) == int(data["num_params"])
    labels = tensor(data, "class_labels") if network.label_dim else None
    magnitudes = []
    names = json.loads(str(data["block_names_json"]))
    for name in names:
        side, block = name.split(".")
        getattr(network, side)[block].register_forward_hook(
            lambda _module, _inputs, out: magnitudes.append(out.square().mean().sqrt())
        )
    with torch.inference_mode():
        out = network(tensor(data, "x_in"), tensor(data, "c_noise"), labels)
    to_largest(out, tensor(data, "F"), rtol=2e-4)
    close(torch.stack(magnitudes), tensor(data, "block_rms"), rtol=1e-4)

    parameterization = EDMPreconditioning(sigma_data=sigma_data, sigma_min=1e-9, sigma_max=1e9)
    model = FlowModel(Path(ANY_LEVEL), network=network, parameterization=parameterization)
    x, sigma = tensor(data, "x"), tensor(data, "sigma")

    def denoised(labels=labels):
        with torch.inference_mode():
            return model.denoise(x, sigma, labels=labels)

    to_largest(denoised(), tensor(data, "D"), rtol=2e-4)
    if network.label_dim:
        to_largest(denoised(None), tensor(data, "D_nolabel"), rtol=2e-4)
    with torch.inference_mode():
        u = uncertainty(ANY_LEVEL.coefficients(sigma.double()))
    to_largest(u, tensor(data, "logvar").flatten(), rtol=2e-4)
    network.train()
    for layer in network.modules():
        if isinstance(layer, BeforeStep):
            layer.before_step()
    to_largest(denoised(), tensor(data, "D_train"), rtol=2e-4)


CHECKS = {
    "ops": check_ops,
    "fourier": check_fourier,
    "mpconv": check_mpconv,
    "net": check_net,
}
