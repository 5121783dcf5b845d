"""The composition root's part for what may leave over a link."""

import os

from replicator.config import Config, LinkDefaults
from replicator.core.egress import Egress
from replicator.core.model import Region
from replicator.errors import ConfigError


def egress_of(config: Config, chosen: LinkDefaults, peer: Region) -> Egress | None:
    """The rules with their secret; None where everything leaves as it is. Raises ConfigError."""
    rules = chosen.egress.towards(peer)
    if rules.is_idle:
        return None
    key = config.redact_key if "hash" in rules.redact.values() else None
    try:
        return Egress(rules, b"" if key is None else key.resolve(os.environ))
    except ValueError as exc:
        raise ConfigError(f"redact_key: {exc}") from exc
