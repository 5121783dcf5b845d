"""YAML with places: plain data, and for every path in it the line and column where it stands.

Interpolates ``${NAME}`` and ``${NAME:default}`` in values (``$${`` stands for a literal ``${``) and reports
duplicate keys.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import yaml

Path = tuple[str | int, ...]
VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")
INTERPOLATED_DEPTH_MAX = 40


class Place(NamedTuple):
    """Counted from 1, as editors do."""

    line: int
    column: int


class Problem(NamedTuple):
    """One thing that is wrong, and what to write instead."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place.line}:{self.place.column}: {self.message}"


class Document:
    """What a file holds.

    ``raw``: scalars as written, before interpolation; ``missing``: values whose variable is not set.
    """

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.data: object = None
        self.raw: dict[Path, str] = {}
        self.missing: set[Path] = set()
        self._environment = environment
        self._values: dict[Path, Place] = {}
        self._keys: dict[Path, Place] = {}
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as exc:
            self.problems.append(_syntax_problem(exc, text))
            return
        except yaml.YAMLError as exc:
            self.problems.append(Problem(Place(1, 1), f"this is no YAML: {exc}"))
            return
        if node is not None:
            self.data = self._plain(node, ())

    def value_place(self, path: Path) -> Place:
        """Where the value stands, or the nearest thing around it."""
        while path and path not in self._values:
            path = path[:-1]
        return self._values.get(path, Place(1, 1))

    def key_place(self, path: Path) -> Place:
        """Where the key itself stands."""
        return self._keys.get(path) or self.value_place(path)

    def _plain(self, node: yaml.Node, path: Path) -> object:
        self._values[path] = _place(node)
        if len(path) > INTERPOLATED_DEPTH_MAX:
            self.problems.append(Problem(_place(node), "nested too deeply, or an alias that contains itself"))
            return None
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self._plain(child, (*path, index)) for index, child in enumerate(node.value)]
            case yaml.ScalarNode():
                return self._scalar(node, path)
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(_place(key_node), "a key must be a plain word, not a list or mapping"))
                continue
            key = str(key_node.value)
            if key in found:
                first = self._keys[(*path, key)]
                self.problems.append(
                    Problem(
                        _place(key_node),
                        f"key '{key}' is there twice, first on line {first.line}; remove one",
                    )
                )
                continue
            self._keys[(*path, key)] = _place(key_node)
            found[key] = self._plain(value_node, (*path, key))
        return found

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        self.raw[path] = node.value
        text = VARIABLE.sub(lambda match: self._variable(match, node, path), node.value)
        if text == node.value:
            return _resolved(node)
        return _resolved(_plain_scalar(text)) if node.style is None else text

    def _variable(self, match: re.Match[str], node: yaml.ScalarNode, path: Path) -> str:
        name, default = match[1], match[2]
        if name is None:
            return "${"
        value = self._environment.get(name) or default
        if value is None:
            message = f"environment variable {name} is not set; set it or write ${{{name}:default}}"
            self.problems.append(Problem(_place(node), message))
            self.missing.add(path)
            return ""
        return value


def dotted(path: Path) -> str:
    return ".".join(map(str, path)) or "the file"


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    """Where YAML ends, what it belongs to when that began on another line, and the usual cause."""
    mark, begin = error.problem_mark or error.context_mark, error.context_mark
    if mark is None:
        return Problem(Place(1, 1), f"this is no YAML: {error.problem or error.context}")
    message = f"this is no YAML: {error.problem or error.context}"
    if begin is not None and begin.line < mark.line:
        message += f", {error.context} that begins on line {begin.line + 1}"
    line = text.splitlines()[mark.line : mark.line + 1] or [""]
    if line[0][: mark.column].endswith("$"):
        message += '; within { } or [ ] write a variable in quotes: "${NAME}"'
    return Problem(Place(mark.line + 1, mark.column + 1), message)


def without_variables(raw: str) -> str:
    """The text that stands in the file itself: variables are empty, but for their defaults."""
    return VARIABLE.sub(lambda match: match[2] or "", raw)


def _plain_scalar(text: str) -> yaml.ScalarNode:
    """An interpolated value: typed as if it were written out, but its ``[``, ``#`` or ``&`` mean nothing."""
    resolve = yaml.SafeLoader("").resolve
    tag = resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # the stubs leave it untyped
    return yaml.ScalarNode(tag, text)


def _resolved(node: yaml.ScalarNode) -> object:
    """A plain scalar as YAML types it; times stay text."""
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        return node.value
