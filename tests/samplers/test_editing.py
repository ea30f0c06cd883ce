"""Editing by inversion with shared attention values."""

import pytest
import torch

from flowexp.guidance import ClassifierFree
from flowexp.models import FlowModel
from flowexp.networks import DiT
from flowexp.parameterizations import NoisePrediction, VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.samplers import (
    AdamsBashforth,
    Churn,
    Editing,
    Euler,
    FireFlow,
    Inversion,
    RFSolver,
    Uniform,
)
from flowexp.samplers.editing import _SharingModel
from tests.networks.tiny import perturb

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
SOURCE, TARGET = torch.tensor([0, 1]), torch.tensor([2, 2])


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = DiT(
        img_resolution=8,
        in_channels=1,
        out_channels=1,
        label_dim=3,
        patch_size=4,
        hidden_size=16,
        depth=3,
        num_heads=2,
    )
    return FlowModel(
        Path(Linear()), network=perturb(network).eval(), parameterization=VelocityPrediction()
    )


def edit(model, sampler, *, target=None, source_labels=SOURCE, target_labels=TARGET, **options):
    return Editing(sampler, **options).edit(
        model,
        target or model,
        X,
        network=model.network,
        source_conditions={"labels": source_labels},
        target_conditions={"labels": target_labels},
    )


def rf(steps=4):
    return RFSolver(steps=steps, time_grid=Uniform())


def test_a_refiner_is_guided_as_in_plain_sampling(model):
    """What VelocityBlocks asks of the model that it samples."""
    guided = ClassifierFree(scale=2.0).wrap(model)
    sharing = _SharingModel(guided, [], None, record=False)
    assert type(sharing.alongside(model)) is type(guided)


def test_without_sharing_it_is_inversion_and_sampling(model):
    found = edit(model, rf(), inject=0)
    inverted = Inversion(rf()).invert(model, X, labels=SOURCE)
    sampled = rf().sample(model, inverted.x, labels=TARGET)
    torch.testing.assert_close(found.e, inverted.x)
    torch.testing.assert_close(found.x, sampled.x)
    assert found.nfe.tolist() == [16, 16]
    assert found.shared == ()


def test_sharing_draws_the_edit_towards_the_data(model):
    """The labels alone move the sample; the longer values are shared, the less."""
    distances = []
    kept = edit(model, rf(), inject=0, target_labels=SOURCE)
    for inject in (0, 2, 4):
        found = edit(model, rf(), inject=inject)
        distances.append(float((found.x - kept.x).norm()))
        assert [key.stage for key in found.shared] == [0, 1] * inject
        assert [key.upper for key in found.shared] == [
            t for t in (1.0, 0.75, 0.5, 0.25)[:inject] for _ in range(2)
        ]
    assert distances[0] > 0.01
    assert distances[2] < distances[1] < distances[0]


def test_with_the_same_labels_sharing_everything_stays_near_the_round_trip(model):
    """Inversion and sampling evaluate almost the same points, so their values almost agree."""

    def distance(steps):
        shared = edit(model, rf(steps), inject=steps, target_labels=SOURCE)
        plain = edit(model, rf(steps), inject=0, target_labels=SOURCE)
        return float((shared.x - plain.x).abs().max())

    assert distance(32) < 0.5 * distance(8)


def test_guided_sampling_receives_the_values_twice(model):
    guided = ClassifierFree(scale=2.0).wrap(model)
    found = edit(model, rf(), target=guided, inject=2)
    assert found.nfe.tolist() == [24, 24]
    assert len(found.shared) == 4
    same = edit(model, rf(), target=ClassifierFree(scale=1.0).wrap(model), inject=2)
    torch.testing.assert_close(same.x, edit(model, rf(), inject=2).x)
    assert not torch.allclose(found.x, same.x)


@pytest.mark.parametrize(
    ("sampler", "stages"),
    [(Euler, [0, 0]), (AdamsBashforth, [0, 0]), (FireFlow, [0, 0])],
    ids=["euler", "ab", "fireflow"],
)
def test_other_samplers(model, sampler, stages):
    found = edit(model, sampler(steps=4, time_grid=Uniform()), inject=2)
    assert [key.stage for key in found.shared] == stages
    assert torch.isfinite(found.x).all()


def test_only_later_layers_and_storage_elsewhere(model):
    every = edit(model, rf(), inject=2)
    last = edit(model, rf(), inject=2, first_layer=2, store="cpu")
    assert not torch.allclose(every.x, last.x)
    torch.testing.assert_close(edit(model, rf(), inject=2, store="cpu").x, every.x)


def test_a_model_that_is_not_defined_at_the_data(model):
    """The last step of sampling has no counterpart in the inversion and shares nothing."""
    noise = FlowModel(
        Path(Linear(t_min=0.1)), network=model.network, parameterization=NoisePrediction()
    )
    found = edit(noise, rf(), inject=4)
    assert torch.isfinite(found.x).all()
    assert {key.upper for key in found.shared} <= {float(t) for t in rf().times(noise)}


def test_refuses(model):
    with pytest.raises(ValueError, match="inject is 5"):
        Editing(rf(), inject=5)
    with pytest.raises(ValueError, match="first_layer is -1"):
        Editing(rf(), inject=1, first_layer=-1)
    churned = Euler(steps=4, time_grid=Uniform(), perturbation=Churn(S_churn=1.0))
    with pytest.raises(ValueError, match="walked the other way"):
        Editing(churned, inject=1)
    with pytest.raises(ValueError, match="3 attention layers"):
        edit(model, rf(), inject=1, first_layer=3)
