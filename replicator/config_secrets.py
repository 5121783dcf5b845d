"""Secrets that stand in the file itself: found and refused, and never repeated in a message."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from replicator.config_yaml import Document, Path, Problem, without_variables

INSTEAD = "a password must not stand in this file; write 'password: {env: NAME}' or "
KEY_INSTEAD = "a key must not stand in this file; write '{env: NAME}' or '{file: PATH}'"


def literal_secrets(document: Document) -> Iterator[Problem]:
    """Passwords and tag keys written out. A default in ``${NAME:default}`` is written out as well."""
    for path in _redis_blocks(document.data):
        url, password = (*path, "url"), (*path, "password")
        if has_password(without_variables(document.raw.get(url, ""))):
            yield Problem(document.value_place(url), INSTEAD + "'url: ${REDIS_URL}'")
        if _is_written_out(_at(document.data, password)):
            yield Problem(document.value_place(password), INSTEAD + "'password: {file: PATH}'")
    keys = _at(document.data, ("tag_key", "keys"))
    for name, key in keys.items() if isinstance(keys, dict) else ():
        if _is_written_out(key):
            yield Problem(document.value_place(("tag_key", "keys", name)), KEY_INSTEAD)


def is_secret(path: Path) -> bool:
    """Whether the value at ``path`` should refer to a secret, and so may be one by mistake."""
    return "password" in path or path[:2] == ("tag_key", "keys")


def has_password(url: str) -> bool:
    """In the address or, as redis-py also takes it, in the query. A broken URL is reported elsewhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.password or parse_qs(parts.query).get("password"))


def _is_written_out(value: object) -> bool:
    return value is not None and not isinstance(value, dict)


def _redis_blocks(data: object) -> Iterator[Path]:
    yield ("redis",)
    regions = _at(data, ("regions",))
    for name in regions if isinstance(regions, dict) else ():
        yield ("regions", name, "redis")


def _at(data: object, path: Path) -> object:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data
