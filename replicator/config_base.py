"""What all configuration models are made of: names, times, and an error of one field."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-[1-9]")
ALIASES = {
    "virginia": "us-east-1",
    "n-virginia": "us-east-1",
    "use1": "us-east-1",
    "ohio": "us-east-2",
    "use2": "us-east-2",
    "california": "us-west-1",
    "usw1": "us-west-1",
    "oregon": "us-west-2",
    "usw2": "us-west-2",
    "ireland": "eu-west-1",
    "dublin": "eu-west-1",
    "euw1": "eu-west-1",
    "london": "eu-west-2",
    "paris": "eu-west-3",
    "frankfurt": "eu-central-1",
    "euc1": "eu-central-1",
    "stockholm": "eu-north-1",
    "sydney": "ap-southeast-2",
    "singapore": "ap-southeast-1",
    "tokyo": "ap-northeast-1",
    "mumbai": "ap-south-1",
    "sao-paulo": "sa-east-1",
}


class FieldError(ValueError):
    """What is wrong with one field in the light of its neighbours."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def check_region_name(name: str) -> str:
    if REGION.fullmatch(name):
        return name
    meant = ALIASES.get(name.lower().replace("_", "-").replace(" ", "-"), name.lower().replace("_", "-"))
    hint = f", write {meant!r}" if REGION.fullmatch(meant) else ", write it as AWS does: 'us-east-1'"
    raise ValueError(f"{name!r} is no canonical AWS region name{hint}")


NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
STREAM_NAME = r"^[a-zA-Z0-9_.-]{1,128}$"
BUCKET_NAME = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
QUEUE_NAME = r"^[a-zA-Z0-9_-]{1,80}(\.fifo)?$"
TABLE_NAME = r"^[a-zA-Z0-9_.-]{3,255}$"
BUS_NAME = r"^[a-zA-Z0-9._/-]{1,256}$"
IN_WORDS = {
    NAME: "a name here has lower-case letters, digits and hyphens, and no hyphen first",
    STREAM_NAME: "a stream's name has letters, digits, and any of _ . -, 128 at most",
    BUCKET_NAME: "a bucket's name has lower-case letters, digits, and any of . - between them, 3 to 63",
    QUEUE_NAME: "a queue's name has letters, digits, hyphens and underscores, 80 at most, and .fifo if it is one",
    TABLE_NAME: "a table's name has letters, digits, and any of _ . -, 3 to 255",
    BUS_NAME: "a bus's name has letters, digits, and any of . _ / -, 256 at most",
}
"""What people are told who wrote something else."""

RegionName = Annotated[str, Field(description="Canonical AWS region name, such as us-east-1")]
Name = Annotated[str, Field(pattern=NAME, description="Lower-case letters, digits, hyphens")]
StreamName = Annotated[str, Field(pattern=STREAM_NAME)]
BucketName = Annotated[str, Field(pattern=BUCKET_NAME)]
QueueName = Annotated[str, Field(pattern=QUEUE_NAME)]
TableName = Annotated[str, Field(pattern=TABLE_NAME)]
AttributeName = Annotated[str, Field(min_length=1, max_length=255)]
BusName = Annotated[str, Field(pattern=BUS_NAME)]


def time_of(text: str) -> datetime:
    """Raises ValueError for what is no time, or one without a zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time such as 2026-11-01T00:00:00Z") from None
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone, write {time.isoformat()}Z for UTC")
    return time


def kind_of(entry: object) -> object:
    """Which model an entry of several kinds is for; one without a kind is a stream."""
    return entry.get("kind", "kinesis") if isinstance(entry, dict) else getattr(entry, "kind", "kinesis")
