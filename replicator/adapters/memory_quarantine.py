"""Quarantine in memory, for simulation and tests."""

from collections.abc import Sequence

from replicator.core.model import LinkName, Origin
from replicator.core.quarantine_document import (
    Document,
    Quarantined,
    decode_document,
    document_id,
    encode_document,
    key_digest,
)
from replicator.ports import Kept


class MemoryQuarantine:
    """Implements `ports.Quarantine` and `ports.QuarantineReader`."""

    def __init__(self) -> None:
        self.events: dict[tuple[LinkName, Origin], Quarantined] = {}
        self.marks: dict[tuple[LinkName, str], str] = {}
        """Keys by link and digest."""

    async def put(self, event: Quarantined) -> None:
        self.events[(event.link, event.origin)] = event

    async def hold(self, link: LinkName, key: str) -> None:
        self.marks[(link, key_digest(key))] = key

    async def held(self, link: LinkName) -> frozenset[str]:
        return frozenset(digest for of, digest in self.marks if of == link)

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        return sorted(key for (of, _), key in self.marks.items() if of == link)

    async def release(self, link: LinkName, key: str) -> bool:
        return self.marks.pop((link, key_digest(key)), None) is not None

    async def kept(self, link: LinkName, newest: int) -> Kept:
        documents = sorted(self._documents(link), key=lambda document: document.at_ms, reverse=True)
        return Kept(len(documents), documents[:newest])

    async def find(self, link: LinkName, document_id: str) -> Sequence[Document]:
        return [document for document in self._documents(link) if document.id.startswith(document_id)]

    async def names(self, link: LinkName) -> Sequence[str]:
        return [f"{link} {document.id}" for document in self._documents(link)]

    async def load(self, name: str) -> Document:
        link, _, wanted = name.partition(" ")
        [document] = await self.find(LinkName(link), wanted)
        return document

    async def remove(self, name: str) -> None:
        link, _, wanted = name.partition(" ")
        self.events = {
            (of, origin): event
            for (of, origin), event in self.events.items()
            if of != link or document_id(origin.key) != wanted
        }

    def _documents(self, link: LinkName) -> list[Document]:
        return [decode_document(encode_document(event)) for (of, _), event in self.events.items() if of == link]
