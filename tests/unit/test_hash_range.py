"""Keys and shards: the numbers are those that Kinesis uses."""

from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.memory_stream import MemoryStream
from replicator.core.hash_range import HASH_END, could_hold, hash_key


def test_a_key_is_hashed_as_kinesis_does() -> None:
    """MD5 of the key in UTF-8, as a big-endian number."""
    assert hash_key("abc") == 0x900150983CD24FB0D6963F7D28E17F72
    assert hash_key("ключ") < HASH_END


def test_a_range_that_is_not_known_could_hold_anything() -> None:
    assert could_hold(None, ())


@given(st.integers(1, 9), st.text(min_size=1, max_size=20))
def test_of_the_open_shards_just_the_one_that_takes_a_key_could_hold_it(shards: int, key: str) -> None:
    stream = MemoryStream(lambda: 1_800_000_000_000, shards)
    found = [shard.id for shard in stream.list_shards() if could_hold(shard.hash_range, {hash_key(key)})]
    assert found == [stream.shard_of(key)]
