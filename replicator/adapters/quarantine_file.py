"""Quarantine as files in a directory: one document an event, written whole or not at all."""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from replicator.core.model import LinkName
from replicator.core.quarantine_document import (
    Document,
    Quarantined,
    decode_document,
    decode_mark,
    digest_of,
    document_name,
    encode_document,
    encode_mark,
    is_document,
    mark_name,
)
from replicator.errors import StoreUnavailable
from replicator.ports import Kept

P = ParamSpec("P")
T = TypeVar("T")


class FileQuarantine:
    """Implements `ports.Quarantine` and `ports.QuarantineReader`; a repeated event replaces its own document."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def put(self, event: Quarantined) -> None:
        day = datetime.fromtimestamp(event.at_ms / 1000, UTC).strftime("%Y/%m/%d")
        path = self._link(event.link) / day / document_name(event.origin)
        await self._told(_write, path, encode_document(event))

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

    async def kept(self, link: LinkName, newest: int) -> Kept:
        found = await self._told(_documents, self._link(link), "")
        return Kept(len(found), await self._told(_read, found[:newest]))

    async def find(self, link: LinkName, document_id: str) -> Sequence[Document]:
        return await self._told(_read, await self._told(_documents, self._link(link), document_id))

    async def names(self, link: LinkName) -> Sequence[str]:
        return [str(path) for path in await self._told(_documents, self._link(link), "")]

    async def load(self, name: str) -> Document:
        return await self._told(_decoded, Path(name))

    async def remove(self, name: str) -> None:
        await self._told(_removed, Path(name))

    def _link(self, link: LinkName) -> Path:
        return self._directory / link.replace(":", "@")

    def _marks(self, link: LinkName) -> Path:
        return self._link(link) / "held"

    async def _told(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except OSError as exc:
            raise StoreUnavailable(f"quarantine directory {self._directory}: {exc}; make it writable") from exc


def _listed(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _documents(directory: Path, id_begins: str) -> list[Path]:
    """Newest first."""
    found = [path for path in directory.rglob("*") if is_document(path.name, id_begins)]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _read(paths: Sequence[Path]) -> list[Document]:
    return [_decoded(path) for path in paths]


def _decoded(path: Path) -> Document:
    """Raises StoreUnavailable for a file that is no document."""
    try:
        return decode_document(path.read_bytes())
    except msgspec.DecodeError as exc:
        text = f"quarantine {path} is no document of ours: {exc}; move it elsewhere"
        raise StoreUnavailable(text, code="bad_document") from exc


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, document: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(document)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
