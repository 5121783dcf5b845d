"""``replicator quarantine list | show | held | release``: what is put away, and letting held keys go."""

from replicator.aws.session import AwsSession
from replicator.bootstrap_quarantine import open_quarantine
from replicator.config import Config
from replicator.core.model import LinkName, Region
from replicator.core.quarantine_document import Document
from replicator.errors import ConfigError, StoreUnavailable
from replicator.ports import Kept

SEVERAL_SHOWN = 5


async def held(config: Config, region: Region) -> dict[LinkName, list[str]]:
    """The held keys by link of one region. Raises ConfigError, also when the quarantine does not answer."""
    async with AwsSession() as aws, open_quarantine(config, region, aws) as quarantine:
        try:
            return {link: list(await quarantine.held_keys(link)) for link in _links(config, region)}
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc


async def release(config: Config, region: Region, link: LinkName, key: str) -> bool:
    """Whether the key was held. Workers let its events through within half a minute. Raises ConfigError."""
    _checked(config, region, link)
    async with AwsSession() as aws, open_quarantine(config, region, aws) as quarantine:
        try:
            return await quarantine.release(link, key)
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc


async def kept(config: Config, region: Region, link: LinkName | None, newest: int) -> dict[LinkName, Kept]:
    """What is in quarantine, by link (one, or all of the region). Raises ConfigError."""
    links = _links(config, region) if link is None else [_checked(config, region, link)]
    async with AwsSession() as aws, open_quarantine(config, region, aws) as quarantine:
        try:
            return {name: await quarantine.kept(name, newest) for name in links}
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc


async def find(config: Config, region: Region, link: LinkName | None, document_id: str) -> Document:
    """The one document, of the link or of all, whose id begins so. Raises ConfigError when it is none, or several.

    Events that are no events for any link have one document on each, all of one id.
    """
    links = _links(config, region) if link is None else [_checked(config, region, link)]
    async with AwsSession() as aws, open_quarantine(config, region, aws) as quarantine:
        try:
            found = [document for name in links for document in await quarantine.find(name, document_id)]
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc
    if not found:
        where = region if link is None else f"{link} in {region}"
        raise ConfigError(f"no document in quarantine of {where} has an id that begins with {document_id!r}")
    if len(found) > 1:
        several = ", ".join(f"{document.id} ({document.link})" for document in found[:SEVERAL_SHOWN])
        choose = "give more of the id" if len({document.id for document in found}) > 1 else "choose one by --link"
        raise ConfigError(f"{len(found)} documents have an id that begins with {document_id!r}; {choose}: {several}")
    return found[0]


def _checked(config: Config, region: Region, link: LinkName) -> LinkName:
    if link not in _links(config, region):
        raise ConfigError(f"there is no link {link} in {region}, only {', '.join(_links(config, region))}")
    return link


def _links(config: Config, region: Region) -> list[LinkName]:
    return list(config.links_of(region))
