import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from flowexp.errors import UsageError
from flowexp.metrics import (
    LPIPS,
    PSNR,
    SSIM,
    EfficientNetPerceptual,
    Metric,
    PerceptualSimilarity,
    ReflectedSSIM,
)
from tests.metrics.random_weights import save_backbone
from tests.metrics.sets import Samples

DATA = Samples(np.zeros((3, 3, 32, 32), dtype=np.uint8), "f", name="cifar10/heldout", notice="n")


def pairs(n=23, *, channels=3, side=32):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    noise = rng.normal(0, np.linspace(1, 30, n)[:, None, None, None], targets.shape)
    images = np.clip(targets + noise, 0, 255).astype(np.uint8)
    return torch.from_numpy(images), torch.from_numpy(targets)


def prepared(metric):
    metric.prepare(DATA)
    return metric


def record(metric, images, targets, batch=7):
    accumulator = prepared(metric).accumulator()
    split = zip(torch.split(images, batch), torch.split(targets, batch), strict=True)
    for a, b in split:
        accumulator.update(a, b)
    return accumulator.compute()[0]


METRICS = {
    "psnr": lambda: PSNR(name="psnr"),
    "ssim": lambda: SSIM(name="ssim"),
    "reflected": lambda: ReflectedSSIM(name="ssim_reflected"),
    "efficientnet": lambda: PerceptualSimilarity(
        EfficientNetPerceptual(layers=[1]), name="perceptual_efflite0"
    ),
}


def test_psnr_is_the_mean_of_the_images_values_not_of_their_errors():
    images, targets = pairs()
    error = (images.double() - targets.double()).square().mean((1, 2, 3))
    each = 10 * torch.log10(255**2 / error)
    found = record(PSNR(name="psnr"), images, targets)
    assert found.value == pytest.approx(float(each.mean()), rel=1e-12)
    pooled = 10 * math.log10(255**2 / float(error.mean()))
    assert abs(found.value - pooled) > 1


def test_ssim_is_wangs_without_the_rim():
    """Values of scikit-image with its options for the published window, and of torchmetrics."""
    file = Path(__file__).parents[1] / "goldens" / "data" / "metrics" / "psnr_ssim.npz"
    with np.load(file) as stored:
        images, targets = (torch.from_numpy(stored[key]) for key in ("pred_u8", "target_u8"))
        wang, reflected = (
            stored[f"ssim_{key}_each"].mean() for key in ("skimage_wang", "torchmetrics")
        )
    assert record(SSIM(name="ssim"), images, targets).value == pytest.approx(wang, rel=1e-5)
    other = record(ReflectedSSIM(name="ssim_reflected"), images, targets).value
    assert other == pytest.approx(reflected, rel=1e-5)
    assert abs(wang - reflected) > 0.02


def test_reflected_ssim_is_torchmetrics():
    images, targets = pairs(5)
    theirs = structural_similarity_index_measure(
        images.double(), targets.double(), data_range=255.0
    )
    found = record(ReflectedSSIM(name="ssim_reflected"), images, targets)
    assert found.value == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("kind", METRICS)
def test_titles_and_protocols_state_the_convention(kind):
    images, targets = pairs(6)
    metric = METRICS[kind]()
    assert isinstance(metric, Metric)
    assert metric.paired is True
    found = record(metric, images, targets)
    wanted = {
        "psnr": "PSNR (per image) 6 on cifar10/heldout",
        "ssim": "SSIM (Gaussian window, interior) 6 on cifar10/heldout",
        "reflected": "SSIM (Gaussian window, reflected border) 6 on cifar10/heldout",
        "efficientnet": "EfficientNet-Lite0 perceptual distance[EfficientNet-Lite0 b1] "
        "6 on cifar10/heldout",
    }
    assert found.title == wanted[kind]
    assert found.protocol.settings
    assert (found.protocol.n_gen, found.protocol.notice) == (6, "n")
    assert math.isnan(metric.floor(DATA))


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("channels", [1, 3])
def test_identical_pairs(kind, channels):
    _, targets = pairs(4, channels=channels)
    perfect = {"psnr": math.inf, "ssim": 1, "reflected": 1, "efficientnet": 0}
    found = record(METRICS[kind](), targets, targets).value
    assert found == pytest.approx(perfect[kind], abs=1e-9)


@pytest.mark.parametrize("kind", METRICS)
def test_ranks_and_batches_do_not_matter(kind):
    images, targets = pairs()
    metric = METRICS[kind]()
    whole = record(metric, images, targets, batch=23)
    first, second, third = (metric.accumulator() for _ in range(3))
    first.update(images[:4], targets[:4])
    first.update(images[4:5], targets[4:5])
    second.update(images[5:], targets[5:])
    third.load(second.state())
    first.merge(third)
    first.merge(metric.accumulator())
    found = first.compute()[0]
    assert found.protocol.n_gen == 23
    assert found.value == pytest.approx(whole.value, rel=1e-6 if kind == "efficientnet" else 1e-12)


def test_lpips_is_the_mean_of_its_distances(tmp_path):
    file = save_backbone(tmp_path / "alex.pth", "alex")
    distance = LPIPS(weights=file, net="alex")
    images, targets = pairs(40)
    metric = PerceptualSimilarity(distance, name="lpips")
    found = record(metric, images, targets, batch=40)
    each = distance(images.float() / 127.5 - 1, targets.float() / 127.5 - 1)
    assert found.value == pytest.approx(float(each.mean()), rel=1e-5)
    assert found.protocol.weights_sha256 == distance.weights_sha256
    assert found.title == "LPIPS (AlexNet)[AlexNet, other weights] 40 on cifar10/heldout"


def test_missing_weights_name_the_key_of_this_metric(tmp_path):
    metric = PerceptualSimilarity(LPIPS(weights=tmp_path / "none.pth"), name="lpips")
    for use in (metric.check, lambda: metric.prepare(DATA)):
        with pytest.raises(UsageError, match=r"none\.pth") as caught:
            use()
        assert caught.value.key == "metric.lpips.distance.weights"


def test_only_lpips_may_be_called_so():
    with pytest.raises(ValueError, match="must not be called LPIPS"):
        PerceptualSimilarity(EfficientNetPerceptual(), name="my_LPIPS")


def test_wrong_use_is_named():
    metric = PSNR(name="psnr")
    with pytest.raises(RuntimeError, match="prepare"):
        metric.accumulator()
    accumulator = prepared(metric).accumulator()
    with pytest.raises(UsageError, match="at least 1 sample"):
        accumulator.compute()
    images, targets = pairs(4)
    with pytest.raises(ValueError, match="uint8"):
        accumulator.update(images.float(), targets)
    with pytest.raises(ValueError, match="one shape"):
        accumulator.update(images, targets[:3])
    with pytest.raises(ValueError, match="11 pixels"):
        prepared(SSIM(name="ssim")).accumulator().update(images[..., :8], targets[..., :8])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", METRICS)
def test_values_on_cuda_equal_those_on_cpu(kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, targets = pairs(8)
    here = record(METRICS[kind](), images, targets).value
    there = record(METRICS[kind](), images.cuda(), targets).value
    assert there == pytest.approx(here, rel=1e-4)
