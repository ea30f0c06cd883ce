"""Trainer settings: what is refused, and how lengths become steps."""

import pytest

from flowexp.training import TrainerSettings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_kimg", 0),
        ("batch_size", 0),
        ("micro_batch", 0),
        ("precision", "half"),
        ("grad_clip", -1.0),
        ("num_nodes", 0),
        ("log_every", 0),
        ("checkpoint_kimg", 0.0),
        ("keep_checkpoints", -1),
    ],
)
def test_a_wrong_value_is_named_with_its_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.{key} is {value!r}; allowed: "):
        TrainerSettings(**({"max_kimg": 1, "batch_size": 8} | {key: value}))


@pytest.mark.parametrize(
    ("max_kimg", "batch_size", "steps"),
    [(1, 100, 10), (1, 128, 8), (0.3, 100, 3), (0.001, 128, 1), (200_000, 512, 390_625)],
)
def test_steps_show_at_least_the_images(max_kimg: float, batch_size: int, steps: int) -> None:
    assert TrainerSettings(max_kimg=max_kimg, batch_size=batch_size).total_steps == steps
