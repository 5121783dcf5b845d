"""Reading a configuration: all problems at once, each with its place and what to write instead."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from replicator.config import Config, check_region_name
from replicator.config_secrets import is_secret, literal_secrets
from replicator.config_yaml import Document, Path, Problem
from replicator.core.model import Region
from replicator.core.topology import Topologies, TopologyError
from replicator.errors import ConfigError

FROM_ENVIRONMENT = "env:"


def load(name: str, environment: Mapping[str, str]) -> Config:
    """The configuration in file ``name``, or in the variable that ``env:NAME`` names. Raises ConfigError with all problems."""
    config, problems = check(name, environment)
    if config is None:
        raise ConfigError("\n".join(f"{name}:{problem}" for problem in problems))
    return config


def check(name: str, environment: Mapping[str, str]) -> tuple[Config | None, list[Problem]]:
    """The configuration, or what is wrong with it in order of place. Raises ConfigError when it can't be read at all."""
    document = Document(_text(name, environment), environment)
    problems = list(document.problems)
    config: Config | None = None
    if document.data is not None or not problems:
        problems += literal_secrets(document)
        problems += _region_names(document)
        try:
            config = Config.model_validate(document.data if document.data is not None else {})
        except ValidationError as exc:
            problems += [problem for error in exc.errors() for problem in _of_model(document, error)]
        else:
            problems += _across(document, config)
    problems = sorted(set(problems))
    return (None if problems else config), problems


def _text(name: str, environment: Mapping[str, str]) -> str:
    if name.startswith(FROM_ENVIRONMENT):
        variable = name.removeprefix(FROM_ENVIRONMENT)
        if variable not in environment:
            raise ConfigError(f"environment variable {variable} is not set; it should hold the configuration")
        return environment[variable]
    try:
        return FilePath(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{name}: can't be read: {exc}") from exc


# --- one field -----------------------------------------------------------------------------------------------------


def _of_model(document: Document, error: ErrorDetails) -> Iterator[Problem]:
    path = tuple(part for part in error["loc"] if part != "[key]")
    kind = error["type"]
    name = path[-1] if path else "the file"
    if path in document.missing or (kind == "model_type" and is_secret(path)):
        return  # the missing variable and the secret written out are reported already, and say more
    if kind == "extra_forbidden":
        yield Problem(document.key_place(path), _unknown_key(path))
    elif kind == "missing":
        yield Problem(document.value_place(path[:-1]), f"key '{name}' is missing in {_where(path[:-1])}")
    elif kind == "value_error":
        yield Problem(document.value_place(path), f"{_where(path)}: {error['ctx']['error']}")
    elif kind == "model_type":
        known = ", ".join(sorted(_fields_at(path)))
        yield Problem(document.value_place(path), f"{_where(path)}: expected a mapping with keys of: {known}")
    else:
        is_shown = isinstance(error["input"], str | int | float | bool) and not is_secret(path)
        given = f", not {error['input']!r}" if is_shown else ""
        yield Problem(document.value_place(path), f"{_where(path)}: {error['msg']}{given}")


def _where(path: Path) -> str:
    return ".".join(map(str, path)) or "the file"


def _unknown_key(path: Path) -> str:
    known = _fields_at(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    hint = f", did you mean '{close[0]}'?" if close else f"; known here: {', '.join(sorted(known))}"
    return f"unknown key '{path[-1]}' in {_where(path[:-1])}{hint}"


def _fields_at(path: Path) -> list[str]:
    """The keys that the model at ``path`` knows; none where it is no model."""
    annotation: Any = Config  # walks over annotations, whose types are as various as the fields
    for part in path:
        fields = _fields(annotation)
        if fields:
            annotation = fields.get(str(part))
        else:
            annotation = (get_args(_without_none(annotation)) or (None,))[-1]
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


# --- regions -------------------------------------------------------------------------------------------


def _region_names(document: Document) -> Iterator[Problem]:
    """Every place where a region is named must use the canonical name."""
    for path, value, is_key in _named_regions(document.data, ()):
        try:
            check_region_name(value)
        except ValueError as exc:
            yield Problem(document.key_place(path) if is_key else document.value_place(path), str(exc))


def _named_regions(data: object, path: Path) -> Iterator[tuple[Path, str, bool]]:
    if isinstance(data, dict):
        for key, value in data.items():
            here = (*path, key)
            if path == ("regions",) or (path and path[-1] == "streams"):
                yield here, key, True
            elif key in {"hub", "peer", "from", "to"} and isinstance(value, str):
                yield here, value, False
            elif path and key in {"order", "origins", "regions"} and isinstance(value, list):
                yield from (
                    ((*here, index), name, False) for index, name in enumerate(value) if isinstance(name, str)
                )
            yield from _named_regions(value, here)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _named_regions(value, (*path, index))


# --- across fields -------------------------------------------------------------------------------------------------


def _across(document: Document, config: Config) -> Iterator[Problem]:
    yield from _unknown_names(document, config)
    yield from _duplicate_links(document, config)
    strangers = list(_unknown_regions(document, config))
    yield from strangers
    if strangers:
        return  # a topology over regions that don't exist proves nothing
    try:
        topologies = config.topologies()
    except TopologyError as exc:
        yield Problem(document.value_place(_topology_place(config, str(exc))), f"topology: {exc}")
        return
    if any(topologies.hops_max(number) > 1 for number in topologies.numbers):
        yield from _relays(document, config)
    yield from _idle_overrides(document, config, topologies)


def _topology_place(config: Config, message: str) -> Path:
    """The link that a message about a link names, else the topology as a whole."""
    for index, edge in enumerate(config.topology.links or []):
        twin = any(
            (edge.source, edge.target) == (e.source, e.target) for e in (config.topology.links or [])[:index]
        )
        if f"the link {edge.source} -> {edge.target} " in message and (twin or "twice" not in message):
            return ("topology", "links", index)
    return ("topology", "links") if config.topology.kind == "links" else ("topology",)


def _unknown_names(document: Document, config: Config) -> Iterator[Problem]:
    regions, sinks, sources = config.regions.keys(), config.sinks.keys(), config.sources.keys()
    for name, source in config.sources.items():
        path = ("sources", name, "sink")
        if source.sink not in sinks:
            yield Problem(
                document.value_place(path), f"{_where(path)}: {_unknown(source.sink, 'sink', list(sinks))}"
            )
        for region in source.streams.keys() - regions:
            yield Problem(
                document.key_place(("sources", name, "streams", region)),
                _unknown(region, "region", list(regions)),
            )
    for index, link in enumerate(config.links):
        for field, value, kind, known in (
            ("source", link.source, "source", sources),
            ("peer", link.peer, "region", regions),
            ("from", link.at, "region", regions),
        ):
            if value is not None and value not in known:
                yield Problem(
                    document.value_place(("links", index, field)), _unknown(value, kind, list(known))
                )


def _unknown_regions(document: Document, config: Config) -> Iterator[Problem]:
    """Regions that a topology names, this generation or an older one, and nobody runs."""
    for path, name, is_key in _named_regions(document.data, ()):
        if path[0] == "topology" and not is_key and name not in config.regions:
            yield Problem(document.value_place(path), _unknown(name, "region", config.region_names))


def _unknown(name: str, kind: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"there is no {kind} '{name}'" + (
        f", did you mean '{close[0]}'?" if close else f"; there is: {', '.join(known)}"
    )


def _duplicate_links(document: Document, config: Config) -> Iterator[Problem]:
    seen: dict[tuple[str, str, str | None], int] = {}
    for index, link in enumerate(config.links):
        key = (link.source, link.peer, link.at)
        if key in seen:
            first = document.value_place(("links", seen[key])).line
            yield Problem(
                document.value_place(("links", index)),
                f"link {link.source} -> {link.peer} has settings already on line {first}; merge the two",
            )
        seen.setdefault(key, index)


def _idle_overrides(document: Document, config: Config, topologies: Topologies) -> Iterator[Problem]:
    """Settings for a link that no region has would be obeyed by nobody."""
    for index, link in enumerate(config.links):
        places = [Region(link.at)] if link.at else config.region_names
        if {link.peer, *places} <= config.regions.keys() and not any(
            link.peer in topologies.links_from(here) for here in places
        ):
            senders = [here for here in config.region_names if link.peer in topologies.links_from(here)]
            yield Problem(
                document.value_place(("links", index)),
                f"no link goes from {' or '.join(places)} to {link.peer} in this topology; "
                f"those that do come from: {', '.join(senders)}",
            )


def _relays(document: Document, config: Config) -> Iterator[Problem]:
    """A relay forwards what it reads, so peers must write where it reads."""
    for name, source in config.sources.items():
        for region in config.region_names:
            sink = config.sinks.get(source.sink)
            if sink is not None and sink.stream_in(region) != source.stream_in(region):
                yield Problem(
                    document.value_place(("sources", name, "sink")),
                    f"sources.{name}: this topology relays, but in {region} its sink is stream "
                    f"'{sink.stream_in(region)}' and the relay reads '{source.stream_in(region)}'; make them one",
                )
                break
