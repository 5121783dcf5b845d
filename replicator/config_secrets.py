"""Secrets: those that stand in the file itself are refused and never repeated in a message; those that are not here."""

import os
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

from replicator.config_yaml import Document, Path, Problem, dotted, without_variables

INSTEAD = "a password must not stand in this file; write 'password: {env: NAME}' or "
KEY_INSTEAD = "a key must not stand in this file; write '{env: NAME}' or '{file: PATH}'"


def literal_secrets(document: Document) -> Iterator[Problem]:
    """Passwords and keys written out. A default in ``${NAME:default}`` is written out as well."""
    for path in _redis_blocks(document.data):
        url = (*path, "url")
        if has_password(without_variables(document.raw.get(url, ""))):
            yield Problem(document.value_place(url), INSTEAD + "'url: ${REDIS_URL}'")
    for path in _references(document.data):
        if _is_written_out(_at(document.data, path)):
            instead = KEY_INSTEAD if path[0] in ("tag_key", "redact_key") else INSTEAD + "'password: {file: PATH}'"
            yield Problem(document.value_place(path), instead)


def unset_secrets(document: Document, environment: Mapping[str, str]) -> Iterator[Problem]:
    """Secrets that are not to be had on this machine. A worker stops for want of its own; a laptop has none."""
    for path in _references(document.data):
        variable, file = (_at(document.data, (*path, field)) for field in ("env", "file"))
        if isinstance(variable, str) and not environment.get(variable):
            yield Problem(
                document.value_place((*path, "env")),
                f"{dotted(path)}: environment variable {variable} is not set here; the worker needs it",
            )
        if isinstance(file, str) and not (os.path.isfile(file) and os.access(file, os.R_OK)):
            yield Problem(
                document.value_place((*path, "file")),
                f"{dotted(path)}: file {file} can't be read here; the worker needs it",
            )


def is_secret(path: Path) -> bool:
    """Whether the value at ``path`` should refer to a secret, and so may be one by mistake."""
    return "password" in path or path[:2] == ("tag_key", "keys") or path[:1] == ("redact_key",)


def has_password(url: str) -> bool:
    """In the address or, as redis-py also takes it, in the query. A broken URL is reported elsewhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.password or parse_qs(parts.query).get("password"))


def _is_written_out(value: object) -> bool:
    return value is not None and not isinstance(value, dict)


def _references(data: object) -> Iterator[Path]:
    """Where a secret is referred to, or should be."""
    yield from ((*path, "password") for path in _redis_blocks(data))
    yield ("redact_key",)
    keys = _at(data, ("tag_key", "keys"))
    yield from (("tag_key", "keys", name) for name in (keys if isinstance(keys, dict) else ()))


def _redis_blocks(data: object) -> Iterator[Path]:
    yield ("redis",)
    regions = _at(data, ("regions",))
    for name in regions if isinstance(regions, dict) else ():
        yield ("regions", name, "redis")


def _at(data: object, path: Path) -> object:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data
