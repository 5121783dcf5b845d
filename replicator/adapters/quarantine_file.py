"""Quarantine as files in a directory: one document an event, written whole or not at all."""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from replicator.core.model import LinkName
from replicator.core.quarantine_document import (
    decode_mark,
    digest_of,
    document_name,
    encode_document,
    encode_mark,
    mark_name,
)
from replicator.errors import StoreUnavailable
from replicator.ports import Quarantined

P = ParamSpec("P")
T = TypeVar("T")


class FileQuarantine:
    """Implements `ports.Quarantine`; a repeated event replaces its own document."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def put(self, event: Quarantined) -> None:
        day = datetime.fromtimestamp(event.at_ms / 1000, UTC).strftime("%Y/%m/%d")
        path = self._directory / event.link.replace(":", "@") / day / document_name(event.origin)
        await self._told(_write, path, _document(event))

    async def hold(self, link: LinkName, key: str) -> None:
        await self._told(_write, self._marks(link) / mark_name(key), encode_mark(link, key))

    async def held(self, link: LinkName) -> frozenset[str]:
        names = [path.name for path in await self._told(_listed, self._marks(link))]
        return frozenset(digest for name in names if (digest := digest_of(name)) is not None)

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        marks = [path for path in await self._told(_listed, self._marks(link)) if digest_of(path.name) is not None]
        return sorted([decode_mark(await self._told(Path.read_bytes, mark)).partition_key for mark in marks])

    async def release(self, link: LinkName, key: str) -> bool:
        return await self._told(_removed, self._marks(link) / mark_name(key))

    def _marks(self, link: LinkName) -> Path:
        return self._directory / link.replace(":", "@") / "held"

    async def _told(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except OSError as exc:
            raise StoreUnavailable(f"quarantine directory {self._directory}: {exc}; make it writable") from exc


def _listed(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _document(event: Quarantined) -> bytes:
    return encode_document(
        link=event.link,
        reason=event.reason,
        detail=event.detail,
        origin=event.origin,
        partition_key=event.partition_key,
        data=event.data,
        attempts=event.attempts,
        at_ms=event.at_ms,
    )


def _write(path: Path, document: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(document)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
