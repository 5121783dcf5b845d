"""What may leave a region over a link: fields that are redacted, and events that must stay where they were born."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from replicator.config_base import Model
from replicator.core.egress import How, Residency
from replicator.core.formats import CLOUDEVENTS_ATTRIBUTE
from replicator.core.json_paths import PathError, Paths, names_of
from replicator.core.skim import RESERVED_KEY


def _path(path: str) -> str:
    try:
        names = names_of(path)
    except PathError as exc:
        raise ValueError(str(exc)) from None
    if names[0] in (RESERVED_KEY, CLOUDEVENTS_ATTRIBUTE):
        raise ValueError(f"{path!r} is in the tag, without which the event would come back")
    return path


def _apart(redact: dict[str, How]) -> dict[str, How]:
    try:
        Paths(redact, bool)
    except PathError as exc:
        raise ValueError(str(exc)) from None
    return redact


JsonPath = Annotated[str, AfterValidator(_path)]
Redacted = Annotated[dict[JsonPath, How], AfterValidator(_apart)]
"""By path."""
RegionPattern = Annotated[str, Field(pattern=r"^[a-z*][a-z0-9*-]*$", description="A region, or several: eu-*")]


class ResidencyConfig(Model):
    """Events that were born in some regions and hold something stay in these regions."""

    within: list[RegionPattern] = Field(min_length=1, description="Where they were born, and where alone they may go")
    paths: list[JsonPath] = Field(min_length=1, description="An event with something at one of them is meant")
    violation: Literal["quarantine", "drop"] = "quarantine"

    @field_validator("paths")
    @classmethod
    def _apart(cls, paths: list[str]) -> list[str]:
        _apart(dict.fromkeys(paths, "remove"))
        return paths

    @property
    def rule(self) -> Residency:
        return Residency(tuple(self.within), tuple(self.paths), self.violation)
