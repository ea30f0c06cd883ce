"""ARFlow: hybrid attention over the images of a sequence, at once and one by one."""

import numpy as np
import torch

from flowexp.networks.arflow import HybridAttention, Past, hybrid_attention
from tests.goldens.harness import dispatch, parametrize
from tests.networks.naive_attention import layer, over_sequence

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def arrays(case):
    with np.load(case) as data:
        return {name: torch.from_numpy(np.array(data[name])) for name in data.files}


def images(tokens, size, axis):
    """Tokens of whole sequences, cut into images of ``size`` tokens, which become rows."""
    return tokens.unflatten(axis, (-1, size)).movedim(axis, 1).flatten(0, 1)


def sequences(rows, count, axis):
    """The inverse of :func:`images`."""
    return rows.unflatten(0, (-1, count)).movedim(1, axis).flatten(axis, axis + 1)


def gradients(out, inputs):
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
    return torch.autograd.grad((out * direction).sum(), list(inputs))


def check_core(case):
    data = arrays(case)
    size = int(data["chunk_size"])
    whole = [data[name].requires_grad_() for name in ("q", "k", "v", "log_gate")]
    count = whole[0].shape[2] // size
    rows = [images(x, size, 2) for x in whole]
    found, last = hybrid_attention(*rows, sequence=count)
    out = sequences(found, count, 2)
    torch.testing.assert_close(out, data["out"], **CLOSE)
    torch.testing.assert_close(last, data["states"][-1], **CLOSE)

    state, outputs = None, []
    for i in range(count):
        one, state = hybrid_attention(*(x[i::count] for x in rows), state=state)
        outputs.append(one)
        torch.testing.assert_close(state, data["states"][i], **CLOSE)
    torch.testing.assert_close(torch.cat(outputs, dim=2), data["out_incremental"], **CLOSE)

    expected = gradients(over_sequence(*whole, size=size), whole)
    for mine, theirs in zip(gradients(out, whole), expected, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)


def check_layer(case):
    data = arrays(case)
    size, heads = int(data["chunk_size"]), int(data["heads"])
    width = data["x"].shape[-1]
    attention = HybridAttention(width, num_heads=heads)
    weights = {
        name.removeprefix("p_").replace("_weight", ".weight"): value
        for name, value in data.items()
        if name.startswith("p_")
    }
    attention.load_state_dict(weights)
    x = data["x"].requires_grad_()
    count = x.shape[1] // size
    tokens, condition = images(x, size, 1), images(data["c"], size, 1)
    y = sequences(attention(tokens, condition, Past(count, None)), count, 1)
    torch.testing.assert_close(y, data["y"], **CLOSE)

    past = Past(1, None)
    outputs = [attention(tokens[i::count], condition[i::count], past) for i in range(count)]
    torch.testing.assert_close(torch.cat(outputs, dim=1), data["y_incremental"], **CLOSE)

    own = dict(attention.named_parameters())
    plain = layer(own, x, data["c"], heads=heads, size=size)
    torch.testing.assert_close(plain, data["y"], **CLOSE)
    expected = gradients(plain, [x, *own.values()])
    for mine, theirs in zip(gradients(y, [x, *own.values()]), expected, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)


CHECKS = {"hybrid_attention_core": check_core, "gate_retention_layer": check_layer}


@parametrize("arflow")
def test_golden(case):
    dispatch(case, CHECKS)
