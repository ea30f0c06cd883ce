"""Labels, padding and label dropout."""

import pytest
import torch
import torch.nn.functional as F

from flowexp.networks import Network, label_vectors
from flowexp.networks.base import crop, pad_to_multiple


class Echo(Network):
    """Returns the label vectors it was given."""

    def __init__(self, **options):
        super().__init__(in_channels=1, out_channels=1, **options)

    def evaluate(self, x, c_noise, label, augment):
        return label


def vectors(labels, label_dim=3, batch=4):
    return label_vectors(
        labels, label_dim=label_dim, batch=batch, dtype=torch.float32, device=torch.device("cpu")
    )


def test_indices_become_one_hot_and_minus_one_becomes_zeros():
    out = vectors(torch.tensor([0, 2, -1, 1]))
    assert out.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert out.dtype == torch.float32


def test_none_is_zeros_and_vectors_pass():
    assert vectors(None).tolist() == [[0.0] * 3] * 4
    given = torch.rand(4, 3, dtype=torch.float64)
    torch.testing.assert_close(vectors(given), given.float())


def test_one_row_is_repeated():
    assert vectors(torch.tensor([2])).tolist() == [[0, 0, 1]] * 4
    assert vectors(torch.tensor([[0.0, 0.5, 0.0]])).tolist() == [[0, 0.5, 0]] * 4


@pytest.mark.parametrize("bad", [[0, 1, 2, 3], [0, -2, 0, 0]])
def test_index_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="-1 \\(no label\\) to 2"):
        vectors(torch.tensor(bad))


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(4, 3, dtype=torch.int64),
        torch.zeros(4, 2),
        torch.zeros(4),
        torch.tensor(1),
    ],
)
def test_wrong_label_shape_is_refused(bad):
    with pytest.raises(ValueError, match="labels has shape"):
        vectors(bad)


def test_unconditional_refuses_a_class():
    assert vectors(torch.full((4,), -1), label_dim=0).shape == (4, 0)
    with pytest.raises(ValueError, match="unconditional"):
        vectors(torch.tensor([0, -1, -1, -1]), label_dim=0)


@pytest.mark.statistical
def test_label_dropout_has_its_frequency_and_keeps_whole_rows():
    # Seed fixed; the bound is 5 standard deviations, two-sided false-alarm rate 6e-7.
    torch.manual_seed(1)
    network, n, p = Echo(label_dim=4, label_dropout=0.3), 20000, 0.3
    labels = torch.arange(n) % 4
    network.train()
    out = network(torch.zeros(n, 1), torch.zeros(n), labels)
    dropped = (out == 0).all(dim=1)
    assert abs(dropped.double().mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert torch.equal(out[~dropped], F.one_hot(labels, 4)[~dropped].float())


def test_label_dropout_follows_the_global_seed():
    network, labels = Echo(label_dim=4, label_dropout=0.5).train(), torch.arange(64) % 4
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(network(torch.zeros(64, 1), torch.zeros(64), labels))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_no_label_dropout_draws_no_random_numbers():
    network = Echo(label_dim=4).train()
    before = torch.get_rng_state()
    network(torch.zeros(8, 1), torch.zeros(8), torch.zeros(8, dtype=torch.int64))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options",
    [{"label_dropout": 1.0}, {"label_dropout": -0.1}, {"label_dim": -1}, {"augment_dim": -1}],
)
def test_bad_arguments_name_themselves(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Echo(**options)


@pytest.mark.parametrize(
    ("size", "multiple", "padded"),
    [
        ((28, 28), 8, (32, 32)),
        ((7, 9), 4, (8, 12)),
        ((32, 32), 8, (32, 32)),
        ((1, 1), 8, (8, 8)),
    ],
)
def test_padding_is_even_and_crop_is_its_inverse(size, multiple, padded):
    x = torch.randn(2, 3, *size)
    out, border = pad_to_multiple(x, multiple=multiple)
    assert tuple(out.shape[-2:]) == padded
    assert abs(border[0] - border[1]) <= 1
    assert abs(border[2] - border[3]) <= 1
    assert torch.equal(crop(out, border=border), x)
    assert out.count_nonzero() == x.count_nonzero()


def test_nothing_is_copied_when_nothing_is_missing():
    x = torch.randn(1, 1, 16, 16)
    assert pad_to_multiple(x, multiple=8)[0] is x
