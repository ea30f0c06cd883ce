"""Stored configs are read as plain values, whatever somebody has written into them."""

import pytest

from flowexp.config.stored import read_stored
from flowexp.errors import UsageError
from flowexp.runs.run_directory import RunDirectory

LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "refers to a part of itself"),
        ("a: &a {b: *a}", "refers to a part of itself"),
        ("a: {x: &x 1}\nb: {<<: *x}", "refers to a part of itself"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: 2024-13-45", "month must be in"),
        ("a: " + "[" * 5000 + "]" * 5000, "recursion"),
        ("a: {", "expected"),
        ("", "holds a NoneType, not a dict"),
        ("- 1", "holds a list, not a dict"),
        ("a: \xff", "utf-8"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_values_is_refused_at_once(text, why, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=why) as caught:
        read_stored(file, key="pairs")
    assert caught.value.key == "pairs"
    with pytest.raises(UsageError, match=why):
        RunDirectory(tmp_path).config()


def test_values_are_as_they_were_written(tmp_path):
    (tmp_path / "config.yaml").write_text("a: {b: [1, 2.5, null, .inf], c: '*x'}")
    expected = {"a": {"b": [1, 2.5, None, float("inf")], "c": "*x"}}
    assert read_stored(tmp_path / "config.yaml") == expected
    (tmp_path / "overrides.yaml").write_text("[a=1, 2]")
    assert RunDirectory(tmp_path).overrides() == ["a=1", "2"]
