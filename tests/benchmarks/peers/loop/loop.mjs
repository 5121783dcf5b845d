// The loop everyone writes, in Node with AWS SDK v3: GetRecords, JSON, a Redis pipeline key by key, PutRecords.
// node loop.mjs STREAM REDIS_URL SOURCE_REGION SOURCE_URL PEER_REGION PEER_URL [PEER_REGION PEER_URL ...]
import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  KinesisClient,
  ListShardsCommand,
  PutRecordsCommand,
} from "@aws-sdk/client-kinesis";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { Redis } from "ioredis";

const [stream, redisUrl, here, sourceUrl, ...where] = process.argv.slice(2);
const TAG = "_origin";
const IDLE_MS = 200;
const PUT_BYTES_MAX = 4_500_000;
// HTTP/1.1, as the endpoint speaks and the others do; the SDK's default for Kinesis is HTTP/2.
const client = (region, endpoint) =>
  new KinesisClient({
    region,
    endpoint,
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    requestHandler: new NodeHttpHandler(),
  });
const source = client(here, sourceUrl);
const redis = new Redis(redisUrl);
const peers = new Map();
for (let i = 0; i < where.length; i += 2) peers.set(where[i], client(where[i], where[i + 1]));
const decoder = new TextDecoder();
const encoder = new TextEncoder();

async function forward(events, peer, kinesis) {
  if (events.length === 0) return;
  const pipeline = redis.pipeline();
  for (const [id] of events) pipeline.set(`${stream}:${peer}:${id}`, 1, "EX", 3600, "NX");
  const answers = await pipeline.exec();
  const fresh = events.filter((_, i) => answers[i][1] === "OK").map(([, entry]) => entry);
  const largest = Math.max(1, ...fresh.map((entry) => entry.Data.length));
  const chunk = Math.max(1, Math.min(500, Math.floor(PUT_BYTES_MAX / largest)));
  for (let start = 0; start < fresh.length; start += chunk) {
    let entries = fresh.slice(start, start + chunk);
    while (entries.length > 0) {
      const reply = await kinesis.send(new PutRecordsCommand({ StreamName: stream, Records: entries }));
      entries = entries.filter((_, i) => reply.Records[i].ErrorCode !== undefined);
    }
  }
}

async function follow(shard) {
  const place = { StreamName: stream, ShardId: shard, ShardIteratorType: "TRIM_HORIZON" };
  let token = (await source.send(new GetShardIteratorCommand(place))).ShardIterator;
  while (token) {
    const reply = await source.send(new GetRecordsCommand({ ShardIterator: token, Limit: 1000 }));
    token = reply.NextShardIterator;
    const events = [];
    for (const record of reply.Records) {
      const event = JSON.parse(decoder.decode(record.Data));
      if (TAG in event) continue;
      event[TAG] = here;
      const entry = { Data: encoder.encode(JSON.stringify(event)), PartitionKey: record.PartitionKey };
      events.push([event.id, entry]);
    }
    await Promise.all([...peers].map(([peer, kinesis]) => forward(events, peer, kinesis)));
    if (reply.Records.length === 0) await new Promise((done) => setTimeout(done, IDLE_MS));
  }
}

const { Shards } = await source.send(new ListShardsCommand({ StreamName: stream }));
console.log("ready");
await Promise.all(Shards.map(({ ShardId }) => follow(ShardId)));
