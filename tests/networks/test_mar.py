"""MAR: what the head sees, what the backbone sees, and both forms of the same function."""

import copy

import pytest
import torch

from flowexp.networks import MAR
from tests.networks.tiny import perturb


def tiny(**options):
    image = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "label_dim": 3}
    sizes = {"patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2, "head_width": 16}
    return perturb(MAR(**image | sizes | options)).eval()


def inputs(batch=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x, image = torch.randn(2, batch, 3, 8, 8, generator=rng)
    grid = torch.where(torch.rand(batch, 1, 4, 4, generator=rng) < 0.5, 1.0, -1.0)
    mask = grid.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return x, torch.linspace(-1.5, 1.0, batch), {"image": image, "mask": mask}


def test_backbone_and_head_apart_are_the_whole_function():
    net = tiny()
    x, c, known = inputs()
    labels = torch.tensor([0, 1, 2, -1])
    whole = net(x, c, labels, **known)
    flags = (net.to_tokens(known["mask"]) < 0).all(2)
    context = net.context(net.to_tokens(known["image"]), flags, labels)
    assert context.shape == (4, 16, 16)
    head = net.head(
        net.to_tokens(x).flatten(0, 1), c.repeat_interleave(16), context=context.flatten(0, 1)
    )
    torch.testing.assert_close(net.to_images(head.unflatten(0, (4, 16))), whole)


def test_tokens_and_images_are_inverse():
    x, _, _ = inputs()
    tokens = tiny().to_tokens(x)
    assert torch.equal(tokens[1, 5], x[1, :, 2:4, 2:4].flatten())
    assert torch.equal(tiny().to_images(tokens), x)


def test_a_token_depends_on_its_own_noisy_pixels_only():
    net = tiny()
    x, c, known = inputs()
    other = x.clone()
    other[:, :, 2:4, 4:6] += 1.0
    change = (net(other, c, **known) - net(x, c, **known)).abs().amax(1)
    assert (change[:, 2:4, 4:6] > 1e-4).any()
    change[:, 2:4, 4:6] = 0.0
    assert change.max() < 1e-5


def test_unknown_pixels_are_not_read_and_known_ones_reach_every_token():
    net = tiny()
    x, c, known = inputs()
    hidden = known["mask"] > 0
    noisy = torch.where(hidden, known["image"] + 5.0, known["image"])
    torch.testing.assert_close(net(x, c, image=noisy, mask=known["mask"]), net(x, c, **known))
    seen = torch.where(hidden, known["image"], known["image"] + 1.0)
    change = (net(x, c, image=seen, mask=known["mask"]) - net(x, c, **known)).abs()
    assert (net.to_tokens(change).amax(2) > 1e-5).all()


def test_without_conditions_nothing_is_known():
    net = tiny()
    x, c, known = inputs()
    nothing = {"image": known["image"], "mask": torch.ones(4, 1, 8, 8)}
    torch.testing.assert_close(net(x, c), net(x, c, **nothing))
    assert (net(x, c) - net(x, c, **known)).abs().max() > 1e-3


def test_labels_change_the_output_and_none_is_minus_one():
    net = tiny()
    x, c, known = inputs()
    null = net(x, c, **known)
    torch.testing.assert_close(net(x, c, torch.full((4,), -1), **known), null)
    changed = (net(x, c, torch.tensor([0, 1, 2, -1]), **known) - null).flatten(1).abs().amax(1)
    assert (changed > 1e-4).tolist() == [True, True, True, False]


def test_gradients_reach_every_parameter_and_training_starts_from_zero():
    net = tiny(augment_dim=9).train()
    x, c, known = inputs()
    out = net(x, c, torch.tensor([0, 1, 2, -1]), torch.ones(4, 9), **known)
    out.square().mean().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    image = {"img_resolution": 8, "in_channels": 3, "out_channels": 3}
    assert not MAR(**image, patch_size=2)(x, c).any()


def test_blocks_do_not_start_alike():
    net = MAR(img_resolution=8, in_channels=1, out_channels=1, depth=2)
    first, second = (block.linear1.weight for block in net.blocks.layers)
    assert not torch.equal(first, second)
    first, second = (block.self_attn.in_proj_weight for block in net.blocks.layers)
    assert not torch.equal(first, second)


def test_a_copy_and_a_state_dict_give_the_same_function():
    net, (x, c, known) = tiny(), inputs()
    torch.testing.assert_close(copy.deepcopy(net)(x, c, **known), net(x, c, **known))
    other = tiny()
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x, c, **known), net(x, c, **known))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch_size": 3}, "multiples of patch_size=3"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"hidden_size": 18}, "hidden_size=18"),
        ({"head_depth": 0}, "head_depth=0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"scalars": ["r"]}, "allowed: none"),
        ({"conditions": {"map": torch.nn.Identity()}}, "it has its own"),
    ],
)
def test_wrong_arguments_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        tiny(**options)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="img_resolution=8"):
        tiny()(torch.zeros(1, 3, 12, 12), torch.zeros(1))
