"""The configuration of topologies: which region sends to which, and from when on."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from replicator.config_base import Model, RegionName, time_of
from replicator.core.model import Region
from replicator.core.topology import Edge, Generation, chain, compile_generation, hub, mesh


class EdgeConfig(Model):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: RegionName = Field(alias="from")
    target: RegionName = Field(alias="to")
    origins: list[RegionName] | None = Field(None, description="Whose events; none given: any, by shortest path")


class GenerationConfig(Model):
    """One topology. A changed one gets a new generation; the old one is ``previous`` until drained."""

    generation: int = Field(1, ge=1)
    starts_at: str | None = Field(
        None, description="Events stored in their hub from this time on leave under it, such as 2026-11-01T00:00:00Z"
    )
    kind: Literal["mesh", "hub", "chain", "links"] = "mesh"
    hub: RegionName | None = None
    order: list[RegionName] | None = None
    links: list[EdgeConfig] | None = None
    regions: list[RegionName] | None = Field(None, description="The regions it covers; all of them by default")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"hub": self.hub, "chain": self.order, "links": self.links}
        field = {"hub": "hub", "chain": "order", "links": "links"}.get(self.kind)
        if field is not None and not needed[self.kind]:
            raise ValueError(f"kind '{self.kind}' needs '{field}'")
        return self

    @field_validator("starts_at")
    @classmethod
    def _starts_at(cls, text: str | None) -> str | None:
        if text is not None:
            time_of(text)
        return text

    def compile(self, regions: list[Region]) -> Generation:
        """Compiled and proven. Raises TopologyError."""
        covered = [Region(name) for name in self.regions] if self.regions is not None else regions
        return compile_generation(self.generation, covered, self._edges(covered), self.starts_ms)

    @property
    def starts_ms(self) -> int:
        """Unix time; 0: always."""
        return int(time_of(self.starts_at).timestamp() * 1000) if self.starts_at else 0

    def _edges(self, regions: list[Region]) -> list[Edge]:
        match self.kind:
            case "mesh":
                return mesh(regions)
            case "hub":
                return hub(regions, Region(self.hub or ""))
            case "chain":
                return chain([Region(name) for name in self.order or []])
            case "links":
                return [_edge(edge) for edge in self.links or []]


def _edge(edge: EdgeConfig) -> Edge:
    origins = frozenset(map(Region, edge.origins)) if edge.origins is not None else None
    return Edge(Region(edge.source), Region(edge.target), origins)


class TopologyConfig(GenerationConfig):
    previous: list[GenerationConfig] = Field([], description="Older generations that are still draining")
