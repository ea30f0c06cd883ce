"""ARFlow's attention as sums over all tokens of a sequence, without a recurrence."""

import math

import torch
import torch.nn.functional as F


def over_sequence(q, k, v, log_gate, *, size):
    """Outputs (B, heads, images * size, d) for tokens in their order, ``size`` to an image.

    The token j of image i sees token l of an earlier image m with the weight
    ``exp(a_i1 + ... + a_ij + mean(a_m+1) + ... + mean(a_i-1)) q_j k_l / sqrt(d)``.
    """
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    gates = log_gate.unflatten(2, (-1, size))
    number = torch.arange(q.shape[2]) // size
    same = number[:, None] == number
    earlier = number[:, None] > number
    within = torch.softmax(scores.masked_fill(~same, -math.inf), dim=-1)
    means = gates.mean(3)
    images = means.shape[2]
    between = [
        [means[:, :, m + 1 : i].sum(2) for m in range(images)] for i in range(images)
    ]  # (images of queries, images of keys) of (B, heads)
    decay = torch.stack([torch.stack(row, dim=-1) for row in between], dim=-2)
    decay = decay[:, :, number][:, :, :, number] + gates.cumsum(3).flatten(2)[..., None]
    return (within + scores * decay.exp() * earlier) @ v


def layer(parameters, x, c, *, heads, size):
    """The layer on tokens x and conditions c, (B, images * size, width), from its parameters."""

    def normed(y):
        return y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt()

    def split(y):
        return y.unflatten(2, (heads, -1)).transpose(1, 2)

    weights = {name.removesuffix(".weight"): value for name, value in parameters.items()}
    q, k, v = (split(normed(x @ weights[f"{name}_proj"].T)) for name in "qkv")
    gates = F.logsigmoid((x + c) @ weights["gt_proj"].T).transpose(1, 2) / 16
    out = normed(over_sequence(q, k, v, gates, size=size)).transpose(1, 2).flatten(2)
    return (out * F.silu(x @ weights["g_proj"].T)) @ weights["out_proj"].T
