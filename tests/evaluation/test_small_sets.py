"""What is said beside scores on small data sets."""

import pytest

import flowexp
from flowexp.data.image_archive import ImageArchive
from flowexp.evaluation import sample_count
from flowexp.evaluation.small_sets import remarks


@pytest.mark.parametrize(
    ("images", "count"), [(1, 10), (60, 600), (500, 5000), (1797, 5000), (60000, 5000)]
)
def test_the_default_number_of_samples(images, count):
    assert sample_count(images) == count


def test_a_score_of_few_samples_says_what_it_is_worth(trained_run):
    pipe = flowexp.load(trained_run)
    few = flowexp.evaluate(pipe, metric="fd_raw", num_samples=40)
    sentence, in_words = few.words
    assert sentence.startswith("fd_raw has 64 features, and 40 samples do not determine")
    assert sentence in str(few)
    assert "times the floor" in in_words
    assert flowexp.evaluate(pipe, metric="fd_raw", num_samples=65).words[:-1] == ()


class Compared:
    needs_reference, paired, minimum_samples = True, False, 2

    def remark(self, *, count):
        return None


def test_without_held_out_images_it_is_said_how_to_get_a_floor():
    data = ImageArchive(archive="nowhere", resolution=8, name="mine")
    (text,) = remarks([Compared()], dataset=data, heldout=None, count=100)
    assert text.startswith("There is no floor, because mine has no held-out images. Name a ZIP of")
    assert "heldout=0.1" in text
    assert list(remarks([Compared()], dataset=None, heldout=None, count=100)) == []
    few = [0] * 24
    (text,) = remarks([Compared()], dataset=data, heldout=few, count=100)
    assert "num_samples=24" in text
    for enough in ([0], [0] * 25):  # one is none for this metric
        assert list(remarks([Compared()], dataset=data, heldout=enough, count=100)) == []
    assert list(remarks([], dataset=data, heldout=None, count=100)) == []
