"""Blocks that reuse velocities: exactness, order, counts, compilation, the data end."""

import itertools
import math

import pytest
import torch

from flowexp.guidance import ClassifierFree
from flowexp.models import FlowModel, Model
from flowexp.networks.dit import DiT
from flowexp.networks.mlp import MLP
from flowexp.parameterizations import EDMPreconditioning, VelocityIncrement, VelocityPrediction
from flowexp.paths import VP, Linear, Path, Prediction
from flowexp.samplers import Heun, Uniform, VelocityBlocks
from flowexp.samplers.velocity_blocks import parse_blocks
from tests.samplers.closed_forms import MixtureModel

PATH = Path(Linear())


def mixture():
    return MixtureModel(PATH, [0.4, 0.6], [[1.0, -0.5], [-1.0, 0.5]], [[0.6, 0.8], [0.7, 0.5]])


def latents(batch=6):
    return torch.randn(batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Increment(Model):
    """A refiner ``c + r(x, c, t)`` with a rule for the whole velocity."""

    def __init__(self, rule):
        self.path, self.rule, self.time_range = PATH, rule, (0.0, 1.0)

    def predict(self, x_t, t, *, velocity, **conditions):
        refined = self.rule(x_t, velocity, t, **conditions)
        return Prediction.of_velocity(self.path, x_t, t, refined)


def stale(x, velocity, t):
    return velocity


def blocks(text, *, rule=stale, **options):
    refiner = Increment(rule) if "R" in text else None
    return VelocityBlocks(blocks=text, time_grid=Uniform(), refiner=refiner, **options)


@pytest.mark.parametrize(
    ("text", "kinds"), [("H1P2R1", "HPPR"), ("P5R0H1", "PPPPPH"), ("H1P1R1H1P1R1", "HPRHPR")]
)
def test_blocks_are_read_in_their_order(text, kinds):
    assert parse_blocks(text) == kinds


@pytest.mark.parametrize("text", ["", "H0P0", "X3", "H", "H1 P2", "h1", "H1P", "3H"])
def test_what_is_no_sequence_of_blocks_is_refused(text):
    with pytest.raises(ValueError, match="blocks is"):
        parse_blocks(text)


def test_a_refiner_of_another_path_is_refused():
    refiner = Increment(stale)
    refiner.path = Path(VP())
    sampler = VelocityBlocks(blocks="H1R2", time_grid=Uniform(), refiner=refiner)
    with pytest.raises(ValueError, match="the refiner was trained on"):
        sampler.check(mixture())
    # a refiner that no block asks may be anything
    VelocityBlocks(blocks="H3", time_grid=Uniform(), refiner=refiner).check(mixture())
    blocks("H1R2").check(mixture())


def test_refiner_steps_need_a_refiner():
    with pytest.raises(ValueError, match="refiner is null"):
        VelocityBlocks(blocks="H1R2", time_grid=Uniform())


@pytest.mark.parametrize("text", ["H3", "P4", "H1P2R3", "R3"])
def test_a_constant_velocity_is_followed_exactly(text):
    velocity = torch.tensor([[2.0, -3.0]], dtype=torch.float64)

    class Constant(Model):
        path, time_range = PATH, (0.0, 1.0)

        def predict(self, x_t, t, **conditions):
            return Prediction.of_velocity(self.path, x_t, t, velocity.expand_as(x_t))

    e = latents()
    torch.testing.assert_close(
        blocks(text).sample(Constant(), e).x, e - velocity, rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("final_euler", [False, True])
def test_heun_blocks_alone_are_heun(final_euler):
    sampler = VelocityBlocks(blocks="H7", time_grid=Uniform(), final_euler=final_euler)
    ours = sampler.sample(mixture(), latents())
    heun = Heun(steps=7, time_grid=Uniform(), final_euler=final_euler)
    theirs = heun.sample(mixture(), latents())
    torch.testing.assert_close(ours.x, theirs.x, rtol=0, atol=1e-14)
    assert torch.equal(ours.nfe, theirs.nfe)


@pytest.mark.parametrize(
    ("text", "model_calls", "refiner_calls"),
    [("H2P4R2", 8, 4), ("P4R1", 5, 2), ("H3", 6, 0), ("R2", 1, 4), ("H1P0R3", 2, 6)],
)
def test_calls_are_counted(text, model_calls, refiner_calls):
    evaluated = []

    def rule(x, velocity, t):
        evaluated.append(t)
        return velocity

    samples = blocks(text, rule=rule).sample(mixture(), latents())
    assert samples.nfe.tolist() == [model_calls] * 6
    assert len(evaluated) == refiner_calls


def test_pseudo_corrector_steps_keep_order_two():
    reference = blocks("H4000").sample(mixture(), latents()).x
    counts = [16, 32, 64, 128]
    errors = [
        float((blocks(f"H1P{n - 1}").sample(mixture(), latents()).x - reference).abs().max())
        for n in counts
    ]
    slope = math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])
    assert 1.8 < slope < 2.3


@pytest.mark.parametrize("stale_refinement", [False, True])
def test_a_refiner_that_changes_nothing_makes_euler_steps_with_the_old_velocity(stale_refinement):
    states = []
    sampler = blocks("H1R3", stale_refinement=stale_refinement)
    sampler.sample(mixture(), latents(), on_step=lambda t, x: states.append(x))
    moves = [b - a for a, b in itertools.pairwise(states[1:])]
    for move in moves[1:]:
        torch.testing.assert_close(move, moves[0], rtol=0, atol=1e-14)


def test_an_exact_refiner_makes_heun_steps_of_refiner_steps():
    exact = mixture()

    def rule(x, velocity, t):
        return exact.velocity(x, t)

    ours = blocks("R6", rule=rule).sample(mixture(), latents()).x
    theirs = blocks("H6").sample(mixture(), latents()).x
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_two_readings_of_the_refiner_step_differ():
    def rule(x, velocity, t):
        return velocity + 0.1 * torch.tanh(x - velocity)

    new = blocks("H1R2", rule=rule).sample(mixture(), latents()).x
    old = blocks("H1R2", rule=rule, stale_refinement=True).sample(mixture(), latents()).x
    assert float((new - old).abs().max()) > 1e-4


def networks(label_dim=0):
    torch.manual_seed(0)
    predictor = MLP(in_channels=2, out_channels=2, hidden=16, depth=2, label_dim=label_dim)
    refiner = MLP(in_channels=4, out_channels=2, hidden=8, depth=1, label_dim=label_dim)
    return (
        FlowModel(PATH, network=predictor.eval(), parameterization=VelocityPrediction()),
        FlowModel(PATH, network=refiner.eval(), parameterization=VelocityIncrement()),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_blocks_are_the_same_and_each_kind_is_compiled_once():
    model, refiner = networks()
    plain = VelocityBlocks(blocks="H2P3R2", time_grid=Uniform(), refiner=refiner)
    compiled = VelocityBlocks(
        blocks="H2P3R2", time_grid=Uniform(), refiner=refiner, compile_backend="eager"
    )
    with torch.no_grad():
        expected = plain.sample(model, latents())
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        got = compiled.sample(model, latents())
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        again = compiled.sample(model, latents())
    torch.testing.assert_close(got.x, expected.x, rtol=0, atol=1e-6)
    assert torch.equal(got.x, again.x)
    assert torch.equal(got.nfe, expected.nfe)
    assert graphs <= 3
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_the_refiner_is_guided_as_the_model_is():
    model, refiner = networks(label_dim=3)
    guided = ClassifierFree(scale=2.0).wrap(model)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    x, c = latents(), latents() * 0.5
    t = torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        beside = guided.alongside(refiner).velocity(x, t, velocity=c, labels=labels)
        cond = refiner.velocity(x, t, velocity=c, labels=labels)
        uncond = refiner.velocity(x, t, velocity=c, labels=torch.full_like(labels, -1))
        torch.testing.assert_close(beside, uncond + 2.0 * (cond - uncond), rtol=0, atol=1e-12)
        assert model.alongside(refiner) is refiner
        sampler = VelocityBlocks(blocks="H1P1R2", time_grid=Uniform(), refiner=refiner)
        samples = sampler.sample(guided, latents(), labels=labels)
    assert samples.nfe.tolist() == [6] * 6


def test_a_model_that_is_not_defined_at_the_data_end_gets_an_euler_step_there():
    torch.manual_seed(0)
    network = MLP(in_channels=2, out_channels=2, hidden=16, depth=1)
    model = FlowModel(PATH, network=network.eval(), parameterization=EDMPreconditioning())
    assert model.time_range[0] > 0.0
    sampler = blocks("H2P2")
    with torch.no_grad():
        sampler.check(model)
        samples = VelocityBlocks(blocks="H2P2", time_grid=Uniform(), refiner=None).sample(
            model, latents() * 0.9
        )
    assert torch.isfinite(samples.x).all()
    assert samples.nfe.tolist() == [5] * 6
    whole = VelocityBlocks(blocks="H2P2", time_grid=Uniform(), final_euler=False)
    with pytest.raises(ValueError, match="final_euler is False"), torch.no_grad():
        whole.sample(model, latents() * 0.9)


def test_a_refiner_of_one_block_has_about_four_percent_of_its_teacher():
    """29 M of SiT-XL/2's 675 M parameters (4.3 %) in the paper."""
    common = {
        "img_resolution": 32, "out_channels": 4, "label_dim": 1000, "patch_size": 2,
        "hidden_size": 1152, "num_heads": 16,
    }  # fmt: skip
    with torch.device("meta"):
        teacher = DiT(in_channels=4, depth=28, **common)
        refiner = DiT(in_channels=8, depth=1, **common)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (refiner, teacher)]
    assert 28.5e6 < sizes[0] < 29.5e6
    assert 0.042 < sizes[0] / sizes[1] < 0.044
