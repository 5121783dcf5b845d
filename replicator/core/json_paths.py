"""Values in JSON by path, found and replaced in the text itself, so that nothing else of it changes.

How it works: paths make a tree of names, and the text is walked along it; what no path leads to is skipped by the
parser of the standard library. A path leads into every element of a list, and to every member of a name where an object
has several. A member or element travels with the white space around it, so putting the parts together again gives the
text that was there.

Why it is safe: names are compared as parsed, however they are spelt. Where a path leads into text, nobody knows what is
inside (compressed, encoded, JSON within JSON), so that is no answer but `Unseen`.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

Leaf = TypeVar("Leaf")
Node: TypeAlias = dict[str, Any]
"""What stands behind a name: another node, or a leaf."""
Found: TypeAlias = Callable[[Leaf, str], str | None]
"""What becomes of a value, given as its JSON: another one, the same, or (None) nothing: the member is removed."""

_NAME = re.compile(r"(?:[^.\\]|\\.)+", re.DOTALL)
_PATH = re.compile(rf"{_NAME.pattern}(?:\.{_NAME.pattern})*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_value = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len, strict=False).raw_decode
"""Of numbers only the end is wanted; making integers of thousands of digits would fail."""


class Unseen(ValueError):
    """What can't be looked into."""


class PathError(ValueError):
    """What is no path, or leads into another one."""


def names_of(path: str) -> tuple[str, ...]:
    r"""``a.b`` as names; ``\.`` is a dot within one, ``\\`` a backslash. Raises PathError."""
    if not _PATH.fullmatch(path):
        raise PathError(f"{path!r} is no path such as detail.customer.email")
    return tuple(_ESCAPED.sub(r"\1", name) for name in _NAME.findall(path))


class Paths(Generic[Leaf]):
    """``leaves`` by path; none is None. ``is_blank`` says of text that there is nothing in it. Raises PathError."""

    def __init__(self, leaves: Mapping[str, Leaf], is_blank: Callable[[str], bool]) -> None:
        self._is_blank = is_blank
        self._tree: Node = {}
        for path, leaf in leaves.items():
            *above, last = names_of(path)
            node = self._tree
            for name in above:
                inner = node.setdefault(name, {})
                if not isinstance(inner, dict):
                    raise PathError(f"{path!r} leads into another path that is there; the shorter one is enough")
                node = inner
            if last in node:
                raise PathError(f"{path!r} is there twice, or another path leads into it; the shorter one is enough")
            node[last] = leaf

    def replaced(self, text: str, found: Found[Leaf]) -> str:
        """``text``, a JSON object, with what ``found`` makes of each value that a path leads to.

        Raises Unseen, ValueError for what is no JSON, and RecursionError.
        """
        start = _after_space(text, 0)
        new, end = _Walk(text, found, self._is_blank).inside(start, self._tree)
        return text[:start] + new + text[end:]


class _Walk(Generic[Leaf]):
    """Its methods return a value's new text, and where the old one ends."""

    def __init__(self, text: str, found: Found[Leaf], is_blank: Callable[[str], bool]) -> None:
        self._text = text
        self._found = found
        self._is_blank = is_blank

    def inside(self, at: int, node: Node) -> tuple[str, int]:
        first = self._text[at : at + 1]
        if first == "{":
            return self._object(at, node)
        if first == "[":
            return self._list(at, node)
        known, end = _value(self._text, at)
        if isinstance(known, str) and not self._is_blank(known):
            raise Unseen("there is text where an object would be")
        return self._text[at:end], end

    def _object(self, at: int, node: Node) -> tuple[str, int]:
        text, parts = self._text, []
        start, begin, at = at, at + 1, _after_space(text, at + 1)
        if text[at : at + 1] == "}":
            return text[start : at + 1], at + 1
        while True:
            name, end = _value(text, at)
            value_at = _after_space(text, _after_space(text, end) + 1)
            new, end = self._member(value_at, node.get(name))
            at = _after_space(text, end)
            if new is not None:
                parts.append(text[begin:value_at] + new + text[end:at])
            if text[at : at + 1] == "}":
                return f"{{{','.join(parts)}}}", at + 1
            begin, at = self._next(at)

    def _list(self, at: int, node: Node) -> tuple[str, int]:
        text, parts = self._text, []
        start, begin, at = at, at + 1, _after_space(text, at + 1)
        if text[at : at + 1] == "]":
            return text[start : at + 1], at + 1
        while True:
            new, end = self.inside(at, node)
            after = _after_space(text, end)
            parts.append(text[begin:at] + new + text[end:after])
            if text[after : after + 1] == "]":
                return f"[{','.join(parts)}]", after + 1
            begin, at = self._next(after)

    def _member(self, at: int, inner: Any) -> tuple[str | None, int]:
        if isinstance(inner, dict):
            return self.inside(at, inner)
        end = _value(self._text, at)[1]
        old = self._text[at:end]
        return (old if inner is None else self._found(inner, old)), end

    def _next(self, at: int) -> tuple[int, int]:
        """Behind a comma: where the next part begins, with its white space and without."""
        if self._text[at : at + 1] != ",":
            raise ValueError(f"this is no JSON: there is no comma at {at}")
        return at + 1, _after_space(self._text, at + 1)


def _after_space(text: str, at: int) -> int:
    if text[at : at + 1] > " ":
        return at
    space = _SPACE.match(text, at)
    assert space is not None, "it matches nothing as well"
    return space.end()
