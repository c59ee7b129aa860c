// Asks the routing server where to store an object, pretends to store it, reports the
// outcome and shows what the router has learned.
//
//     npm ci
//     node main.mjs [HOST:PORT]
//
// The transfer is pretended: it waits a little and moves no byte anywhere.

import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTO = fileURLToPath(new URL("../../proto/routing.proto", import.meta.url));
const DEADLINE_MS = 10_000;

const { ipfs_kit_py } = grpc.loadPackageDefinition(
  protoLoader.loadSync(PROTO, { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true }),
);

// google.protobuf.Struct has to be spelled out: a plain object in its place would arrive empty.
const toValue = (value) => {
  if (value === null) return { nullValue: "NULL_VALUE" };
  if (Array.isArray(value)) return { listValue: { values: value.map(toValue) } };
  if (typeof value === "object") return { structValue: toStruct(value) };
  return { [`${typeof value}Value`]: value }; // stringValue, numberValue, boolValue
};
const toStruct = (object) => ({
  fields: Object.fromEntries(Object.entries(object).map(([key, value]) => [key, toValue(value)])),
});
const fromValue = (value) => {
  switch (value.kind) {
    case "structValue":
      return fromStruct(value.structValue);
    case "listValue":
      return value.listValue.values.map(fromValue);
    case "nullValue":
      return null;
    default:
      return value[value.kind];
  }
};
const fromStruct = (struct) =>
  Object.fromEntries(Object.entries(struct?.fields ?? {}).map(([key, value]) => [key, fromValue(value)]));

// A call that answers once, as a promise with a deadline.
const call = (client, method, request) =>
  promisify(client[method]).call(client, request, { deadline: Date.now() + DEADLINE_MS });

async function pretendToUpload() {
  const started = performance.now();
  await sleep(10);
  return Math.max(1, Math.round(performance.now() - started));
}

async function store(client) {
  const object = { content_hash: "bafy-node", content_type: "image/png", content_size: 2_400_000 };
  const selection = await call(client, "SelectBackend", {
    ...object,
    metadata: toStruct({ operation: "store", retention_months: 12 }),
    client_location: { latitude: 52.52, longitude: 13.41, region: "eu-central-1" },
    request_id: crypto.randomUUID(),
  });
  console.log(`selected: ${selection.backend_id} (score ${selection.score.toFixed(3)})`);
  for (const [factor, score] of Object.entries(fromStruct(selection.factor_scores))) {
    console.log(`  ${factor}: ${score.toFixed(3)}`);
  }
  const recorded = await call(client, "RecordOutcome", {
    ...object,
    backend_id: selection.backend_id,
    success: true,
    duration_ms: await pretendToUpload(),
    request_id: selection.request_id,
  });
  if (!recorded.success) throw new Error(`the outcome was not recorded: ${recorded.message}`);
  console.log("recorded: the pretended upload succeeded");
}

async function showWhatWasLearned(client) {
  const insights = await call(client, "GetInsights", { time_window_hours: 1 });
  for (const [backend, usage] of Object.entries(fromStruct(insights.backend_usage_stats))) {
    console.log(`insights: ${backend}: ${usage.request_count} requests, ${usage.outcome_count} outcomes`);
  }
}

async function watchTwoUpdates(client) {
  const stream = client.StreamMetrics({ update_interval_seconds: 1, include_backends: true });
  let number = 0;
  for await (const update of stream) {
    const backends = Object.keys(fromStruct(update.metrics).backends);
    console.log(`update ${++number}: ${update.status}, backends ${backends.join(", ")}`);
    if (number === 2) break;
  }
  stream.cancel(); // leaving the loop alone would keep the call, and the process, alive
}

const client = new ipfs_kit_py.routing.RoutingService(
  process.argv[2] ?? "localhost:50051",
  grpc.credentials.createInsecure(),
);
try {
  await store(client);
  await showWhatWasLearned(client);
  await watchTwoUpdates(client);
} catch (error) {
  console.error(`the router says ${grpc.status[error.code] ?? "ERROR"}: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
