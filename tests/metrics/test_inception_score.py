import pytest
import torch

from flowexp.metrics import inception_score_of_logits, shuffle_order


def test_certain_and_even_classes_score_their_number():
    logits = 1000 * torch.eye(5).repeat(20, 1)
    score = inception_score_of_logits(logits, splits=4)
    assert score.mean == pytest.approx(5.0, rel=1e-12)
    assert score.std == pytest.approx(0.0, abs=1e-12)
    assert score.per_split.shape == (4,)


def test_no_information_scores_one():
    assert inception_score_of_logits(torch.zeros(30, 7), splits=3).mean == pytest.approx(1.0)


def test_an_unreached_class_does_not_give_nan():
    logits = torch.tensor([[1e5, 0.0, -1e5], [0.0, 1e5, -1e5]])
    assert inception_score_of_logits(logits, splits=1).mean == pytest.approx(2.0)


def test_order_moves_samples_between_splits():
    logits = 50 * torch.eye(2)[torch.arange(40) // 20]
    assert inception_score_of_logits(logits, splits=2).mean == pytest.approx(1.0)
    assert inception_score_of_logits(logits, splits=2, order=shuffle_order(40)).mean > 1.5
    assert sorted(shuffle_order(40).tolist()) == list(range(40))


@pytest.mark.parametrize("splits", [0, 31])
def test_impossible_splits(splits):
    with pytest.raises(ValueError, match="splits"):
        inception_score_of_logits(torch.zeros(30, 7), splits=splits)
