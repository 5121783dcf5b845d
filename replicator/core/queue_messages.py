"""Events as messages of an SQS queue: what its text may hold, what orders them, and by what a repetition is known.

Order is that of a message group of a FIFO queue, and a group is a partition key. A FIFO queue drops a message whose
deduplication id it took in the five minutes before; the id is made of the event's origin, which is the same however
often and from wherever the event is sent.
"""

from hashlib import blake2b
from re import compile as pattern

from replicator.core.model import Origin
from replicator.errors import Refused

# Limits, conservative: AWS raises them now and then, and the configuration with them.
MESSAGE_BYTES_MAX = 256 * 1024
"""One message, and all of one request together. Source: SQS Developer Guide, "Amazon SQS message quotas"; AWS takes
1 MiB since 2025, where the queue is set so."""
NOT_TEXT = pattern("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Source: SQS API reference, SendMessageBatch: "A message can include only XML, JSON, and unformatted text"."""
GROUP = pattern("[!-~]{1,128}")
"""Source: the same, MessageGroupId: up to 128 alphanumeric characters and punctuation."""
DIGEST_BYTES = 32
REPEATS_DROPPED_MS = 300_000
"""Source: SQS Developer Guide, "Using the message deduplication ID": the deduplication interval of five minutes."""


def body_of(data: bytes) -> str:
    """Raises Refused for what no message can hold."""
    try:
        body = data.decode()
    except UnicodeDecodeError as exc:
        raise Refused(f"a message of SQS is text, and this is no UTF-8: {exc}; use a sink of kind kinesis") from exc
    if strange := NOT_TEXT.search(body):
        what = f"U+{ord(strange[0]):04X} at {strange.start()}"
        raise Refused(f"SQS takes no character {what}; escape it as JSON does, or use a sink of kind kinesis")
    return body


def group_of(partition_key: str) -> str:
    """The key where SQS takes it as it is, else a digest of it."""
    return partition_key if GROUP.fullmatch(partition_key) else _digest(partition_key.encode("utf-8", "surrogatepass"))


def repetition_of(origin: Origin | None, data: bytes) -> str:
    """The deduplication id; an event without an origin goes by its bytes."""
    return _digest(data if origin is None else origin.key.encode())


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
