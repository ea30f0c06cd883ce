import pytest
import torch

from flowexp.samplers import StackedGenerators


def test_a_samples_draws_do_not_depend_on_its_batch():
    together, alone = StackedGenerators([5, 6, 7]), StackedGenerators([6])
    assert torch.equal(together.normal((2, 3))[1:2], alone.normal((2, 3)))
    assert torch.equal(together.integers(10)[1:2], alone.integers(10))
    like = torch.zeros(3, 2, dtype=torch.float64)
    assert torch.equal(together(0, like)[1:2], alone(0, like[1:2]))


def test_seeds_are_taken_modulo_two_to_the_32():
    assert torch.equal(
        StackedGenerators([2**32 + 9]).normal((4,)), StackedGenerators([9]).normal((4,))
    )


def test_wrong_number_of_rows():
    with pytest.raises(ValueError, match="3 rows, but there are 2 seeds"):
        StackedGenerators([0, 1])(0, torch.zeros(3, 2))
