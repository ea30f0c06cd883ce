"""The diffusion transformer."""

import math

import pytest
import torch

from flowexp.networks import DiT
from flowexp.networks.dit import sincos_positions

LATENTS = {"img_resolution": 32, "in_channels": 4, "label_dim": 1000}


@pytest.mark.parametrize(
    ("hidden", "depth", "heads", "published"),
    [(384, 12, 6, 33e6), (768, 12, 12, 130e6), (1024, 24, 16, 458e6), (1152, 28, 16, 675e6)],
    ids=["S", "B", "L", "XL"],
)
def test_sizes_have_the_published_parameter_counts(hidden, depth, heads, published):
    with torch.device("meta"):
        network = DiT(**LATENTS, out_channels=4, hidden_size=hidden, depth=depth, num_heads=heads)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == published / 1e6


def test_xl_with_sigma_channels_and_positions_is_exact():
    # DiT-XL/2 counts its fixed position embedding and learns sigma: 675,129,632.
    with torch.device("meta"):
        network = DiT(**LATENTS, out_channels=8, hidden_size=1152, depth=28, num_heads=16)
    assert sum(value.numel() for value in network.state_dict().values()) == 675_129_632


def test_blocks_are_the_identity_at_the_start():
    torch.manual_seed(0)
    network = DiT(
        img_resolution=8, in_channels=2, out_channels=2, hidden_size=16, depth=2, num_heads=2
    )
    tokens, condition = torch.randn(3, 16, 16), torch.randn(3, 16)
    for block in network.blocks:
        assert torch.equal(block(tokens, condition), tokens)
    assert network(torch.randn(3, 2, 8, 8), torch.rand(3)).abs().max() == 0


def test_tokens_go_back_to_where_their_patch_came_from():
    network = DiT(
        img_resolution=6,
        in_channels=3,
        out_channels=3,
        patch_size=2,
        hidden_size=8,
        depth=1,
        num_heads=2,
    )
    image = torch.randn(2, 3, 6, 6)
    tokens = torch.stack(
        [
            image[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].permute(0, 2, 3, 1).flatten(1)
            for i in range(3)
            for j in range(3)
        ],
        dim=1,
    )
    assert torch.equal(network._unpatchify(tokens), image)
    embedded = network.x_embedder(image)
    patch = image[:, :, 2:4, 0:2]
    expected = torch.einsum("bcpq,dcpq->bd", patch, network.x_embedder.proj.weight)
    torch.testing.assert_close(embedded[:, 3], expected + network.x_embedder.proj.bias)


def test_positions_are_sines_and_cosines_of_column_then_row():
    table = sincos_positions(8, side=5)
    row, column = 3, 4
    expected = [f(p * w) for p in (column, row) for f in (math.sin, math.cos) for w in (1, 0.01)]
    torch.testing.assert_close(table[row * 5 + column], torch.tensor(expected))


def test_null_has_its_own_row():
    torch.manual_seed(0)
    network = DiT(
        img_resolution=4,
        in_channels=1,
        out_channels=1,
        label_dim=3,
        hidden_size=8,
        depth=1,
        num_heads=2,
    )
    table = network.y_embedder.embedding_table.weight
    labels = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0.5, 0, 0.5]])
    expected = torch.stack([table[1], table[3], (table[0] + table[2]) / 2])
    torch.testing.assert_close(network.y_embedder(labels), expected)


def test_other_sizes_are_refused():
    network = DiT(
        img_resolution=8, in_channels=1, out_channels=1, hidden_size=8, depth=1, num_heads=2
    )
    with pytest.raises(ValueError, match="img_resolution=8"):
        network(torch.zeros(1, 1, 16, 16), torch.zeros(1))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"patch_size": 0}, "patch_size=0"),
        ({"hidden_size": 18}, "hidden_size=18"),
        ({"num_heads": 3}, "num_heads=3"),
    ],
)
def test_bad_arguments_name_themselves(options, match):
    with pytest.raises(ValueError, match=match):
        DiT(**{"img_resolution": 8, "in_channels": 1, "out_channels": 1} | options)
