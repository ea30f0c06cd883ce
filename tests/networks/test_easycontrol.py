"""EasyControl: the DiT when off, who attends to whom, what is trained, stored and computed once."""

import copy

import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.guidance import ClassifierFree
from flowexp.models import FlowModel
from flowexp.networks import ARFlow, DiT, EasyControl, UNet
from flowexp.networks.conditions import Image, SemanticMap
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.pipeline import Pipeline
from flowexp.samplers import Heun
from flowexp.tasks import Generation

ROWS, SIDE, LABELS = 4, 8, 3
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def dit(**options):
    """A tiny DiT in which every layer matters."""
    torch.manual_seed(0)
    given = {"img_resolution": SIDE, "in_channels": 2, "out_channels": 2, "label_dim": LABELS}
    network = DiT(**given | {"hidden_size": 16, "depth": 3, "num_heads": 2} | options)
    for p in network.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.3)
    return network.eval()


def adapted(network=None, *, trained=True, conditions=None, **options):
    """An EasyControl, with changes that are not zero if ``trained``."""
    network = dit() if network is None else network
    conditions = {"image": Image(channels=2)} if conditions is None else conditions
    torch.manual_seed(1)
    given = {"rank": 2, "label_dim": network.label_dim, "conditions": conditions}
    made = EasyControl(network=network, **given | options)
    for name, p in made.named_parameters():
        if trained and name.endswith(".b"):
            nn.init.normal_(p, std=0.3)
    return made.eval()


def inputs(dtype=torch.float32, seed=2):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 2, SIDE, SIDE, generator=rng, dtype=dtype)
    c = torch.linspace(0.1, 0.9, ROWS, dtype=dtype)
    return x, c, torch.arange(ROWS) - 1


def picture(seed, channels=2, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, channels, SIDE, SIDE, generator=rng, dtype=dtype)


def differs(a, b):
    """Which rows differ by more than rounding."""
    return ((a - b).flatten(1).abs().amax(1) > 1e-3).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_without_condition_it_is_the_network_bit_for_bit(dtype):
    plain, network = dit(), adapted()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    plain, network = plain.to(wide), network.to(wide)
    x, c, labels = inputs(wide)
    none = {"image": torch.zeros(ROWS, 2, SIDE, SIDE, dtype=wide)}
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16), torch.no_grad():
        expected = plain(x, c, labels)
        assert torch.equal(network(x, c, labels), expected)
        for given in ({"image": None}, none, network.prepared(**none), network.prepared()):
            assert torch.equal(network(x, c, labels, **given), expected)
        image = picture(3, dtype=wide)
        given = network(x, c, labels, image=image)
        assert differs(given, expected) == [True] * 4
        assert torch.equal(network(x, c, labels, **network.prepared(image=image)), given)


def test_rows_without_a_condition_are_those_of_the_network():
    network = adapted()
    x, c, labels = inputs()
    image = picture(3)
    image[1] = image[3] = 0.0
    found = network(x, c, labels, image=image)
    plain = network(x, c, labels)
    torch.testing.assert_close(found[[1, 3]], plain[[1, 3]], **CLOSE)
    assert differs(found, plain) == [True, False, True, False]
    torch.testing.assert_close(
        found[[0, 2]], network(x, c, labels, image=picture(3))[[0, 2]], **CLOSE
    )


def test_it_attends_to_the_condition_from_the_start():
    """As in the source, which has no gate: B = 0 leaves the condition's tokens the network's."""
    network = adapted(trained=False)
    x, c, labels = inputs()
    assert differs(network(x, c, labels, image=picture(3)), network(x, c, labels)) == [True] * 4


def test_keys_and_values_are_those_of_the_blocks_on_condition_tokens():
    """With B = 0 and the network's resolution: the blocks on the image, clean and unlabelled."""
    plain = dit()
    network = adapted(trained=False)
    image = picture(3)
    kept = []
    for block in plain.blocks:
        block.attn.qkv.register_forward_hook(lambda _m, _i, out: kept.append(out))
    plain(image, torch.zeros(ROWS))
    prepared = network.prepared(image=image)["image"]
    assert prepared.shape == (ROWS, 3, 2, 2, 16, 8)
    for block, qkv in enumerate(kept):
        _, k, v = qkv.reshape(ROWS, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
        torch.testing.assert_close(prepared[:, block, 0], k, **CLOSE)
        torch.testing.assert_close(prepared[:, block, 1], v, **CLOSE)


def test_attention_with_a_condition_is_the_softmax_over_all_keys():
    network = adapted(dit(depth=1))
    image, (x, c, _) = picture(3), inputs()
    seen = []
    block = network.network.blocks[0]
    hook = block.attn.proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    qkv = []
    other = block.attn.qkv.register_forward_hook(lambda _m, _i, out: qkv.append(out))
    ready = network.prepared(image=image)
    seen.clear()
    qkv.clear()
    network(x, c, **ready)
    hook.remove()
    other.remove()
    q, k, v = qkv[0].reshape(ROWS, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
    keys, values = (torch.cat([one, ready["image"][:, 0, i]], 2) for i, one in enumerate((k, v)))
    weights = torch.softmax(q @ keys.transpose(2, 3) / 8**0.5, dim=3)
    torch.testing.assert_close(seen[0], (weights @ values).transpose(1, 2).flatten(2), **CLOSE)


def test_low_rank_changes_have_the_stated_rank_and_formula():
    network = adapted(rank=3)
    changes = network.branches["image"].changes
    layer = changes[0].changes["k"]
    assert int(torch.linalg.matrix_rank(layer.b @ layer.a)) == 3
    h = torch.randn(2, 5, 16)
    torch.testing.assert_close(layer(h), h @ (layer.b @ layer.a).T, **CLOSE)
    assert [sorted(one.changes) for one in changes] == [["k", "proj", "q", "v"]] * 2 + [["k", "v"]]


def test_conditions_see_neither_the_noise_nor_each_other():
    two = {"image": Image(channels=2), "other": Image(channels=2)}
    network = adapted(conditions=two)
    x, c, labels = inputs()
    a, b = picture(3), picture(4)
    alone = network.prepared(image=a)["image"]
    both = network.prepared(image=a, other=b)
    assert torch.equal(both["image"], alone)
    assert not torch.equal(both["other"], alone)
    # Whatever state, time and label, the branch computes the same.
    kept = []
    branch = network.branches["image"]
    hook = branch.register_forward_hook(lambda _m, _i, out: kept.append(out))
    network(x, c, labels, image=a, other=b)
    network(2 * x, c.flip(0), labels.flip(0), image=a, other=-b)
    hook.remove()
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], alone)
    found = network(x, c, labels, image=a, other=b)
    assert differs(found, network(x, c, labels, image=a)) == [True] * 4
    assert differs(found, network(x, c, labels, image=a, other=-b)) == [True] * 4
    # The order in which they are named does not matter.
    torch.testing.assert_close(network(x, c, labels, other=b, image=a), found, rtol=0, atol=0)


def test_only_branches_are_trained_and_all_of_them():
    network = adapted(trained=False).train()
    base = {n: p.clone() for n, p in network.network.state_dict().items()}
    x, c, labels = inputs()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert {*map(id, trained)} == {*map(id, network.branches.parameters())}
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(x, c, labels, image=picture(3)).square().mean().backward()
        optimizer.step()
    assert all(p.grad is None for p in network.network.parameters())
    silent = [n for n, p in network.branches.named_parameters() if not p.grad.any()]
    assert silent == []
    for name, tensor in network.network.state_dict().items():
        assert torch.equal(tensor, base[name]), name


def test_places_of_a_smaller_grid_are_those_of_the_network():
    """Token (i, j) of a condition at half the resolution has the position of token (2i, 2j)."""
    network = adapted(resolution=SIDE // 2)
    side = SIDE // 2
    whole = network.network.pos_embed[0].reshape(side, side, -1)
    small = network.branches["image"].positions[0].reshape(2, 2, -1)
    assert torch.equal(small, whole[::2, ::2])
    assert torch.equal(adapted().branches["image"].positions, network.network.pos_embed)
    subject = adapted(resolution=SIDE // 2, offsets={"image": 2.0})
    placed = subject.branches["image"].positions[0].reshape(2, 2, -1)
    assert torch.equal(placed, whole[2:, :2])
    assert network.prepared(image=picture(3))["image"].shape == (ROWS, 3, 2, 2, 4, 8)


def test_a_condition_of_another_size_is_resized():
    network = adapted(resolution=SIDE // 2)
    flat = torch.ones(ROWS, 2, SIDE, SIDE)
    small = network.prepared(image=flat[..., ::2, ::2])["image"]
    torch.testing.assert_close(network.prepared(image=flat)["image"], small, **CLOSE)


def test_images_that_are_padded_keep_their_places():
    network = adapted(dit(img_resolution=7, in_channels=1, out_channels=1),
                      conditions={"image": Image(channels=1)})  # fmt: skip
    x, c = torch.randn(2, 1, 7, 7), torch.rand(2)
    assert network(x, c, image=torch.ones(2, 1, 7, 7)).shape == x.shape


def test_other_kinds_of_conditions_have_patches_of_their_own():
    maps = {"map": SemanticMap(classes=3, channels=5)}
    network = adapted(conditions=maps).train()
    x, c, labels = inputs()
    value = torch.randint(3, (ROWS, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    network(x, c, labels, map=value).square().mean().backward()
    branch = network.branches["map"]
    assert branch.patches.weight.grad.any()
    assert branch.condition.project.weight.grad.any()
    none = torch.full_like(value, -1)
    assert torch.equal(network.eval()(x, c, labels, map=none), network(x, c, labels))


def test_dropped_conditions_are_none():
    dropping = {"image": Image(channels=2, dropout=0.5)}
    network = adapted(conditions=dropping).train()
    network.network.label_dropout = 0.0
    x, c, labels = inputs()
    rows = torch.zeros(ROWS)
    for seed in range(20):
        torch.manual_seed(seed)
        rows += torch.tensor(differs(network(x, c, labels, image=picture(3)),
                                     network(x, c, labels)))  # fmt: skip
    assert 20 < int(rows.sum()) < 60  # of 80; false alarm 1e-5
    network.eval()
    assert differs(network(x, c, labels, image=picture(3)), network(x, c, labels)) == [True] * 4


def flow(network):
    return FlowModel(Path(Linear()), network=network, parameterization=VelocityPrediction())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_prepared_conditions_give_the_same_samples_in_one_branch_evaluation(scale):
    network = adapted(resolution=SIDE // 2)
    model = ClassifierFree(scale=scale).wrap(flow(network))
    e, _, _ = inputs(torch.float64)
    conditions = {"labels": torch.tensor([0, 1, 2, 0]), "image": picture(3)}
    calls = []
    hook = network.branches["image"].register_forward_hook(lambda *_: calls.append(1))
    sampler = Heun(steps=4)

    def sampled(**given):
        calls.clear()
        with torch.inference_mode():
            return sampler.sample(model, e, noise=None, **given).x, len(calls)

    direct, many = sampled(**conditions)
    assert many == 7
    with torch.inference_mode():
        calls.clear()
        ready = model.prepared(**conditions)
        assert len(calls) == 1
    reused, none = sampled(**ready)
    hook.remove()
    assert none == 0
    if scale == 1.0:
        assert torch.equal(reused, direct)
    else:  # the branch was evaluated on a doubled batch
        torch.testing.assert_close(reused, direct, **CLOSE)


class Pictures(Generation):
    """A picture for each seed."""

    gives = ("image",)

    def conditions(self, seeds, *, labels=None, device="cpu"):
        pictures = [picture(seed)[0] for seed in seeds]
        return {**super().conditions(seeds, labels=labels), "image": torch.stack(pictures)}


def test_the_pipeline_evaluates_branches_once_for_every_batch():
    network = adapted()
    pipeline = Pipeline(
        model=flow(network),
        sampler=Heun(steps=3),
        shape=(2, SIDE, SIDE),
        task=Pictures(num_classes=LABELS),
        batch_size=4,
    )
    calls = []
    hook = network.branches["image"].register_forward_hook(lambda _m, i, _o: calls.append(i[0]))
    together = list(pipeline.batches(range(8)))
    hook.remove()
    assert [len(images) for images in calls] == [4, 4]
    assert torch.equal(together[1].conditions["image"], calls[1])
    (alone,) = pipeline.batches([5])
    torch.testing.assert_close(alone.x[0], together[1].x[1], **CLOSE)
    assert alone.nfe.tolist() == [5]


def test_a_checkpoint_holds_base_and_branches():
    network = adapted()
    again = adapted(dit(), trained=False)
    x, c, labels = inputs()
    expected = network(x, c, labels, image=picture(3))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x, c, labels, image=picture(3)), expected)
    assert torch.equal(copy.deepcopy(network)(x, c, labels, image=picture(3)), expected)


def test_starts_from_the_plain_network_or_from_one_with_some_of_the_branches():
    source = dit()
    with torch.no_grad():
        for p in source.parameters():
            p.mul_(1.5)
    first = adapted(resolution=4)
    first.load_base(source.state_dict())
    x, c, labels = inputs()
    assert torch.equal(first(x, c, labels), source(x, c, labels))

    two = {"image": Image(channels=2), "other": Image(channels=2)}
    both = adapted(conditions=two, resolution=4, trained=False)
    other = {n: t.clone() for n, t in both.branches["other"].state_dict().items()}
    both.load_base(first.state_dict())
    assert torch.equal(both(x, c, labels, image=picture(3)), first(x, c, labels, image=picture(3)))
    for name, tensor in both.branches["other"].state_dict().items():
        assert torch.equal(tensor, other[name])


def test_weights_of_another_network_are_refused():
    network = adapted()
    with pytest.raises(UsageError, match=r"another network; .* is only in one"):
        network.load_base(dit(depth=2).state_dict())
    with pytest.raises(UsageError, match=r"another network; .* here it is"):
        network.load_base(dit(hidden_size=8).state_dict())
    with pytest.raises(UsageError, match=r"another network; branches.image.* does not fit"):
        network.load_base(adapted(rank=3).state_dict())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rank": 0}, "rank=0"),
        ({"label_dim": 0}, "network's is 3"),
        ({"layers": ["q", "fc1"]}, "allowed: some of q, k, v, proj"),
        ({"layers": []}, "layers is"),
        ({"resolution": 3}, "resolution=3; allowed: multiples of 2"),
        ({"offsets": {"subject": 4}}, "offsets has subject"),
    ],
)
def test_impossible_values_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        adapted(**options)


def test_other_networks_and_no_conditions_are_refused():
    unet = UNet(img_resolution=8, in_channels=1, out_channels=1, model_channels=8,
                pixel_unshuffle=1)  # fmt: skip
    with pytest.raises(UsageError, match="the network is UNet"):
        adapted(unet)
    small = {"hidden_size": 16, "depth": 1, "num_heads": 2}
    other_attention = ARFlow(img_resolution=8, in_channels=2, out_channels=2, **small)
    with pytest.raises(UsageError, match="the network is ARFlow"):
        adapted(other_attention)
    with pytest.raises(UsageError, match="needs conditions"):
        adapted(conditions={})
    with pytest.raises(ValueError, match="conditions has image, which the network has"):
        adapted(dit(conditions={"image": Image(channels=1)}))


def test_conditions_that_do_not_fit_are_refused():
    network = adapted()
    x, c, labels = inputs()
    with pytest.raises(ValueError, match=r"Image has 2 rows; allowed: 4"):
        network(x, c, labels, image=picture(3)[:2])
    with pytest.raises(ValueError, match=r"allowed: float \(B, 2, h, w\)"):
        network(x, c, labels, image=picture(3, channels=1))
    with pytest.raises(ValueError, match="conditions has mask"):
        network(x, c, labels, mask=picture(3))
    ready = network.prepared(image=picture(3))["image"]
    for wrong in (ready[:2], ready[:, :2], ready[:, :, :, :, :3]):
        with pytest.raises(ValueError, match=r"image has keys and values for .*prepared"):
            network(x, c, labels, image=wrong)
