import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.networks import MLP
from flowexp.networks.foreign import adopt, call_network, takes_labels
from flowexp.networks.low_rank import LowRank
from flowexp.training.precision import AutocastNetwork


class OfTime(nn.Module):
    def forward(self, x, t):
        return x * t[:, None]


class OfLabels(nn.Module):
    def forward(self, x, t, y):
        return x + y[:, None]


class Optional(nn.Module):
    def forward(self, x, t, r=None, *, labels=None):
        return x if labels is None else x + labels[:, None]


class Anything(nn.Module):
    def forward(self, x, t, **conditions):
        return x + len(conditions)


class OfAState(nn.Module):
    def forward(self, x):
        return x


X, T, LABELS = torch.ones(3, 2), torch.full((3,), 2.0), torch.tensor([0, 1, 5])


@pytest.mark.parametrize(
    ("network", "conditions", "expected"),
    [
        (OfTime(), {}, [2, 2, 2]),
        (OfLabels(), {"labels": LABELS}, [1, 2, 6]),
        (OfLabels(), {}, [0, 0, 0]),
        (OfLabels(), {"labels": None}, [0, 0, 0]),
        (Optional(), {"labels": LABELS}, [1, 2, 6]),
        (Optional(), {}, [1, 1, 1]),
        (Anything(), {"labels": LABELS, "tokens": LABELS}, [3, 3, 3]),
    ],
)
def test_labels_go_where_forward_takes_them(network, conditions, expected):
    assert call_network(network, X, T, conditions)[:, 0].tolist() == expected


def test_wrappers_call_the_module_inside_them_in_the_same_way():
    network = AutocastNetwork(OfLabels(), dtype=torch.bfloat16)
    assert call_network(network, X, T, {"labels": LABELS})[:, 0].tolist() == [1, 2, 6]
    adopt(labelled := OfLabels(), classes=6, key="network")
    network = LowRank(network=labelled, label_dim=6)
    assert call_network(network, X, T, {})[:, 0].tolist() == [0, 0, 0]


def test_labels_for_a_module_that_takes_none_are_refused():
    with pytest.raises(ValueError, match=r"OfTime\.forward takes no labels"):
        call_network(OfTime(), X, T, {"labels": LABELS})


@pytest.mark.parametrize(("network", "known"), [(OfTime(), 0), (OfLabels(), 6), (Optional(), 6)])
def test_a_module_that_takes_labels_knows_the_classes_of_the_data(network, known):
    adopt(network, classes=6, key="network")
    assert network.label_dim == known
    assert takes_labels(network) == (known > 0)


def test_a_stated_number_of_classes_stays():
    network = MLP(in_channels=2, out_channels=2, label_dim=3)
    adopt(network, classes=6, key="network")
    assert network.label_dim == 3


def test_a_module_without_a_time_is_refused():
    with pytest.raises(UsageError, match=r"OfAState\.forward takes \(x\)"):
        adopt(OfAState(), classes=0, key="network")


def test_a_compiled_caller_sees_through_it():
    network = OfLabels()
    adopt(network, classes=6, key="network")
    compiled = torch.compile(
        lambda x, t, y: call_network(network, x, t, {"labels": y}), backend="eager", fullgraph=True
    )
    assert compiled(X, T, LABELS)[:, 0].tolist() == [1, 2, 6]
