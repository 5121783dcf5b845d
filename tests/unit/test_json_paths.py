"""Values by path in the text of JSON: found however they are written, and nothing else of the text changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.json_paths import PathError, Paths, Unseen, names_of

MARK = '"-"'
SPACES = st.sampled_from(["", " ", "\n\t"])
NAMES = st.sampled_from(["a", "b", "c", "é", "a.b", '"', "\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)


def marked(text: str, *paths: str, to: str | None = MARK) -> str:
    return Paths(dict.fromkeys(paths, True), lambda text: not text).replaced(text, lambda _, __: to)


def path_of(names: list[str]) -> str:
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """An object, and one of the texts that mean it."""
    value = draw(OBJECTS)
    separators = (draw(SPACES) + "," + draw(SPACES), draw(SPACES) + ":" + draw(SPACES))
    is_ascii, indent = draw(st.booleans()), draw(st.none() | st.just(2))
    text = json.dumps(value, ensure_ascii=is_ascii, separators=separators, indent=indent)
    return value, draw(SPACES) + text + draw(SPACES)


def expected(value: Any, names: tuple[str, ...], *, is_removed: bool) -> Any:
    if isinstance(value, list):
        return [expected(each, names, is_removed=is_removed) for each in value]
    if not isinstance(value, dict) or names[0] not in value:
        return value
    first, *rest = names
    changed = dict(value)
    if rest:
        changed[first] = expected(value[first], tuple(rest), is_removed=is_removed)
    elif is_removed:
        del changed[first]
    else:
        changed[first] = "-"
    return changed


@given(written(), st.lists(NAMES, min_size=1, max_size=3), st.booleans())
def test_a_value_is_replaced_or_removed_and_the_others_stay(
    given_object: tuple[dict[str, Any], str], names: list[str], is_removed: bool
) -> None:
    value, text = given_object
    path = path_of(names)
    new = marked(text, path, to=None if is_removed else MARK)
    assert json.loads(new) == expected(value, tuple(names), is_removed=is_removed)


@given(written(), st.lists(NAMES, min_size=1, max_size=3))
def test_what_is_kept_leaves_the_text_as_it_was(given_object: tuple[dict[str, Any], str], names: list[str]) -> None:
    _, text = given_object
    path = path_of(names)
    assert Paths({path: True}, lambda text: not text).replaced(text, lambda _, value: value) == text


@pytest.mark.parametrize(
    ("text", "paths", "new"),
    [
        ('{"a":1}', ["a"], '{"a":"-"}'),
        ('{ "a" : 1 , "b" : 2 }', ["b"], '{ "a" : 1 , "b" : "-" }'),
        ('{"a":{"b":1,"c":2},"d":3}', ["a.b", "d"], '{"a":{"b":"-","c":2},"d":"-"}'),
        ('{"a":[{"b":1},{"c":2},[{"b":[3]}],4]}', ["a.b"], '{"a":[{"b":"-"},{"c":2},[{"b":"-"}],4]}'),
        ('{"a":1,"a":2}', ["a"], '{"a":"-","a":"-"}'),
        ('{"a":{"b":1},"a":{}}', ["a.b"], '{"a":{"b":"-"},"a":{}}'),
        ('{"\\u0061":"x\\"y"}', ["a"], '{"\\u0061":"-"}'),
        ('{"\\u00e9":1,"é":2}', ["é"], '{"\\u00e9":"-","é":"-"}'),
        ('{"a":null,"b":{}}', ["a.b", "b.c"], '{"a":null,"b":{}}'),
        ('{"a":""}', ["a.b"], '{"a":""}'),
        ('{"a.b":1}', ["a\\.b"], '{"a.b":"-"}'),
        ('{"a\\\\":{"b":1}}', ["a\\\\.b"], '{"a\\\\":{"b":"-"}}'),
        ('{"a":1e999,"b":' + "9" * 5000 + "}", ["a", "b"], '{"a":"-","b":"-"}'),
    ],
)
def test_by_example(text: str, paths: list[str], new: str) -> None:
    assert marked(text, *paths) == new


@pytest.mark.parametrize("text", ['{"a":"{\\"b\\":1}"}', '{"a":"COMPRESSEDH4sI"}', '{"a":[1,"x"]}', '{"b":1,"a":"x"}'])
def test_text_where_an_object_would_be_is_not_looked_into(text: str) -> None:
    with pytest.raises(Unseen):
        marked(text, "a.b")


@pytest.mark.parametrize(
    "text", ["", "[", '{"a"', '{"a":', '{"a":1', '{"a":1 "b":2}', '{"a":[1 2]}', "{,}", '{"a":}', "{a:1}", '{"a":{"b"']
)
def test_what_is_no_json_is_told(text: str) -> None:
    with pytest.raises(ValueError):
        marked(text, "a.b")


def test_what_is_nested_too_deeply_is_told() -> None:
    with pytest.raises(RecursionError):
        marked('{"a":' + "[" * 100_000, "a.b")


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a\\"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        names_of(path)


@pytest.mark.parametrize("paths", [["a", "a.b"], ["a.b", "a"], ["a.b.c", "a.b"]])
def test_a_path_within_another_one_is_refused(paths: list[str]) -> None:
    with pytest.raises(PathError, match="the shorter one is enough"):
        marked("{}", *paths)
