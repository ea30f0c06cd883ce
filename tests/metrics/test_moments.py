import numpy as np
import pytest
import torch

from flowexp.metrics import FeatureMoments


def features(n, d, *, seed=0, offset=0.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + offset
    return x.to(dtype)


def of(x, batch=None):
    moments = FeatureMoments()
    for part in torch.split(x, batch or len(x)):
        moments.update(part)
    return moments


@pytest.mark.parametrize("batch", [1, 7, 64, 200])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_streaming_equals_numpy_for_every_batch_size(batch, offset):
    x = features(200, 6, offset=offset)
    moments = of(x, batch)
    wide = x.double().numpy()
    np.testing.assert_allclose(moments.mean, wide.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(wide.T), rtol=1e-10, atol=1e-11)
    assert moments.count == 200


def test_merged_ranks_equal_one_stream():
    x = features(301, 5, offset=50.0)
    whole, merged = of(x, 32), FeatureMoments()
    for rank in range(4):
        part = x[rank::4]
        merged.merge(of(part, 10) if len(part) else FeatureMoments())
    merged.merge(FeatureMoments())
    assert merged.count == 301
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-10, atol=1e-10)


def test_merging_leaves_the_other_one_alone():
    a, b = of(features(4, 9)), of(features(3, 9, seed=1))
    before = {key: value.clone() for key, value in b.state().items()}
    a.merge(b)
    a.update(features(5, 9, seed=2))
    torch.testing.assert_close(b.state(), before, rtol=0, atol=0)


def test_features_are_kept_exactly_while_deficient():
    moments = FeatureMoments()
    assert moments.features is None
    moments.update(features(5, 8))
    moments.merge(of(features(3, 8, seed=1)))
    torch.testing.assert_close(
        moments.features, torch.cat([features(5, 8), features(3, 8, seed=1)]).double()
    )
    moments.update(features(1, 8, seed=2))
    assert moments.features is None
    moments.update(features(1, 8, seed=3))
    assert moments.features is None


@pytest.mark.parametrize("n", [0, 4, 30])
def test_state_round_trip(n):
    moments = of(features(n, 7)) if n else FeatureMoments()
    again = FeatureMoments.from_state(moments.state())
    assert again.count == n
    for both in (moments, again):
        both.update(features(4, 7, seed=5))
    torch.testing.assert_close(again.state(), moments.state(), rtol=0, atol=0)


def test_refusals():
    with pytest.raises(ValueError, match="at least 2"):
        _ = of(features(1, 3)).covariance
    with pytest.raises(ValueError, match="no sample"):
        _ = FeatureMoments().mean
    with pytest.raises(ValueError, match=r"\(B, d\)"):
        FeatureMoments().update(torch.zeros(3))
    moments = of(features(4, 3))
    with pytest.raises(ValueError, match="do not match"):
        moments.update(torch.zeros(2, 4))
