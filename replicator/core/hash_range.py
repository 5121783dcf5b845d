"""Which shards a partition key may lie in: the MD5 of the key as a number, and ranges over those numbers.

Source: Kinesis Data Streams API reference, PutRecords ("an MD5 hash function is used to map partition keys to 128-bit
integer values") and HashKeyRange. It holds for entries without an explicit hash key; ours have none.
"""

from collections.abc import Iterable
from hashlib import md5

HASH_END = 2**128

HashRange = tuple[int, int]
"""First and last number of a shard, both included."""


def hash_key(partition_key: str) -> int:
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def could_hold(hash_range: HashRange | None, hashes: Iterable[int]) -> bool:
    """Whether one of the hashes lies in the range; a range that is not known could hold anything."""
    if hash_range is None:
        return True
    first, last = hash_range
    return any(first <= number <= last for number in hashes)
