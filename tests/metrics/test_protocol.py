import json
import math
from dataclasses import replace

import pytest

from flowexp.metrics import MetricRecord, Protocol, count_label, metric_key
from flowexp.metrics.protocol import (
    INCEPTION_LOGITS,
    INCEPTION_NAME,
    INCEPTION_RESIZE,
    INCEPTION_SPATIAL,
    PIXELS,
    UINT8,
)

EFFLITE = Protocol(
    metric="FD",
    extractor="EfficientNet-Lite0 b4, 64px",
    weights_sha256="5793" * 16,
    resize="torch bicubic antialias to 64",
    quantization=UINT8,
    reference="fashion10k",
    reference_fingerprint="abc",
    reference_split="train",
    n_ref=8000,
    n_gen=5000,
)
FID = replace(
    EFFLITE,
    extractor=INCEPTION_NAME,
    weights_sha256="6726825d" + "0" * 56,
    resize=INCEPTION_RESIZE,
    n_gen=50_000,
    reference="cifar10",
)


@pytest.mark.parametrize(
    ("count", "label"), [(50_000, "50k"), (1000, "1k"), (2500, "2500"), (64, "64"), (0, "0")]
)
def test_counts(count, label):
    assert count_label(count) == label


@pytest.mark.parametrize(
    ("name", "n", "key"),
    [
        ("fid", 50_000, "eval/fid50k"),
        ("fd_efflite0", 5000, "eval/fd_efflite0_5k"),
        ("fd_raw", 300, "eval/fd_raw_300"),
        ("top5", 300, "eval/top5_300"),
    ],
)
def test_keys_carry_the_count(name, n, key):
    assert metric_key(name, n) == key
    assert MetricRecord(name=name, value=1.0, protocol=replace(EFFLITE, n_gen=n)).key == key


def test_titles():
    assert EFFLITE.title == "FD[EfficientNet-Lite0 b4, 64px] 5k on fashion10k"
    assert FID.title == "FID 50k on cifar10"
    assert replace(FID, reference_split="heldout").title == "FID 50k on cifar10/heldout"


@pytest.mark.parametrize(
    "change",
    [
        {"extractor": "torchvision Inception"},
        {"weights_sha256": "1" * 64},
        {"weights_sha256": None},
        {"resize": "torch bilinear to 299"},
        {"metric": "KID"},
    ],
)
def test_only_the_inception_protocol_is_called_fid(change):
    other = replace(FID, **change)
    assert FID.is_fid
    assert not other.is_fid
    assert "FID" not in other.title


@pytest.mark.parametrize(
    ("metric", "extractor", "title"),
    [
        ("FD", INCEPTION_SPATIAL, "sFID 50k on cifar10"),
        ("KID", INCEPTION_NAME, "KID 50k on cifar10"),
        ("IS (10 splits)", INCEPTION_LOGITS, "IS (10 splits) 50k on cifar10"),
        ("KID", "EfficientNet-Lite0 b4, 64px", "KID[EfficientNet-Lite0 b4, 64px] 50k on cifar10"),
        ("IS (10 splits)", "raw values", "IS (10 splits)[raw values] 50k on cifar10"),
        ("precision (k=3)", INCEPTION_NAME, f"precision (k=3)[{INCEPTION_NAME}] 50k on cifar10"),
        ("PSNR (per image)", PIXELS, "PSNR (per image) 50k on cifar10"),
    ],
)
def test_published_names_are_for_the_official_network_alone(metric, extractor, title):
    protocol = replace(FID, metric=metric, extractor=extractor)
    assert protocol.title == title
    other = replace(protocol, weights_sha256="1" * 64)
    assert other.published_name is None
    if extractor != PIXELS:
        assert f"[{extractor}]" in other.title


def test_settings_make_values_incomparable():
    first = replace(FID, metric="KID", settings="100 subsets of 1000, seed 2020")
    second = replace(first, settings="100 subsets of 100, seed 2020")
    assert len(first.differences(second)) == 1
    assert first.differences(second)[0].startswith("settings: 100 subsets of 1000")


def test_records_written_before_settings_existed_are_read():
    content = MetricRecord(name="fid", value=1.0, protocol=FID).to_dict()
    del content["protocol"]["settings"]
    assert MetricRecord.from_dict(content).protocol == FID


def test_differences_name_the_part_and_both_values():
    assert EFFLITE.differences(EFFLITE) == []
    other = replace(EFFLITE, n_gen=2000, ema="raw")
    assert EFFLITE.differences(other) == ["n_gen: 5000 and 2000", "ema: not stated and raw"]


def test_circumstances_differ_only_when_strict():
    other = replace(EFFLITE, sampler="heun", nfe=35, seeds="0-4999", device="cpu", notice="JPEG")
    assert EFFLITE.differences(other) == []
    found = EFFLITE.differences(other, strict=True)
    assert [line.split(":")[0] for line in found] == ["seeds", "sampler", "nfe", "device", "notice"]


def test_records_survive_json():
    record = MetricRecord(name="fd_efflite0", value=1.5, protocol=EFFLITE, extra={"floor": 1.0})
    run = record.with_run(seeds="0-4999", nfe=18.0)
    assert run.protocol.seeds == "0-4999"
    assert record.protocol.seeds is None
    again = MetricRecord.from_dict(json.loads(json.dumps(run.to_dict(), allow_nan=False)))
    assert again == run


def test_a_diverged_value_survives_json():
    record = MetricRecord(name="fd_raw", value=math.nan, protocol=EFFLITE)
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert math.isnan(MetricRecord.from_dict(json.loads(text)).value)


@pytest.mark.parametrize("broken", [{}, {"name": "a", "value": 1.0, "protocol": {"what": 1}}])
def test_foreign_content_is_refused(broken):
    with pytest.raises(ValueError, match="not a metric record"):
        MetricRecord.from_dict(broken)
