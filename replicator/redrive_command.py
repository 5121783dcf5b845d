"""``replicator quarantine redrive``: what is in quarantine goes over its link again."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct
from msgspec.structs import astuple

from replicator.aws.session import AwsSession
from replicator.bootstrap import Redrive, redrive_service
from replicator.bootstrap_quarantine import bring_named, open_quarantine
from replicator.config import Config
from replicator.core.model import LinkName, Region, SourceName, parse_origin
from replicator.core.quarantine_document import Document
from replicator.errors import ConfigError, StoreUnavailable
from replicator.ports import QuarantineReader
from replicator.worker.redrive import RedriveSource, Stays, redrive_name
from replicator.worker.service import Service

POLL_S = 0.2


class Choice(Struct, frozen=True):
    """Which documents of a link: all, or those that match everything that is given."""

    document_id: str = ""
    reason: str | None = None
    key: str | None = None

    def takes(self, document: Document) -> bool:
        return (
            document.id.startswith(self.document_id)
            and self.reason in (None, document.reason)
            and self.key in (None, document.partition_key)
        )


class Redriven(Struct, frozen=True):
    """``chosen`` documents, of which ``removed`` are gone: sent, or known to be there.

    ``stays``: still poison, by reason. ``looked_at``: what the link has, as long as nothing of it was chosen.
    """

    chosen: int
    removed: int
    stays: Counter[str]
    looked_at: int = 0


async def redrive(
    config: Config, region: Region, link: LinkName, choice: Choice, say: Callable[[str], None], *, is_dry: bool
) -> Redriven:
    """Returns when every chosen document is removed or stays. Raises ConfigError."""
    source, peer = ends(config, region, link)
    looked_at = 0

    def takes(document: Document) -> bool:
        nonlocal looked_at
        looked_at += 1
        return choice.takes(document)

    async with AwsSession() as aws, open_quarantine(config, region, aws) as quarantine:
        try:
            queued = await bring_named(quarantine, link, takes, is_dry=is_dry)
            names = await _chosen(quarantine, link, takes)
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc
        if is_dry or not names:
            return Redriven(len(names) + (queued if is_dry else 0), 0, Counter(), looked_at)
        stays = Stays()
        documents = RedriveSource(quarantine, names, stays)
        async with redrive_service(
            config, region, Redrive(source, peer, redrive_name(link), documents, stays)
        ) as service:
            await until_over(service, documents, link, say)
    return Redriven(len(names), documents.removed, stays.reasons)


def ends(config: Config, region: Region, link: LinkName) -> tuple[SourceName, Region]:
    """Source and peer. Raises ConfigError when nothing can be sent over the link."""
    links = config.links_of(region)
    if link not in links:
        raise ConfigError(f"there is no link {link} in {region}, only {', '.join(links)}")
    source, peer = links[link]
    if config.link(source, region, peer).paused:
        raise ConfigError(f"{link} is paused in {region}: nothing can be sent over it")
    return source, peer


async def _chosen(quarantine: QuarantineReader, link: LinkName, takes: Callable[[Document], bool]) -> list[str]:
    """Names in source order. Reads every document once; no more than one is in memory."""
    found = []
    for name in await quarantine.names(link):
        document = await quarantine.load(name)
        try:
            origin = parse_origin(document.origin)
        except ValueError as exc:
            raise ConfigError(f"document {name} has no origin that can be read: {document.origin!r}") from exc
        if takes(document):
            # By region, source, incarnation and shard, then as they stood there.
            found.append((astuple(origin), name))
    return [name for _, name in sorted(found)]


class Course(Protocol):
    """How far something has come, in words behind what the service is doing, and whether it is at its end."""

    @property
    def progress(self) -> str: ...

    @property
    def is_over(self) -> bool: ...


async def until_over(service: Service, course: Course, link: LinkName, say: Callable[[str], None]) -> None:
    """Run the service until everything is done; say what it is doing when that changes, and where it was stopped."""
    running = asyncio.create_task(service.run())
    said, has_led = "", False
    try:
        while not course.is_over:
            if running.done():
                running.result()
            await asyncio.sleep(POLL_S)
            state = _waiting(service, has_led=has_led)
            if state == "":
                has_led = True
                state = _state(service, link) + course.progress
            if state != said:
                say(state)
                said = state
        await service.drain()
        await running
    except asyncio.CancelledError:
        say(f"stopped{course.progress}")
        raise
    finally:
        running.cancel()
        await asyncio.wait((running,))


def _waiting(service: Service, *, has_led: bool) -> str:
    """In a line, what it waits for; "" when it works. ``has_led``: it has worked before."""
    if reasons := service.ready():
        return "; ".join(reasons)
    if service.status()["leases"]:
        return ""
    if has_led:
        return "what is left is done, or with another one of this link"
    return "waits for the lease: another one of this link is under way, or died a moment ago"


def _state(service: Service, link: LinkName) -> str:
    """In a line, what it is doing."""
    links = service.status()["links"]
    assert isinstance(links, dict)
    found = links[link]
    return f"{found['state']}: {found['last_error']}" if found["last_error"] else str(found["state"])
