"""What must hold of an event that leaves its region over a link: fields are redacted, and what may not leave stays.

How it works: `redact` says what becomes of the values at some paths. A rule of `residency` speaks of events that were
born in some regions and hold something at one of its paths: those go to no other regions. It looks at what would leave,
so a field that is removed or marked is no longer held; one that is hashed still is.

Why it is safe: only what was looked into leaves. Where a path leads into text (compressed, or JSON within JSON), or the
body stands elsewhere (`core.pointers`), the event does not go. The tag is spliced in before and no path leads there,
so origin, id and path, all that its signature covers, are what they were.
"""

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from msgspec import Struct

from replicator.core.json_paths import Paths, Unseen, names_of
from replicator.core.model import Region
from replicator.core.pointers import POINTER as POINTER_MEMBER
from replicator.core.pointers import pointer_of
from replicator.core.routing import Drop
from replicator.errors import PoisonEvent

How: TypeAlias = Literal["remove", "mark", "hash"]
MARK = "[redacted]"
HASHED = re.compile(r"hmac:[0-9a-f]{32}")
HASH_BYTES = 16
SECRET_BYTES_MIN = 16
UNREDACTABLE, RESIDENCY = "unredactable", "residency"
POINTER = POINTER_MEMBER.encode()
"""How the names of all members begin that say where a body is."""
_MARKED = json.dumps(MARK)
_WITHHELD = Drop(RESIDENCY)


class Residency(Struct, frozen=True):
    """``within``: regions in which the events were born, and which alone may have them; ``*`` stands for anything."""

    within: Sequence[str]
    paths: Sequence[str]
    violation: Literal["quarantine", "drop"] = "quarantine"

    def covers(self, region: Region) -> bool:
        return any(fnmatchcase(region, pattern) for pattern in self.within)


class EgressRules(Struct, frozen=True):
    """Of one link. ``redact``: by path what becomes of a value."""

    redact: Mapping[str, How] = {}
    residency: Sequence[Residency] = ()

    def towards(self, peer: Region) -> "EgressRules":
        """Without the residency that lets everything go there."""
        return EgressRules(self.redact, [rule for rule in self.residency if not rule.covers(peer)])

    def kept_in(self, origin: Region) -> set[str]:
        """Paths at which an event that was born there and leaves holds nothing."""
        return {path for rule in self.residency if rule.covers(origin) for path in rule.paths}

    @property
    def is_idle(self) -> bool:
        return not self.redact and not self.residency


class Egress:
    """``key`` is for hashing; with it the same value is everywhere the same hash, and nobody without it can guess."""

    def __init__(self, rules: EgressRules, key: bytes = b"") -> None:
        """Raises ValueError for what is no path, and for a key that can be guessed."""
        if "hash" in rules.redact.values() and len(key) < SECRET_BYTES_MIN:
            raise ValueError(f"hashing needs a secret of {SECRET_BYTES_MIN} bytes or more: openssl rand -base64 32")
        self._redacted = frozenset(rules.redact)
        self._redact = Paths(rules.redact, _is_blank)
        self._residency = [(rule, Paths(dict.fromkeys(rule.paths, True), _is_blank)) for rule in rules.residency]
        self._key = key
        firsts = {names_of(path)[0] for path in (*rules.redact, *(p for rule in rules.residency for p in rule.paths))}
        self._names = [json.dumps(name, ensure_ascii=False).encode() for name in firsts]

    def leaving(self, data: bytes, origin: Region) -> bytes | Drop:
        """What may leave of an event that was born there; the same object where nothing is to be done.

        Raises PoisonEvent `UNREDACTABLE` or `RESIDENCY`.
        """
        binding = [(rule, paths) for rule, paths in self._residency if rule.covers(origin)]
        if not self._redacted and not binding:
            return data
        # A name is spelt in its own letters, or with a backslash.
        is_plain = b"\\" not in data
        pointer = None if is_plain and POINTER not in data else pointer_of(data)
        if pointer is None and is_plain and not any(name in data for name in self._names):
            return data
        try:
            text = data.decode()
            if pointer is not None and not self._redacted.issubset(pointer.redacted):
                raise Unseen("its body stands in S3")
            new = self._redact.replaced(text, self._replaced) if self._redacted else text
        except (ValueError, RecursionError) as exc:
            raise PoisonEvent(UNREDACTABLE, f"{', '.join(sorted(self._redacted))} may be in it unseen: {exc}") from exc
        for rule, paths in binding:
            if _holds(paths, new) if pointer is None else not set(rule.paths).issubset(pointer.absent):
                if rule.violation == "drop":
                    return _WITHHELD
                where = f"born in {origin}, it may not leave {', '.join(rule.within)}"
                raise PoisonEvent(RESIDENCY, f"{where}: it holds, or may hold, {' or '.join(rule.paths)}")
        return data if new == text else new.encode()

    def _replaced(self, how: How, value: str) -> str | None:
        match how:
            case "remove":
                return None
            case "mark":
                return _MARKED
            case "hash":
                return value if HASHED.fullmatch(value[1:-1]) else self._hashed(value)

    def _hashed(self, value: str) -> str:
        """Text counts as what it says, however it is spelt; everything else as its JSON."""
        told = json.dumps(json.loads(value, strict=False)) if value.startswith('"') else value
        return f'"hmac:{hmac.digest(self._key, told.encode(), "sha256")[:HASH_BYTES].hex()}"'


def _is_blank(text: str) -> bool:
    """Whether there is nothing in it, or nothing any more."""
    return text in ("", MARK) or HASHED.fullmatch(text) is not None


def _holds(paths: Paths[bool], text: str) -> bool:
    values: list[str] = []

    def keep(_: bool, value: str) -> str:
        values.append(value)
        return value

    try:
        paths.replaced(text, keep)
    except (ValueError, RecursionError):
        return True
    return any(value not in ("null", _MARKED) for value in values)
