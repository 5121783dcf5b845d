"""The loop everyone writes: aioboto3, json, a Redis pipeline key by key, PutRecords. No order, no recovery, no fencing.

python -m tests.benchmarks.naive --source REGION URL --peer REGION URL [--peer ...] --redis URL --stream NAME
"""

import argparse
import asyncio
import json
from typing import Any

import aioboto3
from redis.asyncio import Redis

TAG = "_origin"
READ_MAX = 1000
PUT_MAX = 500
PUT_BYTES_MAX = 4_500_000
IDLE_S = 0.2
KEPT_S = 3600


async def follow(source: Any, shard: str, options: argparse.Namespace, peers: dict[str, Any], redis: Any) -> None:
    where = {"StreamName": options.stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    token = (await source.get_shard_iterator(**where))["ShardIterator"]
    while token:
        reply = await source.get_records(ShardIterator=token, Limit=READ_MAX)
        token = reply.get("NextShardIterator")
        events = []
        for record in reply["Records"]:
            event = json.loads(record["Data"])
            if TAG not in event:
                event[TAG] = options.source[0]
                events.append((event["id"], {"Data": json.dumps(event), "PartitionKey": record["PartitionKey"]}))
        await asyncio.gather(*(forward(events, peer, client, redis, options) for peer, client in peers.items()))
        if options.poll_s is not None or not reply["Records"]:
            await asyncio.sleep(options.poll_s or IDLE_S)


async def forward(events: list[Any], peer: str, client: Any, redis: Any, options: argparse.Namespace) -> None:
    if not events:
        return
    pipeline = redis.pipeline(transaction=False)
    for event_id, _ in events:
        pipeline.set(f"{options.stream}:{peer}:{event_id}", 1, nx=True, ex=KEPT_S)
    fresh = [entry for (_, entry), is_new in zip(events, await pipeline.execute(), strict=True) if is_new]
    chunk = max(1, min(PUT_MAX, PUT_BYTES_MAX // max((len(entry["Data"]) for entry in fresh), default=1)))
    for start in range(0, len(fresh), chunk):
        entries = fresh[start : start + chunk]
        while entries:
            reply = await client.put_records(StreamName=options.stream, Records=entries)
            results = zip(entries, reply["Records"], strict=True)
            entries = [entry for entry, result in results if "ErrorCode" in result]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", nargs=2, required=True)
    parser.add_argument("--peer", nargs=2, action="append", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--stream", required=True)
    parser.add_argument("--poll-s", type=float, help="how long to wait before every read")
    options = parser.parse_args()
    session = aioboto3.Session()

    def client(region: str, url: str) -> Any:
        return session.client("kinesis", region_name=region, endpoint_url=url)

    async with client(*options.source) as source, Redis.from_url(options.redis) as redis:
        peers = {region: await client(region, url).__aenter__() for region, url in options.peer}
        shards = (await source.list_shards(StreamName=options.stream))["Shards"]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            for shard in shards:
                group.create_task(follow(source, shard["ShardId"], options, peers, redis))


if __name__ == "__main__":
    asyncio.run(main())
