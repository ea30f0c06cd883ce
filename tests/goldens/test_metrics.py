"""flowexp.metrics against the numbers of the reference packages."""

import hashlib
import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.metrics import (
    EfficientNetLite0,
    FeatureMoments,
    FrechetReference,
    GaussianKernel,
    density_coverage,
    frechet_distance,
    frechet_distance_from_moments,
    improved_precision_recall,
    inception_score,
    kernel_distance,
    mmd2_unbiased,
    psnr,
    psnr_pooled,
    shuffle_order,
    ssim_interior,
    ssim_reflected,
    ssim_uniform,
    subset_draws,
)
from flowexp.metrics.resize import (
    pil_bicubic,
    tf1_bilinear,
    torch_bilinear,
    torch_bilinear_antialias,
)
from tests.goldens.harness import dispatch, parametrize

PICTURES = Path(__file__).parent / "data" / "metrics" / "pictures"


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def tensor(array):
    return torch.from_numpy(np.array(array))


def streamed(features, batch=37):
    moments = FeatureMoments()
    for start in range(0, len(features), batch):
        moments.update(features[start : start + batch])
    return moments


def deficient(case, golden):
    """README: rank deficient, where moments alone are good to 1e-6."""
    d = len(golden["mu_a"])
    few = "feats_a" in golden and min(len(golden["feats_a"]), len(golden["feats_b"])) <= d
    rank = re.search(r"rank(\d+)", case.stem)
    low_rank = rank is not None and int(rank[1]) < d
    return few or low_rank or "deadunits" in case.stem or "closedform" in case.stem


def check_frechet(case):
    golden = load(case)
    exact = float(golden["fd_exact"])
    moments = [tensor(golden[key]) for key in ("mu_a", "sigma_a", "mu_b", "sigma_b")]
    rtol = 1e-6 if deficient(case, golden) else 1e-9
    atol = 1e-9
    if "_ill_" in case.stem:
        rtol = 1e-7
    if "_same_" in case.stem:
        atol = 1e-6
    assert frechet_distance_from_moments(*moments) == pytest.approx(exact, rel=rtol, abs=atol)
    if "feats_a" not in golden:
        return
    a, b = tensor(golden["feats_a"]), tensor(golden["feats_b"])
    atol = 1e-10 if "_same_" in case.stem else 1e-9
    tight = 1e-7 if "_ill_" in case.stem else 1e-9
    assert frechet_distance(a, b) == pytest.approx(exact, rel=tight, abs=atol)

    ours, reference = streamed(a), streamed(b)
    np.testing.assert_allclose(ours.mean, golden["mu_a"], rtol=1e-12, atol=1e-13)
    scale = np.abs(golden["sigma_a"]).max()
    np.testing.assert_allclose(ours.covariance, golden["sigma_a"], rtol=1e-9, atol=1e-12 * scale)
    from_stream = FrechetReference.from_moments(reference.mean, reference.covariance)
    value = from_stream.distance_to_moments(ours.mean, ours.covariance)
    stream_atol = 1e-6 if "_same_" in case.stem else 1e-9
    assert value == pytest.approx(exact, rel=rtol, abs=stream_atol)


def check_kid(case):
    golden = load(case)
    a, b = tensor(golden["feats_a"]), tensor(golden["feats_b"])
    draws = subset_draws(
        len(a),
        len(b),
        subsets=int(golden["subsets"]),
        subset_size=int(golden["subset_size"]),
        seed=int(golden["rng_seed"]),
    )
    np.testing.assert_array_equal(draws[0], golden["idx_a"])
    np.testing.assert_array_equal(draws[1], golden["idx_b"])
    kid = kernel_distance(a, b, draws=(tensor(golden["idx_a"]), tensor(golden["idx_b"])))
    np.testing.assert_allclose(kid, golden["per_subset"], rtol=1e-9, atol=1e-14)
    mean, std = float(kid.mean()), float(kid.std(correction=0))
    assert mean == pytest.approx(float(golden["kid_mean"]), rel=1e-9)
    assert std == pytest.approx(float(golden["kid_std"]), rel=1e-9)
    assert mean == pytest.approx(float(golden["kid_mean_f32"]), rel=1e-4, abs=1e-6)
    assert std == pytest.approx(float(golden["kid_std_f32"]), rel=1e-4, abs=1e-6)
    rbf = kernel_distance(a, b, draws=draws, kernel=GaussianKernel(sigma=10.0))
    assert float(rbf.mean()) == pytest.approx(float(golden["rbf_mean"]), rel=1e-9)
    assert float(rbf.std(correction=0)) == pytest.approx(float(golden["rbf_std"]), rel=1e-9)
    full = mmd2_unbiased(a, b, chunk=101)
    assert full == pytest.approx(float(golden["mmd2_full_unbiased"]), rel=1e-9)


def check_isc(case):
    golden = load(case)
    logits = tensor(golden["logits"])
    order = shuffle_order(len(logits), seed=2020)
    np.testing.assert_array_equal(order, golden["permutation2020"])
    orders = {"shuffled2020": order, "inorder": None}
    found = [re.fullmatch(r"is_mean_splits(\d+)_(\w+)", key) for key in golden]
    checked = 0
    for match in filter(None, found):
        splits, mode = int(match[1]), match[2]
        scores = inception_score(logits, splits=splits, order=orders[mode])
        assert float(scores.mean()) == pytest.approx(float(golden[match[0]]), rel=1e-10)
        std = float(golden[f"is_std_splits{splits}_{mode}"])
        assert float(scores.std(correction=0)) == pytest.approx(std, rel=1e-10, abs=1e-12)
        checked += 1
    assert checked


def check_prc(case):
    golden = load(case)
    generated, real = tensor(golden["feats_generated"]), tensor(golden["feats_real"])
    ks = sorted(int(key.removeprefix("precision_k")) for key in golden if key.startswith("precis"))
    assert ks
    for k in ks:
        opened = density_coverage(generated, real, k=k)
        ours = {
            **improved_precision_recall(generated, real, k=k),
            **{f"prdc_{name}": value for name, value in opened.items()},
        }
        assert len(ours) == 7
        theirs = {name: float(golden[f"{name}_k{k}"]) for name in ours}
        assert ours == pytest.approx(theirs, abs=1e-6)


def check_resize(case):
    golden = load(case)
    image = tensor(golden["image_u8"])[None]
    size = tuple(int(n) for n in re.search(r"_to_(\d+)x(\d+)$", case.stem).groups())
    stride = int(golden.get("row_col_stride", 1))
    ways = {
        "tf1_bilinear": (tf1_bilinear, 2e-3),
        "torch_bilinear": (torch_bilinear, 1e-3),
        "torch_bilinear_antialias": (torch_bilinear_antialias, 1e-3),
        "cleanfid_pil_bicubic": (pil_bicubic, 1e-3),
    }
    for name, (resize, atol) in ways.items():
        result = resize(image, size)
        assert result.shape[-2:] == size
        assert result.dtype == torch.float32
        shown = result[0, :, ::stride, ::stride]
        np.testing.assert_allclose(shown, golden[name], rtol=0, atol=atol, err_msg=name)


def check_psnr_ssim(case):
    golden = load(case)
    target, pred = tensor(golden["target_u8"]), tensor(golden["pred_u8"])
    unit = pred.double() / 255, target.double() / 255
    centred = pred.double() / 127.5 - 1, target.double() / 127.5 - 1
    each = psnr(*unit, data_range=1.0)
    np.testing.assert_allclose(each, golden["psnr_each_range1"], rtol=2e-6)
    np.testing.assert_allclose(
        psnr(pred, target, data_range=255.0), golden["psnr_skimage_each"], rtol=2e-6
    )
    pooled = psnr_pooled(*unit, data_range=1.0)
    assert pooled == pytest.approx(float(golden["psnr_batch_pooled_mse"]), rel=2e-6)
    two = psnr_pooled(*centred, data_range=2.0)
    assert two == pytest.approx(float(golden["psnr_m11_range2"]), rel=2e-6)
    ways = {
        "ssim_torchmetrics_each": ssim_reflected,
        "ssim_skimage_wang_each": ssim_interior,
        "ssim_skimage_default_each": ssim_uniform,
    }
    for name, ssim in ways.items():
        similarity = ssim(pred, target, data_range=255.0)
        np.testing.assert_allclose(similarity, golden[name], rtol=1e-5, err_msg=name)


@cache
def head_features(size):
    return EfficientNetLite0(block=None, size=size)


def logits_of(extractor, features):
    return extractor.network.classifier(features)


def check_effnet_cifar(case):
    golden = load(case)
    images = tensor(golden["images_u8"])
    sizes = sorted(int(key.removeprefix("features_")) for key in golden if key.startswith("feat"))
    assert sizes
    for size in sizes:
        extractor = head_features(size)
        features = extractor(images)
        np.testing.assert_allclose(features, golden[f"features_{size}"], rtol=0, atol=1e-3)
        logits = logits_of(extractor, features)
        index = tensor(golden[f"logits_top5_idx_{size}"])
        np.testing.assert_array_equal(logits.argmax(1), index[:, 0])
        wanted = golden[f"logits_top5_val_{size}"]
        np.testing.assert_allclose(logits.gather(1, index), wanted, rtol=0, atol=1e-3)


def picture_file(name, sha256):
    """The scikit-image picture of that name and content, kept here or in an installed skimage."""
    folders = [PICTURES]
    spec = importlib.util.find_spec("skimage")
    if spec is not None:
        folders.append(Path(spec.origin).parent / "data")
    for folder in folders:
        for file in folder.glob(f"{name}.*"):
            if hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
                return file
    pytest.fail(f"the picture {name} ({sha256[:12]}) is in none of {folders}")


def centre_crop_224(file):
    picture = Image.open(file).convert("RGB")
    width, height = picture.size
    side = int(0.875 * min(width, height))
    left, top = (width - side) // 2, (height - side) // 2
    cropped = picture.crop((left, top, left + side, top + side))
    return tensor(cropped.resize((224, 224), Image.Resampling.BICUBIC)).permute(2, 0, 1)[None]


def check_effnet_photos(case):
    golden = load(case)
    names = [key.removesuffix("_file_sha256") for key in golden if key.endswith("_file_sha256")]
    assert names
    extractor = head_features(None)
    for name in names:
        file = picture_file(name, str(golden[f"{name}_file_sha256"]))
        features = extractor(centre_crop_224(file))
        np.testing.assert_allclose(features[0], golden[f"{name}_features"], rtol=0, atol=1e-3)
        probability = logits_of(extractor, features)[0].softmax(0)
        index = tensor(golden[f"{name}_top5_idx"])
        assert int(probability.argmax()) == int(index[0])
        np.testing.assert_allclose(
            probability[index], golden[f"{name}_top5_prob"], rtol=0, atol=1e-3
        )


CHECKS = {
    "frechet_": check_frechet,
    "kid_": check_kid,
    "isc_": check_isc,
    "prc_": check_prc,
    "resize_": check_resize,
    "psnr_ssim": check_psnr_ssim,
    "effnet_lite0_cifar": check_effnet_cifar,
    "effnet_lite0_photos224": check_effnet_photos,
}


@parametrize("metrics")
def test_golden(case):
    dispatch(case, CHECKS)
