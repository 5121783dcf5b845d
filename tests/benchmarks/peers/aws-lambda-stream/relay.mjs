// aws-lambda-stream as a replicator: node relay.mjs STREAM SOURCE_REGION SOURCE_URL PEER_REGION PEER_URL BATCH
//
// The library's own way: fromKinesis, one pipeline, publishToKinesis with a batch of 500, everything else at its
// defaults. It keeps no record of what was published, so nothing is asked of Redis. What Lambda does for a function is
// done here with as little as possible: a signed GetRecords whose JSON, Data as base64, becomes the invocation's event.
import { createHash, createHmac } from "node:crypto";
import http from "node:http";
import https from "node:https";

const [stream, here, sourceUrl, peer, peerUrl, batch] = process.argv.slice(2);
const IDLE_MS = 200;
const BATCH = Number(batch);
process.env.AWS_REGION = peer;
process.env.AWS_ENDPOINT_URL_KINESIS = peerUrl;
process.env.AWS_ACCESS_KEY_ID = "test";
process.env.AWS_SECRET_ACCESS_KEY = "test";

// Imported behind that, because the library's connectors read their region and endpoint from the environment.
const { initialize } = await import("aws-lambda-stream/pipelines/index");
const { fromKinesis } = await import("aws-lambda-stream/from/kinesis");
const { publishToKinesis } = await import("aws-lambda-stream/sinks/kinesis");
const { defaultOptions } = await import("aws-lambda-stream/utils/opt");
const { toPromise } = await import("aws-lambda-stream/utils/handler");

const replicate = (options) => (uows) =>
  uows
    .filter((uow) => !uow.event.tags?.region)
    .map((uow) => ({
      ...uow,
      event: { ...uow.event, partitionKey: uow.record.kinesis.partitionKey, tags: { region: here } },
    }))
    .through(publishToKinesis({ ...options, streamName: stream, batchSize: BATCH }));

const pipelines = initialize({ replicate }, { ...defaultOptions, publish: publishToKinesis });
const handler = (event) => pipelines.assemble(fromKinesis(event)).through(toPromise);

const url = new URL(sourceUrl);
const web = url.protocol === "https:" ? https : http;
const agent = new web.Agent({ keepAlive: true });
const hmac = (key, text) => createHmac("sha256", key).update(text).digest();
const sha256 = (text) => createHash("sha256").update(text).digest("hex");

function signed(operation, body) {
  const date = `${new Date().toISOString().replace(/[-:]|\.\d+/g, "")}`;
  const scope = `${date.slice(0, 8)}/${here}/kinesis/aws4_request`;
  const headers = {
    "content-type": "application/x-amz-json-1.1",
    host: url.host,
    "x-amz-date": date,
    "x-amz-target": `Kinesis_20131202.${operation}`,
  };
  const names = Object.keys(headers).join(";");
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  const canonical = `POST\n/\n\n${lines.join("")}\n${names}\n${sha256(body)}`;
  const key = scope.split("/").reduce(hmac, "AWS4test");
  const signature = hmac(key, `AWS4-HMAC-SHA256\n${date}\n${scope}\n${sha256(canonical)}`).toString("hex");
  const authorization = `AWS4-HMAC-SHA256 Credential=test/${scope}, SignedHeaders=${names}, Signature=${signature}`;
  return { ...headers, authorization, "content-length": Buffer.byteLength(body) };
}

function ask(operation, question) {
  const body = JSON.stringify(question);
  return new Promise((resolve, reject) => {
    const request = web.request(url, { method: "POST", agent, headers: signed(operation, body) }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(parts).toString();
        if (response.statusCode === 200) resolve(JSON.parse(text));
        else reject(new Error(`${operation}: ${response.statusCode} ${text}`));
      });
    });
    request.on("error", reject);
    request.end(body);
  });
}

const toRecord = (shard) => (record) => ({
  eventSource: "aws:kinesis",
  eventID: `${shard}:${record.SequenceNumber}`,
  awsRegion: here,
  kinesis: {
    partitionKey: record.PartitionKey,
    sequenceNumber: record.SequenceNumber,
    data: record.Data,
    approximateArrivalTimestamp: record.ApproximateArrivalTimestamp,
  },
});

async function follow(shard) {
  const place = { StreamName: stream, ShardId: shard, ShardIteratorType: "TRIM_HORIZON" };
  let token = (await ask("GetShardIterator", place)).ShardIterator;
  while (token) {
    const reply = await ask("GetRecords", { ShardIterator: token, Limit: BATCH });
    token = reply.NextShardIterator;
    if (reply.Records.length > 0) await handler({ Records: reply.Records.map(toRecord(shard)) });
    else await new Promise((done) => setTimeout(done, IDLE_MS));
  }
}

const { Shards } = await ask("ListShards", { StreamName: stream });
console.log("ready");
await Promise.all(Shards.map(({ ShardId }) => follow(ShardId)));
