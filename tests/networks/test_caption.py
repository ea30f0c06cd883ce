"""Networks conditioned on captions: attention to words, dropped captions, weights."""

import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.networks import CaptionedNetwork, UNet, WordEncoder
from flowexp.tasks import WordTokenizer
from tests.networks.test_arflow import small

SIZES = {"img_resolution": 8, "in_channels": 1, "out_channels": 1, "pixel_unshuffle": 1}
TEXTS = ["a photo of a sneaker", "a photo of a bag", "bag"]


def inner(label_dim=16, **kwargs):
    return UNet(**SIZES, label_dim=label_dim, model_channels=8, **kwargs)


def captioned(**kwargs):
    torch.manual_seed(0)
    encoder = WordEncoder(vocabulary=512, width=12)
    network = CaptionedNetwork(network=inner(), encoder=encoder, width=12, label_dim=3, **kwargs)
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    return network.eval()


def evaluated(network, tokens, x=None):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(len(tokens), 1, 8, 8, generator=rng) if x is None else x
    return network(x, torch.full((len(tokens),), 0.3), tokens=tokens)


def tokens_of(texts=TEXTS):
    return WordTokenizer(vocabulary=512, length=6)(texts)


def test_captions_change_the_output_row_by_row():
    network, tokens = captioned(), tokens_of()
    x = torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)
    out = evaluated(network, tokens, x).detach()
    assert float((out[0] - out[1]).abs().max()) > 1e-4
    assert float((out[1] - out[2]).abs().max()) > 1e-4
    alone = evaluated(network, tokens[1:2], x[:1]).detach()
    torch.testing.assert_close(out[1:2], alone, rtol=1e-4, atol=1e-5)


def test_vectors_have_the_length_of_a_one_hot_label():
    vectors = captioned().caption_vectors(tokens_of(), torch.zeros(3, 1))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3), rtol=1e-3, atol=0)


def test_padding_is_not_looked_at():
    network = captioned()
    short, long = tokens_of(["bag"]), WordTokenizer(vocabulary=512, length=30)(["bag"])
    assert short.shape != long.shape
    torch.testing.assert_close(
        evaluated(network, short), evaluated(network, long), rtol=1e-5, atol=1e-6
    )


def test_no_caption_is_the_inner_networks_no_label():
    network = captioned()
    x = torch.randn(2, 1, 8, 8)
    c = torch.full((2,), 0.3)
    expected = network.network(x, c, None)
    nothing = torch.full((2, 6), -1)
    empty = tokens_of(["", "..."])
    for tokens in (nothing, empty, None):
        assert torch.equal(network(x, c, tokens=tokens), expected)


def test_captions_are_dropped_in_training_alone():
    network, tokens = captioned(label_dropout=0.5), tokens_of(["bag"]).expand(200, -1)
    features = torch.zeros(200, 1)
    assert (network.caption_vectors(tokens, features) != 0).any(dim=1).all()
    network.train()
    torch.manual_seed(0)
    kept = (network.caption_vectors(tokens, features) != 0).any(dim=1).sum()
    # 200 draws with probability 1/2; outside with probability below 1e-8
    assert 60 < int(kept) < 140


def test_the_encoder_is_frozen_and_in_no_state():
    network = captioned()
    assert not any(value.shape == (512, 12) for value in network.state_dict().values())
    assert not any(isinstance(module, WordEncoder) for module in network.modules())
    evaluated(network, tokens_of()).sum().backward()
    assert network.queries.grad is not None
    assert float(network.queries.grad.abs().sum()) > 0


def test_any_callable_serves_as_an_encoder():
    def lengths(tokens):
        return (tokens > 0).float()[..., None].expand(-1, -1, 12)

    network = CaptionedNetwork(network=inner(), encoder=lengths, width=12)
    assert evaluated(network, tokens_of()).shape == (3, 1, 8, 8)


def test_the_built_in_encoder_is_the_same_everywhere():
    assert torch.equal(WordEncoder(seed=3).table, WordEncoder(seed=3).table)
    with torch.device("meta"):
        assert WordEncoder().table.device.type == "cpu"
    assert not torch.equal(WordEncoder(seed=3).table, WordEncoder(seed=4).table)


def test_a_missing_encoder_is_asked_for():
    with pytest.raises(UsageError, match="need a text encoder") as refusal:
        CaptionedNetwork(network=inner(), encoder=None, width=12)
    assert refusal.value.key == "network.encoder"


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: captioned(heads=0), "heads=0"),
        (
            lambda: CaptionedNetwork(network=inner(0), encoder=WordEncoder(), width=64),
            "label_dim=0",
        ),
        (
            lambda: CaptionedNetwork(
                network=inner(label_dropout=0.1), encoder=WordEncoder(), width=64
            ),
            "label_dropout=0.1",
        ),
        (
            lambda: CaptionedNetwork(network=small(), encoder=WordEncoder(), width=64),
            "sequence=4",
        ),
        (lambda: evaluated(captioned(), torch.zeros(3, 4)), "tokens has shape"),
        (
            lambda: evaluated(
                CaptionedNetwork(network=inner(), encoder=WordEncoder(width=5), width=6),
                tokens_of(),
            ),
            r"\(3, 6, 5\); expected \(3, 6, 6\)",
        ),
    ],
)
def test_bad_values_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
