"""score_sde's DDPM++ from its published description, on a bare list of weights.

Only for comparison: sizes are given, weights are random, nothing is shared with SongUNet.
"""

import math

import torch
import torch.nn.functional as F


class ReferenceDDPMpp:
    """Positional embedding, BigGAN blocks, attention after every encoder block of its levels."""

    def __init__(self, *, width, mult, blocks, attention, channels=3, seed=0):
        self.width, self.mult, self.blocks, self.attention = width, mult, blocks, attention
        self.rng = torch.Generator().manual_seed(seed)
        self.state, self.channels = {}, channels
        self.made = False

    def weight(self, name, *shape):
        key = f"all_modules.{self.number}.{name}"
        if not self.made:
            scale = 0.2 if len(shape) == 1 else 1.0 / math.sqrt(math.prod(shape[1:]))
            shift = 1.0 if name.endswith("weight") and len(shape) == 1 else 0.0
            self.state[key] = shift + scale * torch.randn(*shape, generator=self.rng)
        return self.state[key]

    def following(self):
        self.number += 1

    def linear(self, h, out, prefix=""):
        return F.linear(h, self.weight(f"{prefix}weight", out, h.shape[1]),
                        self.weight(f"{prefix}bias", out))  # fmt: skip

    def conv(self, h, out, prefix="", k=3):
        weight = self.weight(f"{prefix}weight", out, h.shape[1], k, k)
        return F.conv2d(h, weight, self.weight(f"{prefix}bias", out), padding=k // 2)

    def norm(self, h, prefix=""):
        c = h.shape[1]
        weight, bias = self.weight(f"{prefix}weight", c), self.weight(f"{prefix}bias", c)
        return F.group_norm(h, min(c // 4, 32), weight, bias, eps=1e-6)

    def block(self, h, emb, out, resample=None):
        x = h
        h = F.silu(self.norm(h, "GroupNorm_0."))
        if resample:
            h, x = resample(h), resample(x)
        h = self.conv(h, out, "Conv_0.")
        h = h + self.linear(F.silu(emb), out, "Dense_0.")[:, :, None, None]
        h = self.conv(F.silu(self.norm(h, "GroupNorm_1.")), out, "Conv_1.")
        if resample or x.shape[1] != out:
            x = self.conv(x, out, "Conv_2.", k=1)
        self.following()
        return (x + h) / math.sqrt(2)

    def attend(self, x):
        h, c = self.norm(x, "GroupNorm_0."), x.shape[1]

        def layer(i, h):
            w, b = self.weight(f"NIN_{i}.W", c, c), self.weight(f"NIN_{i}.b", c)
            return torch.einsum("bchw,cd->bdhw", h, w) + b[None, :, None, None]

        q, k, v = (layer(i, h).flatten(2) for i in range(3))
        weights = torch.softmax(torch.einsum("bcp,bcq->bpq", q, k) / math.sqrt(c), dim=-1)
        h = layer(3, torch.einsum("bpq,bcq->bcp", weights, v).reshape(x.shape))
        self.following()
        return (x + h) / math.sqrt(2)

    def __call__(self, x, labels):
        self.number = 0
        half = self.width // 2
        freqs = torch.exp(-math.log(10000.0) * torch.arange(half) / (half - 1))
        phase = labels[:, None] * freqs
        emb = self.linear(torch.cat([phase.sin(), phase.cos()], 1), 4 * self.width)
        self.following()
        emb = self.linear(F.silu(emb), 4 * self.width)
        self.following()
        h = self.conv(x, self.width)
        self.following()
        skips = [h]
        for level, mult in enumerate(self.mult):
            for _ in range(self.blocks):
                h = self.block(h, emb, self.width * mult)
                h = self.attend(h) if self.attention[level] else h
                skips.append(h)
            if level < len(self.mult) - 1:
                h = self.block(h, emb, h.shape[1], lambda h: F.avg_pool2d(h, 2))
                skips.append(h)
        h = self.block(self.attend(self.block(h, emb, h.shape[1])), emb, h.shape[1])
        for level, mult in reversed(list(enumerate(self.mult))):
            for _ in range(self.blocks + 1):
                h = self.block(torch.cat([h, skips.pop()], 1), emb, self.width * mult)
            h = self.attend(h) if self.attention[level] else h
            if level:
                h = self.block(h, emb, h.shape[1], lambda h: F.interpolate(h, scale_factor=2))
        h = F.silu(self.norm(h))
        self.following()
        h = self.conv(h, self.channels)
        self.made = True
        return h
