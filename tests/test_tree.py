import pytest

from flowexp.tree import leaves, select, without

TREE = {"a": {"b": 1, "c": {}, "d": [{"b": 2}]}, "b": None}


def test_leaves_have_dotted_keys_and_lists_are_whole():
    assert list(leaves(TREE)) == [("a.b", 1), ("a.c", {}), ("a.d", [{"b": 2}]), ("b", None)]


@pytest.mark.parametrize(
    ("key", "value"), [("a.b", 1), ("a.c", {}), ("a.x", None), ("a.b.c", None), ("b", None)]
)
def test_select_gives_none_where_there_is_nothing(key, value):
    assert select(TREE, key) == value


def test_without_removes_dotted_keys_and_nothing_of_the_same_name_elsewhere():
    assert without(TREE, {"a.b", "a.c"}) == {"a": {"d": [{"b": 2}]}, "b": None}
    assert without(TREE, {"b"}) == {"a": TREE["a"]}
