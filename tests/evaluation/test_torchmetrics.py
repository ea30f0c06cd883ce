"""torchmetrics' metrics beside ours: what they are given, and what becomes of their results."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import torchmetrics.image
from torchmetrics.functional.image import structural_similarity_index_measure

from flowexp.data import quantize
from flowexp.errors import UsageError
from flowexp.evaluation.score import SampleMetrics
from flowexp.metrics import Metric, MetricRecord, TorchmetricsMetric
from flowexp.metrics.weight_files import no_download
from flowexp.pipeline import Processes
from tests.e2e.command import flowexp
from tests.evaluation.foreign import Brightness, FromGenerator, Projection
from tests.evaluation.test_sample_metrics import Constant, evaluate
from tests.evaluation.tiny import evaluate_together, kernel_distance, metric, pipeline, reference
from tests.two_processes import in_two_processes

ROOT = Path(__file__).resolve().parents[2]


def samples(count=11):
    (batch,) = pipeline(batch_size=count, task=Constant(floating=False)).batches(range(count))
    return quantize(batch.x)


def values(result):
    return {record.name: record.value for record in result.records}


def test_reference_first_then_samples_and_a_tuple_becomes_two_numbers():
    found = evaluate(Constant(floating=False), {"fd": metric(), "kid": kernel_distance()})
    theirs = kernel_distance()
    theirs.update(torch.from_numpy(reference().images).expand(-1, 3, -1, -1), real=True)
    theirs.update(samples().expand(-1, 3, -1, -1), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, std = theirs.compute()
    _, first, second = found.records
    assert (first.name, second.name) == ("kid_mean", "kid_std")
    assert first.value == pytest.approx(float(mean), rel=1e-5)
    assert second.value == pytest.approx(float(std), rel=1e-4)


def test_the_record_names_class_package_and_arguments():
    found = evaluate(Constant(floating=False), {"kid": kernel_distance()}).records[0]
    version = torchmetrics.__version__
    assert found.title == f"KernelInceptionDistance mean[torchmetrics {version}] 11 on tiles"
    assert "subsets=3, subset_size=8" in found.protocol.settings
    assert found.protocol.n_ref == 64
    assert found.key == "eval/kid_mean_11"
    own = evaluate(Constant(floating=False), {"light": Brightness(power=2.0)}).records
    assert [record.title for record in own] == [
        "Brightness mean[tests] 11 on tiles",
        "Brightness greatest[tests] 11 on tiles",
    ]
    assert own[0].protocol.settings == "power=2.0"
    assert own[0].protocol.n_ref is None


def test_other_weights_or_arguments_are_another_protocol():
    def protocol(feature, **changes):
        kid = kernel_distance(feature=feature, **changes)
        return evaluate(Constant(floating=False), {"kid": kid}).records[0].protocol

    other = Projection()
    other.rows += 1
    assert protocol(Projection()).differences(protocol(Projection())) == []
    (found,) = protocol(Projection()).differences(protocol(other))
    assert found.startswith("weights_sha256")
    (found,) = protocol(Projection()).differences(protocol(Projection(), subset_size=4))
    assert found.startswith("settings")


def test_pixels_come_as_each_metric_documents_them():
    class Seen(torchmetrics.Metric):
        def __init__(self, **documented):
            super().__init__()
            vars(self).update(documented)

        def update(self, imgs):
            self.levels = imgs

        def compute(self):
            return torch.zeros(())

    class SeenPairs(Seen):
        def update(self, preds, target):
            self.levels = preds

    def given(cls, **documented):
        adapter = TorchmetricsMetric(cls(**documented), name="seen")
        adapter.prepare(reference())
        levels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
        adapter.accumulator().update(*[levels] * (2 if adapter.paired else 1))
        seen = adapter._metric.levels
        return seen.dtype, pytest.approx(seen.flatten().tolist(), rel=1e-6)

    assert given(Seen) == (torch.float32, [0, 0.2, 1])
    assert given(Seen, normalize=True) == (torch.float32, [0, 0.2, 1])
    assert given(Seen, normalize=False) == (torch.uint8, [0, 51, 255])
    assert given(SeenPairs, normalize=False) == (torch.float32, [-1, -0.6, 1])
    assert given(SeenPairs, normalize="relu", data_range=255.0) == (torch.float32, [0, 51, 255])
    assert given(SeenPairs, data_range=None) == (torch.float32, [0, 0.2, 1])
    assert given(SeenPairs, data_range=(-1.0, 1.0)) == (torch.float32, [-1, -0.6, 1])


@pytest.mark.parametrize("span", [2.0, (-1.0, 1.0)])
def test_pairs_are_compared_with_the_task_s_targets(span):
    found = evaluate(
        Constant(floating=True),
        {"theirs": torchmetrics.image.PeakSignalNoiseRatio(data_range=span)},
        heldout=reference(32, seed=1),
    )
    targets = torch.stack([torch.full((1, 3, 3), i) for i in range(11)])
    error = (samples().double() - targets).square().mean()
    expected = 10 * math.log10(255**2 / float(error))
    assert values(found) == {"theirs": pytest.approx(expected, rel=1e-5)}
    assert found.records[0].extra == {}


def test_real_held_out_pictures_give_the_floor():
    parts = {"light": Brightness(), "kid": kernel_distance()}
    found = evaluate(Constant(floating=False), parts, heldout=reference(32, seed=1))
    heldout = torch.from_numpy(reference(32, seed=1).images).double() / 255
    assert found.records[0].extra["floor"] == pytest.approx(float(heldout.mean()), rel=1e-6)
    assert all(record.extra["floor_count"] == 32 for record in found.records)
    few = evaluate(Constant(floating=False), parts, heldout=reference(4, seed=1))
    assert few.records[2].extra == {}


def test_the_users_metric_is_left_alone_and_can_be_used_twice():
    kid = kernel_distance()
    first = evaluate(Constant(floating=False), {"kid": kid})
    assert not kid.update_called
    torch.manual_seed(5)
    assert values(evaluate(Constant(floating=False), {"kid": kid})) == values(first)


def test_states_of_processes_are_combined_in_the_order_of_the_batches():
    picture = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3)
    batches = [(picture * i).repeat(3, 1, 1, 1) for i in range(1, 8)]
    for make in (kernel_distance, Brightness):
        first, second = (TorchmetricsMetric(make(), name="m", sees_reference=s) for s in (1, 0))
        first.prepare(reference())
        second.prepare(reference())
        whole, mine, theirs = first.accumulator(), first.accumulator(), second.accumulator()
        for i, batch in enumerate(batches):
            whole.update(batch)
            (theirs if i % 2 else mine).update(batch)
        merged, other = first.accumulator(), first.accumulator()
        merged.load(mine.state())
        other.load(theirs.state())
        merged.merge(other)
        assert merged.compute() == whole.compute()
        again = first.accumulator()
        again.load(dict(reversed(merged.state().items())))  # the order of the keys says nothing
        assert again.compute() == whole.compute()


@pytest.mark.e2e
def test_a_metric_of_an_outside_module_by_the_command_line(trained_run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(ROOT / "tests" / "evaluation" / "foreign.py", outside / "their_metrics.py")
    done = flowexp(
        "eval", f"run={trained_run}", "num_samples=12", "metric=none",
        "metric.light._target_=their_metrics.Brightness", "metric.light.power=2.0",
        cwd=tmp_path, fresh=True, env={"PYTHONPATH": f"{outside}:{ROOT}"},
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Brightness mean[their_metrics] 12 on digits" in done.out
    (stored,) = json.loads((trained_run / "results.json").read_text())["evaluations"]
    assert [record["name"] for record in stored["records"]] == ["light_mean", "light_greatest"]
    assert stored["records"][0]["protocol"]["settings"] == "power=2.0"


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(tmp_path):
    in_two_processes(evaluate_together, tmp_path / "two.json", "kid", kernel_distance)
    two = json.loads((tmp_path / "two.json").read_text())
    one = evaluate(pipeline().task, {"kid": kernel_distance()}, seeds=range(50))
    found = [MetricRecord.from_dict(record) for record in two["records"]]
    assert [r.value for r in found] == pytest.approx([r.value for r in one.records], rel=1e-5)


def test_what_cannot_be_measured_is_refused_before_sampling():
    with pytest.raises(UsageError, match=r"FromGenerator.*cannot be shown images") as caught:
        SampleMetrics({"odd": FromGenerator()}, Processes())
    assert caught.value.key == "metric.odd"
    with pytest.raises(UsageError, match="kid needs at least 20 samples, but there are 11"):
        evaluate(Constant(floating=False), {"kid": kernel_distance(subset_size=20)})
    many = TorchmetricsMetric(kernel_distance(subset_size=20), name="kid")
    with pytest.raises(UsageError, match="needs at least 20 samples, but tiles/train has 10"):
        many.prepare(reference(10))
    with pytest.raises(UsageError, match="theirs compares each sample with a target"):
        evaluate(None, {"theirs": torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0)})


def test_a_result_that_is_no_number_names_the_remedy():
    ssim = torchmetrics.image.StructuralSimilarityIndexMeasure(
        data_range=1.0, reduction="none", sigma=0.3
    )
    with pytest.raises(UsageError, match=r"shape \(11,\) instead of a number") as caught:
        evaluate(Constant(floating=False), {"ssim": ssim})
    assert "metric.ssim.reduction" in caught.value.remedy


def test_an_ssim_of_theirs_is_the_mean_over_all_samples():
    images = samples()
    ssim = torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=255.0, sigma=0.3)
    targets = torch.stack([torch.full((1, 3, 3), float(i)) for i in range(11)])
    found = evaluate(Constant(floating=False), {"ssim": ssim}).records[0]
    wanted = structural_similarity_index_measure(
        images.float(), targets, sigma=0.3, data_range=255.0
    )
    assert found.value == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all:UserWarning")
def test_missing_weights_are_named_and_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = torch.hub.download_url_to_file
    with no_download(), pytest.raises(UsageError, match="are not on this machine") as caught:
        torchmetrics.image.InceptionScore()
    assert "6726825d.pth" in caught.value.problem
    assert caught.value.remedy.startswith(f"Fetch them: curl -L --create-dirs -o {tmp_path}")
    assert torch.hub.download_url_to_file is before


def test_follows_the_protocol_of_ours():
    assert isinstance(TorchmetricsMetric(Brightness(), name="light"), Metric)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [kernel_distance, Brightness])
def test_values_on_cuda_equal_those_on_cpu(make):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = []
    for device in ("cpu", "cuda"):
        adapter = TorchmetricsMetric(make(), name="m")
        adapter.prepare(reference(), device=device)
        accumulator, loaded = adapter.accumulator(), adapter.accumulator()
        accumulator.update(samples().to(device))
        loaded.load({name: tensor.cpu() for name, tensor in accumulator.state().items()})
        found.append([record.value for record in loaded.compute()])
    assert found[1] == pytest.approx(found[0], rel=1e-3)
