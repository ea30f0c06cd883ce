"""Further numbers as inputs of a network, such as the second time of a flow map."""

import pytest
import torch
from torch import Tensor

from flowexp.networks import CaptionedNetwork, Network, WordEncoder
from flowexp.networks.embedding import ScalarEmbedding
from flowexp.objectives.flow_map import JVP, CentralDifference
from tests.networks.tiny import NETWORKS, inputs, perturb

SMALL = {"img_resolution": 8, "attn_resolutions": (4, 8)}


def captioned(**options: object) -> CaptionedNetwork:
    inner = NETWORKS["unet"](**{"augment_dim": 0} | SMALL | options)
    return CaptionedNetwork(network=inner, encoder=WordEncoder(vocabulary=8, width=4), width=4)


def made(kind: str, **options: object) -> Network:
    """A tiny network, on 8 x 8 images, with attention where it can have it."""
    small = {"img_resolution": 8} if kind in ("dit", "arflow") else SMALL
    small = {} if kind == "mlp" else small
    small = small | ({"head_dim": 8} if kind == "unet_unfolded" else {})
    if kind == "captioned":
        return captioned(**options)
    return NETWORKS[kind](**{"label_dim": 0, "augment_dim": 0} | small | options)


every = pytest.mark.parametrize("kind", [*sorted(NETWORKS), "captioned"])


@every
def test_scalars_change_nothing_at_first_and_leave_the_other_weights(kind: str) -> None:
    torch.manual_seed(0)
    plain = made(kind).eval()
    torch.manual_seed(0)
    conditioned = made(kind, scalars=["gap", "end"]).eval()
    states = plain.state_dict(), conditioned.state_dict()
    new = states[1].keys() - states[0].keys()
    assert all("scalar_embedding." in name for name in new)
    assert len(new) == 3
    if kind != "captioned":  # its own weights are drawn after those of the network inside
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    perturb(plain)
    conditioned.load_state_dict(plain.state_dict(), strict=False)
    x, c = inputs(plain, size=8)
    expected = plain(x, c)
    assert expected.abs().max() > 0.1
    for scalars in (None, {}, {"gap": c.abs(), "end": c.square()}):
        assert torch.equal(conditioned(x, c, scalars=scalars), expected)


@every
def test_scalars_are_passed_by_name(kind: str) -> None:
    network = perturb(made(kind, scalars=["gap", "end"])).eval()
    x, c = inputs(network, size=8)
    gap, end, zero = c.abs(), c.square(), torch.zeros_like(c)
    expected = network(x, c, scalars={"gap": gap, "end": end})
    assert torch.equal(network(x, c, scalars={"end": end, "gap": gap}), expected)
    assert not torch.allclose(network(x, c, scalars={"gap": end, "end": gap}), expected)
    assert torch.equal(
        network(x, c, scalars={"end": end}), network(x, c, scalars={"gap": zero, "end": end})
    )
    with pytest.raises(ValueError, match=r"scalars has r; allowed: \['gap', 'end'\]"):
        network(x, c, scalars={"r": gap})
    with pytest.raises(ValueError, match="scalars has gap"):
        made(kind)(x, c, scalars={"gap": gap})


@every
def test_forward_mode_is_the_central_difference(kind: str) -> None:
    """Along the state, the time and the second time; float64, with attention."""
    network = perturb(made(kind, scalars=["gap"])).double().eval()
    x, c = (tensor.double() for tensor in inputs(network, batch=2, size=8))
    rng = torch.Generator().manual_seed(1)
    direction = torch.randn(x.shape, generator=rng, dtype=torch.float64)

    def function(x: Tensor, c_noise: Tensor, gap: Tensor) -> Tensor:
        return network(x, c_noise, scalars={"gap": gap})

    at, along = (x, c, c.abs()), (direction, torch.ones_like(c), torch.ones_like(c))
    with torch.no_grad():
        value, exact = JVP().along(function, at, along)
        again, difference = CentralDifference(step=1e-6).along(function, at, along)
    assert exact.dtype == torch.float64
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(value, again)
    torch.testing.assert_close(difference, exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


def test_their_embedding_is_smooth() -> None:
    """No wave is shorter than 0.5: derivatives in the second time stay of the order of values."""
    torch.manual_seed(0)
    embedding = ScalarEmbedding(64, count=1).double()
    torch.nn.init.normal_(embedding.leave.weight, std=0.125)
    scalars = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)[:, None]
    value, slope = torch.func.jvp(embedding, (scalars,), (torch.ones_like(scalars),))
    assert value.std() > 0.1
    assert slope.abs().max() < 15.0 * value.abs().max()


@pytest.mark.parametrize("names", [["gap", "gap"]])
def test_equal_names_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="different names"):
        made("mlp", scalars=names)
