"""Seeds as users write them."""

import pytest

from flowexp.errors import UsageError
from flowexp.pipeline import parse_seeds, seeds_text


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("5", [5]),
        (7, [7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-1, 8-9", [0, 1, 8, 9]),
        ("9,2-3", [9, 2, 3]),
        ([3, 1], [3, 1]),
    ],
)
def test_parse(text, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds
    assert parse_seeds(seeds_text(seeds)) == seeds


def test_text_is_the_shortest() -> None:
    assert seeds_text([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-", "-1", "1.5", "0,,1", [], [-1], ["a"], True])
def test_nonsense_names_the_key(text) -> None:
    with pytest.raises(UsageError, match=r"latents: cannot parse .* as seeds\. Write "):
        parse_seeds(text, key="latents")


def test_a_seed_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="names a seed twice"):
        parse_seeds("0-5,3")
