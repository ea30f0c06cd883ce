"""ARFlow: causal sequences, what one image reduces to, gates, and the memory of a network."""

import math

import pytest
import torch
import torch.nn.functional as F

from flowexp.networks import ARFlow
from flowexp.networks.arflow import HybridAttention, Past, hybrid_attention
from flowexp.networks.low_rank import LowRank
from flowexp.networks.memory import Memory
from tests.networks.naive_attention import layer, over_sequence
from tests.networks.tiny import perturb

LABELS = 3
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def small(**options):
    torch.manual_seed(0)
    sizes = {
        "img_resolution": 8,
        "in_channels": 2,
        "out_channels": 2,
        "label_dim": LABELS,
        "patch_size": 2,
        "hidden_size": 16,
        "depth": 3,
        "num_heads": 2,
        "sequence": 4,
    }
    return perturb(ARFlow(**(sizes | options)))


def images(count=8):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(count, 2, 8, 8, generator=rng)
    return x, torch.linspace(0.9, 0.1, count), torch.arange(count) // 4 % LABELS


def heads(batch=4, count=2, tokens=5, d=3, dtype=torch.float64):
    rng = torch.Generator().manual_seed(2)
    q, k, v = torch.randn(3, batch, count, tokens, d, generator=rng, dtype=dtype).unbind()
    return q, k, v, -torch.rand(batch, count, tokens, generator=rng, dtype=dtype)


def flat(rows):
    """Images (B, heads, T, ...) of one sequence as its tokens, (1, heads, B T, ...)."""
    return rows.transpose(0, 1).flatten(1, 2)[None]


def test_an_image_changes_no_earlier_one():
    network = small().train()
    x, c, labels = images()
    before = network(x, c, labels)
    for k in range(4):
        changed, other = x.clone(), c.clone()
        changed[k] += 1.0
        other[k] *= 0.7
        after = network(changed, other, labels)
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        # images of the other sequence, rows 4 to 7, are not changed either
        assert moved == [row >= k and row < 4 for row in range(8)]


def test_the_order_of_tokens_in_later_images_does_not_matter_to_earlier_ones():
    network = small().train()
    x, c, labels = images()
    mixed = x.clone()
    mixed[2:4] = x[2:4].flip(-1)
    before, after = network(x, c, labels), network(mixed, c, labels)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2:4], after[2:4])


def test_evaluation_treats_every_row_as_a_sequence_of_one_image():
    network = small()
    x, c, labels = images()
    expected = small(sequence=1).train()(x, c, labels)
    assert torch.equal(network.eval()(x, c, labels), expected)
    assert torch.equal(network.train()(x, c, labels)[::4], expected[::4])
    assert (network(x, c, labels) - expected)[1].abs().max() > 1e-3


def test_one_image_is_softmax_attention_with_norms_and_an_output_gate():
    torch.manual_seed(3)
    attention = perturb(HybridAttention(16, num_heads=2)).double()
    x = torch.randn(3, 9, 16, dtype=torch.float64)
    q, k, v = (
        F.rms_norm(project(x), (16,), eps=1e-6).unflatten(2, (2, 8)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    softmax = F.rms_norm(F.scaled_dot_product_attention(q, k, v), (8,), eps=1e-6)
    gated = softmax.transpose(1, 2).flatten(2) * F.silu(attention.g_proj(x))
    found = attention(x, torch.randn(3, 1, 16, dtype=torch.float64), Past(1, None))
    torch.testing.assert_close(found, attention.out_proj(gated))


@pytest.mark.parametrize(("batch", "tokens", "d"), [(4, 5, 3), (3, 1, 2), (5, 4, 1)])
def test_the_recurrence_is_a_weighted_sum_over_all_earlier_tokens(batch, tokens, d):
    rows = heads(batch, tokens=tokens, d=d)
    found, _ = hybrid_attention(*rows, sequence=batch)
    expected = over_sequence(*(flat(x) for x in rows), size=tokens)
    torch.testing.assert_close(flat(found), expected)


def test_sequences_do_not_mix_and_the_last_may_be_shorter():
    rows = heads(7)
    found, state = hybrid_attention(*rows, sequence=3)
    for part in (slice(0, 3), slice(3, 6), slice(6, 7)):
        alone, _ = hybrid_attention(*(x[part] for x in rows), sequence=3)
        torch.testing.assert_close(found[part], alone)
    assert state.shape == (2, 2, 3, 3)
    few, _ = hybrid_attention(*(x[:2] for x in rows), sequence=5)
    torch.testing.assert_close(few, found[:2])


def test_open_gates_accumulate_and_closed_gates_forget():
    q, k, v, _ = heads()
    alone, own = hybrid_attention(q, k, v, torch.zeros(4, 2, 5, dtype=q.dtype))
    open_gates, state = hybrid_attention(q, k, v, torch.zeros(4, 2, 5, dtype=q.dtype), sequence=4)
    torch.testing.assert_close(state, own.sum(0, keepdim=True))
    before = torch.cat([torch.zeros_like(own[:1]), own.cumsum(0)[:-1]])
    torch.testing.assert_close(open_gates, alone + q @ before)
    closed, last = hybrid_attention(
        q, k, v, torch.full((4, 2, 5), -math.inf, dtype=q.dtype), sequence=4
    )
    torch.testing.assert_close(closed, alone)
    torch.testing.assert_close(last, own[-1:])


def test_derivatives_are_those_of_finite_differences():
    rows = [x.requires_grad_() for x in heads(5, tokens=3, d=2)]

    def outputs(*given):
        return hybrid_attention(*given, sequence=3)

    assert torch.autograd.gradcheck(outputs, rows)


def test_the_layer_has_the_gradient_of_its_plain_form():
    torch.manual_seed(4)
    attention = perturb(HybridAttention(12, num_heads=3)).double()
    x = torch.randn(6, 4, 12, dtype=torch.float64, requires_grad=True)
    c = torch.randn(6, 1, 12, dtype=torch.float64)
    own = dict(attention.named_parameters())
    found = attention(x, c, Past(3, None)).unflatten(0, (2, 3)).flatten(1, 2)
    tokens = x.unflatten(0, (2, 3)).flatten(1, 2)
    conditions = c.expand(6, 4, 12).unflatten(0, (2, 3)).flatten(1, 2)
    expected = layer(own, tokens, conditions, heads=3, size=4)
    torch.testing.assert_close(found, expected)
    inputs = [x, *own.values()]
    pairs = (torch.autograd.grad(out.sin().sum(), inputs) for out in (found, expected))
    for mine, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_image_by_image_with_a_memory_is_the_whole_sequence():
    network = small().train()
    x, c, labels = images()
    expected = network(x, c, labels)
    memory = Memory()
    remembering = network.eval().remembering(memory)
    for k in range(4):
        memory.begin_step()
        rows = [k, 4 + k]  # the two sequences
        found = remembering(x[rows], c[rows], labels[rows])
        torch.testing.assert_close(found, expected[rows], **ROUNDING)


def test_only_the_first_call_of_a_step_extends_the_memory():
    network, memory = small().eval(), Memory()
    remembering = network.remembering(memory)
    x, c, labels = images(4)
    remembering(x, c, labels)
    assert memory.states == {}
    memory.begin_step()
    remembering(x, c, labels)
    states = dict(memory.states)
    assert sorted(states) == [0, 1, 2]
    assert states[0].shape == (4, 2, 8, 8)
    remembering(x + 1.0, c, labels)
    assert all(memory.states[layer] is states[layer] for layer in states)
    memory.begin_step()
    remembering(x + 1.0, c, labels)
    assert not torch.equal(memory.states[0], states[0])


def test_the_memory_is_not_that_of_the_network_and_weights_are_shared():
    network, memory = small().eval(), Memory()
    x, c, labels = images(4)
    before = network(x, c, labels)
    remembering = network.remembering(memory)
    for _ in range(2):
        memory.begin_step()
        remembering(x, c, labels)
    assert network.memory is None
    assert torch.equal(network(x, c, labels), before)
    assert list(network.state_dict()) == list(remembering.state_dict())
    own, theirs = network.parameters(), remembering.parameters()
    assert all(a is b for a, b in zip(own, theirs, strict=True))


def test_a_wrapped_network_remembers_inside_its_wrapper():
    wrapped = LowRank(network=small(), rank=2, label_dim=LABELS).eval()
    for name, parameter in wrapped.named_parameters():
        if name.endswith(".b"):
            parameter.data.normal_(generator=torch.Generator().manual_seed(5))
    x, c, labels = images()
    expected = wrapped.train()(x, c, labels)
    memory = Memory()
    remembering = wrapped.eval().remembering(memory)
    for k in range(4):
        memory.begin_step()
        found = remembering(x[k : k + 1], c[k : k + 1], labels[k : k + 1])
        torch.testing.assert_close(found[0], expected[k], rtol=1e-4, atol=1e-5)
    assert wrapped.network.memory is None


def test_a_label_is_dropped_for_a_whole_sequence():
    network = small(label_dropout=0.5).train()
    x, c, labels = images(8)
    with_label, without = (small().train()(x, c, y) for y in (labels, None))
    seen = set()
    for _ in range(12):
        rows = network(x, c, labels)
        for part in (slice(0, 4), slice(4, 8)):
            kept = torch.allclose(rows[part], with_label[part], **ROUNDING)
            assert kept or torch.allclose(rows[part], without[part], **ROUNDING)
            seen.add(kept)
    assert seen == {True, False}


def test_attention_is_in_float32_under_autocast():
    q = []
    network = small().eval()
    network.blocks[0].attn.values.register_forward_hook(lambda *call: q.append(call[2].dtype))
    x, c, labels = images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(x, c, labels)
    assert q == [torch.float32]


def test_impossible_arguments_are_named():
    with pytest.raises(ValueError, match="sequence=0"):
        small(sequence=0)
    with pytest.raises(ValueError, match="num_heads=3"):
        small(num_heads=3)
