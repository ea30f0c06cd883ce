"""What all networks promise, on tiny versions with random weights."""

import copy
import itertools

import pytest
import torch

from flowexp.networks.conditions import Image, Mask, SemanticMap, without_condition
from tests.networks.tiny import AUGMENT, IMAGE_NETWORKS, LABELS, NETWORKS, inputs, perturb

every = pytest.mark.parametrize("kind", sorted(NETWORKS))
images = pytest.mark.parametrize("kind", sorted(IMAGE_NETWORKS))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@every
def test_labels_change_the_output_and_null_is_none_is_zeros(kind):
    network = perturb(NETWORKS[kind]()).eval()
    x, c = inputs(network)
    null = network(x, c)
    torch.testing.assert_close(network(x, c, torch.full((4,), -1)), null)
    torch.testing.assert_close(network(x, c, torch.zeros(1, LABELS)), null)
    index = torch.tensor([0, 2, -1, 1])
    out = network(x, c, index)
    vectors = torch.eye(LABELS)[index] * (index >= 0)[:, None]
    torch.testing.assert_close(network(x, c, vectors), out)
    changed = (out - null).flatten(1).abs().amax(1) > 1e-3
    assert changed.tolist() == [True, True, False, True]


@every
def test_augment_labels_change_the_output_and_none_is_zeros(kind):
    network = perturb(NETWORKS[kind]()).eval()
    x, c = inputs(network)
    plain = network(x, c)
    torch.testing.assert_close(network(x, c, None, torch.zeros(4, AUGMENT)), plain)
    assert (network(x, c, None, torch.ones(4, AUGMENT)) - plain).abs().max() > 1e-3


@every
def test_noise_condition_matters_in_every_range_in_use(kind):
    network = perturb(NETWORKS[kind]()).eval()
    x, _ = inputs(network, batch=1)
    outs = [network(x, torch.tensor([c])) for c in (-1.5, -0.5, 0.0, 0.5, 1.0, 300.0, 900.0)]
    for first, second in itertools.pairwise(outs):
        assert (first - second).abs().max() > 1e-3


@every
def test_samples_of_a_batch_do_not_mix(kind):
    network = perturb(NETWORKS[kind]()).eval()
    x, c = inputs(network)
    labels, order = torch.tensor([0, 1, 2, -1]), torch.tensor([2, 0, 3, 1])
    expected = network(x, c, labels)[order]
    torch.testing.assert_close(network(x[order], c[order], labels[order]), expected, **CLOSE)
    torch.testing.assert_close(network(x[2:3], c[2:3], labels[2:3]), expected[:1], **CLOSE)


@every
def test_gradients_reach_every_parameter(kind):
    network = perturb(NETWORKS[kind]()).train()
    x, c = inputs(network)
    out = network(x, c, torch.tensor([0, 1, 2, -1]), torch.ones(4, AUGMENT))
    out.square().mean().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@every
def test_output_is_small_or_zero_at_the_start(kind):
    # All zero-initialised or 1e-5-scaled last layers: the parameterization's c_skip rules at first.
    network = NETWORKS[kind]()
    x, c = inputs(network)
    assert network(x, c).abs().max() < 1e-2


@every
def test_construction_on_meta_allocates_nothing_and_counts_the_same(kind):
    with torch.device("meta"):
        network = NETWORKS[kind]()
    assert all(p.is_meta for p in network.parameters())
    real = NETWORKS[kind]()
    assert [p.shape for p in network.parameters()] == [p.shape for p in real.parameters()]
    assert list(network.state_dict()) == list(real.state_dict())


@every
def test_state_dict_round_trip_and_deepcopy_give_the_same_function(kind):
    network = perturb(NETWORKS[kind]()).eval()
    x, c = inputs(network)
    other = NETWORKS[kind]().eval()
    other.load_state_dict(network.state_dict(), strict=True)
    torch.testing.assert_close(other(x, c), network(x, c), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(network)(x, c), network(x, c), rtol=0, atol=0)


@every
def test_label_dropout_equals_null_in_training_and_is_off_in_evaluation(kind):
    network = perturb(NETWORKS[kind](label_dropout=0.5))
    x, c = inputs(network)
    labels = torch.tensor([0, 1, 2, 0])
    labelled, null = network.eval()(x, c, labels), network(x, c)
    torch.testing.assert_close(network(x, c, labels), labelled, rtol=0, atol=0)
    seen = set()
    network.train()
    # of a sequence only the first row has no rows before it, as every row in evaluation
    first = slice(None, None, network.sequence)
    labelled, null = labelled[first], null[first]
    for _ in range(8):
        rows = network(x, c, labels)[first]
        for row, with_label, without in zip(rows, labelled, null, strict=True):
            is_label = torch.allclose(row, with_label, **CLOSE)
            assert is_label or torch.allclose(row, without, **CLOSE)
            seen.add(is_label)
    assert seen == {True, False}


@every
def test_unconditional_network_takes_null_labels_only(kind):
    network = perturb(NETWORKS[kind](label_dim=0, augment_dim=0)).eval()
    x, c = inputs(network)
    torch.testing.assert_close(network(x, c, torch.full((4,), -1)), network(x, c))
    with pytest.raises(ValueError, match="label_dim=0"):
        network(x, c, torch.tensor([-1, -1, 0, -1]))
    with pytest.raises(ValueError, match="augment_dim=0"):
        network(x, c, None, torch.zeros(4, AUGMENT))


@every
def test_wrong_shapes_are_refused(kind):
    network = NETWORKS[kind]()
    x, c = inputs(network)
    with pytest.raises(ValueError, match="c_noise"):
        network(x, c[:2])
    with pytest.raises(ValueError, match="in_channels"):
        network(torch.cat([x, x], dim=1), c)
    with pytest.raises(ValueError, match="labels"):
        network(x, c, torch.zeros(4, LABELS + 1))


@images
def test_channels_last_gives_the_same_numbers(kind):
    network = perturb(NETWORKS[kind]()).eval()
    x, c = inputs(network)
    expected = network(x, c)
    network.to(memory_format=torch.channels_last)
    out = network(x.contiguous(memory_format=torch.channels_last), c)
    torch.testing.assert_close(out, expected, **CLOSE)


@images
@pytest.mark.parametrize("size", [8, 28, 30, 32])
def test_any_size_works_out_of_the_box(kind, size):
    network = perturb(
        NETWORKS[kind](img_resolution=size, attn_resolutions=())
        if kind not in ("dit", "arflow")
        else NETWORKS[kind](img_resolution=size)
    ).eval()
    x, c = inputs(network, size=size)
    out = network(x, c)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()


@images
def test_colour_and_different_output_channels(kind):
    network = perturb(NETWORKS[kind](in_channels=6, out_channels=3)).eval()
    x, c = inputs(network)
    assert network(x, c).shape == (4, 3, 28, 28)


@images
def test_points_are_refused(kind):
    network = NETWORKS[kind]()
    with pytest.raises(ValueError, match="x has shape"):
        network(torch.zeros(4, 1), torch.zeros(4))


@every
def test_bfloat16_autocast_stays_close(kind):
    network = perturb(NETWORKS[kind]()).eval()
    x, c = inputs(network)
    expected = network(x, c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(x, c).float()
    assert (out - expected).abs().mean() < 0.05 * expected.abs().mean() + 1e-3


def conditioned(kind, **options):
    given = {"image": Image(channels=2), "map": SemanticMap(classes=3, **options), "mask": Mask()}
    return perturb(IMAGE_NETWORKS[kind](conditions=given)).eval()


def given_to(network, batch=4):
    generator = torch.Generator().manual_seed(5)
    return {
        "image": torch.randn(batch, 2, 28, 28, generator=generator),
        "map": torch.randint(3, (batch, 28, 28), generator=generator),
        "mask": torch.randn(batch, 1, 28, 28, generator=generator).sign(),
    }


@images
def test_every_condition_changes_the_output_and_missing_is_none(kind):
    network = conditioned(kind)
    x, c = inputs(network)
    given = given_to(network)
    out = network(x, c, **given)
    assert out.shape == x.shape
    for name in given:
        without = network(x, c, **{**given, name: None})
        assert ((out - without).flatten(1).abs().amax(1) > 1e-4).all(), name
        none = {**given, name: without_condition(given[name])}
        torch.testing.assert_close(network(x, c, **none), without)


@images
def test_conditions_of_a_batch_do_not_mix_and_gradients_reach_them(kind):
    network = conditioned(kind)
    x, c = inputs(network)
    given, order = given_to(network), torch.tensor([2, 0, 3, 1])
    expected = network(x, c, **given)[order]
    moved = {name: value[order] for name, value in given.items()}
    torch.testing.assert_close(network(x[order], c[order], **moved), expected, **CLOSE)
    network.train()(x, c, **given).square().mean().backward()
    assert network.conditions["map"].project.weight.grad.any()


@images
def test_conditions_on_meta_count_the_same(kind):
    with torch.device("meta"):
        network = conditioned_shape(kind)
        x, c = torch.zeros(2, 1, 28, 28), torch.zeros(2)
        given = {
            "map": torch.zeros(2, 28, 28, dtype=torch.int64),
            "mask": torch.zeros(2, 1, 28, 28),
        }
        assert network(x, c, **given).shape == x.shape
    real = conditioned_shape(kind)
    assert [p.shape for p in network.parameters()] == [p.shape for p in real.parameters()]


def conditioned_shape(kind):
    return IMAGE_NETWORKS[kind](conditions={"map": SemanticMap(classes=3), "mask": Mask()})
