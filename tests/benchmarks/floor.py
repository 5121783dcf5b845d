"""What is left when all work is taken away: the same bytes read, hashed, signed and sent over the worker's own HTTP.

No event is decoded, tagged, claimed, ordered or remembered, and a stop loses and repeats. It is the bound that no
native code behind the worker's way to the network could pass.

python -m tests.benchmarks.floor --source REGION URL --peer REGION URL [--peer ...] --stream NAME
"""

import argparse
import asyncio

from msgspec import Raw, Struct, json

from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import GET_RECORDS_MAX, PREFIX, PUT_RECORDS_MAX, SERVICE, KinesisApi
from replicator.aws.session import AwsSession
from replicator.aws.signer import body_hash
from replicator.aws.transport import JsonApi
from replicator.core.model import TrimHorizon
from replicator.tuning import tune_process

IDLE_S = 0.2
TIMEOUT_S = 30.0
READ_MAX = 1000


class _Record(Struct, rename="pascal", gc=False):
    """Its texts as they stand in the answer."""

    data: Raw
    partition_key: Raw


class _Page(Struct, rename="pascal"):
    records: list[_Record]
    next_shard_iterator: str


class Relay:
    """The source, or a peer."""

    def __init__(self, api: JsonApi, stream: str) -> None:
        self.api = api
        self.kinesis = KinesisApi(api, stream, TIMEOUT_S)


async def follow(source: Relay, token: str, peers: list[Relay], head: bytes) -> None:
    while True:
        request = json.encode({"ShardIterator": token, "Limit": min(READ_MAX, GET_RECORDS_MAX)})
        reply = await source.api.call("GetRecords", request, is_write=False, timeout_s=TIMEOUT_S)
        page = json.decode(reply.body, type=_Page)
        token = page.next_shard_iterator
        for start in range(0, len(page.records), PUT_RECORDS_MAX):
            body = written(head, page.records[start : start + PUT_RECORDS_MAX])
            sha256 = body_hash(body)
            await asyncio.gather(*(peer.kinesis.put_records(body, sha256=sha256) for peer in peers))
        if not page.records:
            await asyncio.sleep(IDLE_S)


def written(head: bytes, records: list[_Record]) -> bytes:
    parts = [head]
    for record in records:
        parts += (b'{"Data":', bytes(record.data), b',"PartitionKey":', bytes(record.partition_key), b"},")
    parts[-1] = b"}]}"
    return b"".join(parts)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", nargs=2, required=True)
    parser.add_argument("--peer", nargs=2, action="append", required=True)
    parser.add_argument("--stream", required=True)
    options = parser.parse_args()
    head = b'{"StreamName":%s,"Records":[' % json.encode(options.stream)
    session = AwsSession()
    async with HttpPool(100) as http, asyncio.TaskGroup() as group:

        def relay(region: str, url: str) -> Relay:
            api = JsonApi(http, session, service=SERVICE, region=region, url=url, prefix=PREFIX)
            return Relay(api, options.stream)

        source, peers = relay(*options.source), [relay(*peer) for peer in options.peer]
        shards = await source.kinesis.shards()
        tokens = [await source.kinesis.iterator(shard.id, TrimHorizon()) for shard in shards]
        tune_process()
        print("ready", flush=True)
        for token in tokens:
            group.create_task(follow(source, token, peers, head))


if __name__ == "__main__":
    asyncio.run(main())
