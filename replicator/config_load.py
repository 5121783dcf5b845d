"""Reading a configuration: all problems at once, each with its place and what to write instead."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path as FilePath
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from replicator.config import Config
from replicator.config_across import across
from replicator.config_base import IN_WORDS, FieldError
from replicator.config_lake import paused, unwritable
from replicator.config_proof import unproven
from replicator.config_references import references
from replicator.config_regions import misnamed_regions
from replicator.config_secrets import is_secret, literal_secrets, unset_secrets
from replicator.config_sinks import SINK_KINDS
from replicator.config_sources import KINDS
from replicator.config_yaml import Document, Path, Place, Problem, dotted
from replicator.errors import ConfigError

FROM_ENVIRONMENT = "env:"
OF_KINDS: dict[object, Mapping[str, type[BaseModel]]] = {"sources": KINDS, "sinks": SINK_KINDS}
"""Blocks whose entries are of several models."""


def load(name: str, environment: Mapping[str, str]) -> Config:
    """The configuration in file ``name``, or in the variable of ``env:NAME``.

    Raises ConfigError with all problems.
    """
    config, problems = check(name, environment)
    if config is None:
        raise ConfigError("\n".join(f"{name}:{problem}" for problem in problems))
    return config


def check(name: str, environment: Mapping[str, str]) -> tuple[Config | None, list[Problem]]:
    """The configuration, or what is wrong with it in order of place.

    Raises ConfigError when it can't be read at all.
    """
    document = Document(_text(name, environment), environment)
    problems = list(document.problems)
    config: Config | None = None
    if document.data is not None or not problems:
        secrets = list(literal_secrets(document))
        unproven_topologies = unproven(document)
        problems += [*secrets, *misnamed_regions(document), *references(document), *(unproven_topologies or ())]
        try:
            config = Config.model_validate(document.data if document.data is not None else {})
        except ValidationError as exc:
            told = {problem.place for problem in secrets}
            problems += [problem for error in exc.errors() for problem in _of_model(document, error, told)]
        else:
            problems += across(document, config, is_proven=unproven_topologies == [])
    problems = sorted(set(problems))
    assert config is not None or problems, "a configuration that is refused has a problem"
    return (None if problems else config), problems


def warnings(name: str, environment: Mapping[str, str], config: Config | None) -> list[Problem]:
    """What is right, and still may stop a worker (secrets and packages that are not on this machine) or lose events.

    ``config`` is what `check` made of the file. Raises ConfigError.
    """
    document = Document(_text(name, environment), environment)
    idle = [] if config is None else paused(document, config)
    return sorted([*unset_secrets(document, environment), *unwritable(document), *idle])


def _text(name: str, environment: Mapping[str, str]) -> str:
    if name.startswith(FROM_ENVIRONMENT):
        variable = name.removeprefix(FROM_ENVIRONMENT)
        if variable not in environment:
            raise ConfigError(f"environment variable {variable} is not set; it should hold the configuration")
        return environment[variable]
    try:
        return FilePath(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError(f"{name}: can't be read: {why}") from exc


# --- one field ----------------------------------------------------------------------------------------------


def _of_model(document: Document, error: ErrorDetails, told: Collection[Place]) -> Iterator[Problem]:
    """Problems of one field; none where a secret that is written out is ``told`` of."""
    located = tuple(part for part in error["loc"] if part != "[key]")
    path = _without_kind(located)
    kind = error["type"]
    name = path[-1] if path else "the file"
    if path in document.missing or (kind == "model_type" and document.value_place(path) in told):
        return  # the missing variable and the secret written out are reported already, and say more
    if kind == "extra_forbidden":
        yield Problem(document.key_place(path), _unknown_key(path, located))
    elif kind == "missing":
        yield Problem(document.value_place(path[:-1]), f"key '{name}' is missing in {dotted(path[:-1])}")
    elif kind == "value_error":
        cause = error["ctx"]["error"]
        place = document.value_place((*path, cause.field) if isinstance(cause, FieldError) else path)
        yield Problem(place, f"{dotted(path)}: {cause}")
    elif kind == "model_type":
        known = ", ".join(sorted(_fields_at(located)))
        yield Problem(document.value_place(path), f"{dotted(path)}: expected a mapping with keys of: {known}")
    else:
        is_shown = isinstance(error["input"], str | int | float | bool) and not is_secret(path)
        given = f", not {error['input']!r}" if is_shown else ""
        yield Problem(document.value_place(path), f"{dotted(path)}: {_in_words(located, error)}{given}")


def _in_words(located: Path, error: ErrorDetails) -> str:
    """What was expected, where pydantic's own words help nobody."""
    given = error["input"]
    match error["type"]:
        case "string_pattern_mismatch" if "://" in given or given.startswith("arn:"):
            return "write the name alone, no URL or ARN"
        case "string_pattern_mismatch":
            return IN_WORDS.get(error["ctx"]["pattern"], error["msg"])
        case "list_type" if isinstance(given, dict):
            return "expected a list; put [ ] around it, or a dash before it"
        case "unknown_kind" if located[0] == "sources" and given.get("kind") == "eventbridge":
            return f"{error['msg']}; a bus is read from the queue of its rule: kind: sqs, envelope: eventbridge"
        case "unknown_kind":
            close = difflib.get_close_matches(str(given.get("kind")), OF_KINDS[located[0]], n=1, cutoff=0.6)
            return error["msg"] + (f"; did you mean '{close[0]}'?" if close else "")
    return error["msg"]


def _without_kind(located: Path) -> Path:
    """Behind the name of an entry of several models pydantic says which one it took."""
    is_kind = len(located) > 2 and located[2] in OF_KINDS.get(located[0], ())
    return located[:2] + located[3:] if is_kind else located


def _unknown_key(path: Path, located: Path) -> str:
    known = _fields_at(located[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    hint = f", did you mean '{close[0]}'?" if close else f"; known here: {', '.join(sorted(known))}"
    return f"unknown key '{path[-1]}' in {dotted(path[:-1])}{hint}"


def _fields_at(located: Path) -> list[str]:
    """The keys that the model at a place, as pydantic tells it, knows; none where it is no model."""
    annotation: Any = Config  # walks over annotations, whose types are as various as the fields
    for number, part in enumerate(located):
        if number == 2 and located[0] in OF_KINDS:
            annotation = OF_KINDS[located[0]][str(part)]
            continue
        fields = _fields(annotation)
        inner = (get_args(_without_none(annotation)) or (None,))[-1]
        annotation = fields.get(str(part)) if fields else inner
    return list(_fields(annotation))


def _fields(annotation: Any) -> dict[str, Any]:  # as above
    model = _without_none(annotation)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return {}
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _without_none(annotation: Any) -> Any:  # as above
    """``X`` of ``X | None``."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    return next(arg for arg in get_args(annotation) if arg is not NoneType)
