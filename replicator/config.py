"""The configuration as models: one file for all regions, every field with its bounds.

Values stand here after interpolation; secrets never do, only where to find them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from replicator.config_base import TABLE_NAME, BucketName, FieldError, Model, Name, QueueName, RegionName
from replicator.config_egress import Redacted, ResidencyConfig
from replicator.config_sinks import SinkConfig
from replicator.config_sources import KinesisSourceConfig, SourceConfig
from replicator.config_topology import TopologyConfig
from replicator.core.egress import EgressRules
from replicator.core.filters import FilterRules
from replicator.core.lake import LAKE
from replicator.core.model import LinkName, Region, SourceName
from replicator.core.patterns import PatternError, compiled
from replicator.core.queue_messages import MESSAGE_BYTES_MAX
from replicator.core.topology import Topologies
from replicator.errors import ConfigError


class SecretRef(Model):
    """Where a secret is: an environment variable or a file; never the secret itself."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give exactly one of 'env' (a variable's name) and 'file' (a path)")
        return self

    def resolve(self, environment: Mapping[str, str]) -> bytes:
        """The secret; trailing line ends of a file are dropped. Raises ConfigError."""
        if self.env is not None:
            if not environment.get(self.env):
                raise ConfigError(f"the secret in environment variable {self.env} is not set")
            return environment[self.env].encode()
        try:
            return Path(self.file or "").read_bytes().rstrip(b"\r\n")
        except OSError as exc:
            raise ConfigError(f"the secret in file {self.file} can't be read: {exc}") from exc


class RedisConfig(Model):
    """Idempotency state. ``on_loss``: go on without it (at least once, counted) or pause until it is back."""

    url: str = "redis://127.0.0.1:6379/0"
    password: SecretRef | None = None
    tls_ca_file: str | None = None
    cluster: bool = False
    on_loss: Literal["continue", "pause"] = "continue"
    window_s: float = Field(3600, ge=1, le=86_400, description="How long event ids are remembered")
    timeout_s: float = Field(1.0, gt=0, le=30)

    @field_validator("url")
    @classmethod
    def _scheme(cls, url: str) -> str:
        if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("a Redis URL begins with redis://, rediss:// (TLS) or unix://")
        return url


class Endpoints(Model):
    """URLs in place of AWS's own, for VPC endpoints or emulators; empty means AWS's own."""

    kinesis: str = ""
    dynamodb: str = ""
    dynamodb_streams: str = ""
    s3: str = ""
    sqs: str = ""
    events: str = ""

    @field_validator("kinesis", "dynamodb", "dynamodb_streams", "s3", "sqs", "events")
    @classmethod
    def _url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("an endpoint is a URL such as https://vpce-0123.kinesis.us-east-1.vpce.amazonaws.com")
        return url

    @field_validator("kinesis", "dynamodb", "dynamodb_streams", "sqs", "events")
    @classmethod
    def _no_path(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.path.strip("/") or parts.query or parts.username is not None:
            raise ValueError("an endpoint has no path, query or user: requests go to / of its host")
        return url


class RegionConfig(Model):
    endpoints: Endpoints = Endpoints()
    redis: RedisConfig | None = Field(None, description="In place of the top-level redis block")


class LinkDefaults(Model):
    ordering: Literal["key", "none"] = "key"
    aggregate: Literal["none", "kpl"] = Field("none", description="kpl packs waiting events of a key into one record")
    in_flight_max: int = Field(4, ge=1, le=64, description="Requests under way per shard")
    in_doubt: Literal["verify", "resend"] = "verify"
    in_doubt_beyond: Literal["resend", "hold"] = Field(
        "resend", description="When the peer can't give certainty: send again and count, or hold the shard, loudly"
    )
    in_doubt_wait_s: float | None = Field(
        None,
        ge=0,
        le=3600,
        description="In place of the computed wait (request_lifetime_s and a margin); a shorter one may duplicate",
    )
    request_lifetime_s: float = Field(
        30,
        ge=5,
        le=3600,
        description="How long after signing a request may take effect: dated back, the peer refuses it",
    )
    paused: bool = False
    on_poison: Literal["skip", "hold_key"] = Field(
        "skip", description="hold_key: the later events of a poison event's key go to quarantine after it, in order"
    )

    include: list[dict[str, Any]] = Field(
        [], description="Event patterns as EventBridge has them: only events that match one go over the link"
    )
    exclude: list[dict[str, Any]] = Field([], description="Event patterns: events that match one stay")
    max_age_s: float | None = Field(None, gt=0, description="Events that arrived in the hub longer ago stay")
    redact: Redacted = Field({}, description="Paths such as detail.customer.email: remove, mark or hash what is there")
    residency: list[ResidencyConfig] = Field([], description="Events that must not leave the regions they are of")

    @field_validator("include", "exclude")
    @classmethod
    def _patterns(cls, patterns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for place, pattern in enumerate(patterns):
            try:
                compiled(pattern)
            except PatternError as exc:
                raise ValueError(f"[{place}]: {exc}") from exc
        return patterns

    @property
    def filters(self) -> FilterRules:
        age_max_ms = None if self.max_age_s is None else round(self.max_age_s * 1000)
        return FilterRules(self.include, self.exclude, age_max_ms)

    @property
    def egress(self) -> EgressRules:
        return EgressRules(self.redact, [each.rule for each in self.residency])


class LinkConfig(LinkDefaults):
    """An override: only the fields that are given count."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: Name
    peer: RegionName
    at: RegionName | None = Field(None, alias="from", description="Only in this region; everywhere by default")


class LeasesConfig(Model):
    table: str = Field("replicator-leases", pattern=TABLE_NAME)
    duration_s: float = Field(10, ge=1, le=600)
    renew_s: float = Field(3, ge=0.1, le=200)
    read_units_per_s: float = Field(
        2000,
        ge=100,
        description="What all workers of a region may read of one source's leases, in DynamoDB's read units a second",
    )

    @model_validator(mode="after")
    def _intime_of(self) -> Self:
        if self.renew_s * 2 >= self.duration_s:
            raise FieldError(
                "renew_s",
                f"renew_s ({self.renew_s:g}) must be less than half of duration_s ({self.duration_s:g}), "
                "or one late renewal loses the lease",
            )
        return self


class TagKeyConfig(Model):
    current: str
    keys: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,16}$")], SecretRef]

    @model_validator(mode="after")
    def _has_current(self) -> Self:
        if self.current not in self.keys:
            known = ", ".join(sorted(self.keys))
            raise FieldError("current", f"current key {self.current!r} is none of {known}")
        return self


class QuarantineConfig(Model):
    """A directory, or a prefix in a bucket of the same region, which may be the lake's; and a queue before it."""

    directory: str | None = Field(None, min_length=1)
    s3_bucket: BucketName | None = None
    lake: Name | None = Field(
        None, description="In place of s3_bucket: a sink of kind s3, for its bucket of the region"
    )
    s3_prefix: str = Field("quarantine/", description="What the names of all objects begin with")
    queue: QueueName | None = Field(
        None,
        description="A standard queue of the region: every document is a message there, except those that no message "
        "can hold; they go to the directory or bucket",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        places = [self.directory, self.s3_bucket, self.lake]
        if self.queue is not None and places == [None, None, None]:
            raise ValueError(
                f"a message of a queue holds {MESSAGE_BYTES_MAX // 1024} KiB, and an event may be larger: name where "
                "those go as well, by 'directory', 's3_bucket' or 'lake'"
            )
        if places.count(None) != len(places) - 1:
            raise ValueError("give exactly one of 'directory', 's3_bucket' and 'lake'")
        if self.queue is not None and self.queue.endswith(".fifo"):
            raise FieldError(
                "queue", "poison has no order to keep, and a FIFO queue a lower rate; name a standard queue"
            )
        return self


class WorkerConfig(Model):
    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=0, le=65_535, description="0 takes a free port")
    drain_s: float = Field(20, ge=1, le=110)
    ready_within_s: float = Field(
        300, ge=1, description="A worker that is not ready so long after its start exits with status 1"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class LimitsConfig(Model):
    reads_per_s: float = Field(
        4,
        gt=0,
        le=1000,
        description="GetRecords per shard and second; AWS allows 5 to all consumers together",
    )
    idle_read_s: float = Field(0.25, ge=0, le=60, description="Pause after a read that found nothing")
    memory_bytes: int = Field(64 * 1024 * 1024, ge=1024 * 1024, description="Events in memory per worker, all copies")
    request_timeout_s: float = Field(10, gt=0, le=60)
    backoff_max_s: float = Field(20, gt=0, le=300)
    read_back_interval_s: float = Field(
        1.0, ge=0, le=60, description="Between two GetRecords on one shard of a peer; its consumers share 5 a second"
    )
    read_back_max_s: float = Field(600, gt=0, le=86_400, description="Of one reading back")
    read_back_bytes_max: int = Field(4 * 1024**3, ge=1024 * 1024, description="Of one reading back")
    signature_window_s: float = Field(
        300, ge=10, le=3600, description="How long after its date a peer takes a signed request; AWS: 300 s"
    )
    clock_margin_s: float = Field(
        10, ge=1, le=300, description="For clocks that disagree and for the peer's own work on a request"
    )


class Config(Model):
    """One file for all regions."""

    version: Literal[1] = 1
    regions: dict[RegionName, RegionConfig] = Field(min_length=2)
    topology: TopologyConfig = TopologyConfig()
    sources: dict[Name, SourceConfig] = Field(min_length=1)
    sinks: dict[Name, SinkConfig] = Field(min_length=1)
    links: list[LinkConfig] = Field([], description="Overrides of single links")
    link_defaults: LinkDefaults = LinkDefaults()
    redis: RedisConfig = RedisConfig()
    leases: LeasesConfig = LeasesConfig()
    tag_key: TagKeyConfig | None = None
    redact_key: SecretRef | None = Field(None, description="For redact: hash; the same in all regions")
    quarantine: QuarantineConfig = QuarantineConfig(directory="quarantine")
    worker: WorkerConfig = WorkerConfig()
    limits: LimitsConfig = LimitsConfig()

    @field_validator("regions", mode="before")
    @classmethod
    def _empty_regions(cls, regions: object) -> object:
        """``us-east-1:`` without anything behind it is a region with nothing special."""
        return {k: {} if v is None else v for k, v in regions.items()} if isinstance(regions, dict) else regions

    @property
    def region_names(self) -> list[Region]:
        return sorted(map(Region, self.regions))

    def check_region(self, name: str) -> None:
        """Raises ConfigError when there is no such region."""
        if name not in self.regions:
            raise ConfigError(f"there is no region {name} in the configuration, only {', '.join(self.region_names)}")

    def redis_in(self, region: str) -> RedisConfig:
        return self.regions[region].redis or self.redis

    def topologies(self) -> Topologies:
        """All generations, compiled and proven. Raises TopologyError."""
        names = self.region_names
        return Topologies(*[generation.compile(names) for generation in (self.topology, *self.topology.previous)])

    def peers(self, source: str, here: Region, topologies: Topologies) -> list[Region]:
        """Where the links of a source lead from ``here``: a hub's to peers, others into the region's own hub.

        A hub with a lake has a link there as well, in every region, under the name `LAKE`.
        """
        chosen = self.sources[source]
        if not isinstance(chosen, KinesisSourceConfig):
            return [here] if chosen.is_in(here) else []
        return sorted(topologies.links_from(here)) + ([LAKE] if chosen.lake is not None else [])

    def sink(self, source: str, peer: str) -> SinkConfig:
        """What a link writes."""
        chosen = self.sources[source]
        if peer == LAKE and isinstance(chosen, KinesisSourceConfig) and chosen.lake is not None:
            return self.sinks[chosen.lake]
        return self.sinks[chosen.sink]

    def links_of(self, here: Region) -> dict[LinkName, tuple[SourceName, Region]]:
        """Source and peer of every link of a region. Raises ConfigError when there is no such region."""
        self.check_region(here)
        topologies = self.topologies()
        return {
            link_name(source, peer): (SourceName(source), peer)
            for source in self.sources
            for peer in self.peers(source, here, topologies)
        }

    def link(self, source: str, here: str, peer: str) -> LinkDefaults:
        """What holds for one link: the defaults, then the overrides that match it, the more special last.

        What can't be read back gets what is in doubt again. A link into the lake can be paused, else it is as it is.
        Nothing leaves the region over one into its own hub.
        """
        merged = self.link_defaults.model_dump()
        matching = [
            link for link in self.links if (link.source, link.peer) == (source, peer) and link.at in (None, here)
        ]
        for link in sorted(matching, key=lambda link: link.at is not None):
            merged |= link.model_dump(include=link.model_fields_set & LinkDefaults.model_fields.keys())
        if peer == LAKE:
            return LinkDefaults(paused=merged["paused"], ordering="none", in_flight_max=1, in_doubt="resend")
        if peer == here:
            merged |= {"redact": {}, "residency": []}
        if not self.sink(source, peer).can_verify:
            merged["in_doubt"] = "resend"
        return LinkDefaults(**merged)


def link_name(source: str, peer: str) -> LinkName:
    return LinkName(f"{source}:{peer}")
