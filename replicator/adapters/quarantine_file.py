"""Quarantine as files in a directory: one document an event, written whole or not at all."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from replicator.core.quarantine_document import document_name, encode_document
from replicator.errors import StoreUnavailable
from replicator.ports import Quarantined


class FileQuarantine:
    """Implements `ports.Quarantine`; a repeated event replaces its own document."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def put(self, event: Quarantined) -> None:
        day = datetime.fromtimestamp(event.at_ms / 1000, UTC).strftime("%Y/%m/%d")
        path = self._directory / event.link.replace(":", "@") / day / document_name(event.origin)
        try:
            await asyncio.to_thread(_write, path, _document(event))
        except OSError as exc:
            raise StoreUnavailable(f"quarantine directory {self._directory}: {exc}; make it writable") from exc


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
