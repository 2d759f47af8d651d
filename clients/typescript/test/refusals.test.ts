/** The client at a gateway that is full: how often it comes back, and what it says then. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { create, toBinary } from "@bufbuild/protobuf";
import { Metadata, Server, ServerCredentials, status, type ServerWritableStream } from "@grpc/grpc-js";

import { Client, InvalidInput, Overloaded } from "../src/index.js";
import { FailureSchema, GatewayService } from "../src/wire.js";

const { typeName, method } = GatewayService;
const plain = (bytes: Buffer): Buffer => bytes;
const generate = {
  path: `/${typeName}/${method.generate.name}`,
  requestStream: false,
  responseStream: true,
  requestSerialize: plain,
  requestDeserialize: plain,
  responseSerialize: plain,
  responseDeserialize: plain,
} as const;

describe("refusals", { timeout: 30_000 }, () => {
  const server = new Server();
  let address = "";
  let told: string[] = []; // of each call: how many refusals it says were before it

  before(async () => {
    server.addService(
      { generate },
      {
        generate: (call: ServerWritableStream<Buffer, Buffer>) => {
          told.push(String(call.metadata.get("x-headrace-retry-count")[0] ?? "0"));
          const failure = create(FailureSchema, { code: "overloaded", message: "full", retryAfterS: 0.01 });
          const metadata = new Metadata();
          metadata.set("headrace-failure-bin", Buffer.from(toBinary(FailureSchema, failure)));
          call.emit("error", { code: status.RESOURCE_EXHAUSTED, details: "full", metadata });
        },
      },
    );
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    address = `127.0.0.1:${port}`;
  });
  after(() => server.forceShutdown());

  for (const [maxRetries, calls] of [
    [undefined, ["0", "1", "2"]],
    [0, ["0"]],
    [1, ["0", "1"]],
  ] as const) {
    it(`are waited out ${maxRetries ?? "twice, unless told otherwise"}`, async () => {
      told = [];
      const client = new Client(address, maxRetries === undefined ? {} : { maxRetries });
      await assert.rejects(client.generate("hello").text(), Overloaded);
      client.close();
      assert.deepEqual(told, calls);
    });
  }

  it("cannot be waited out less than never", () => {
    assert.throws(() => new Client(address, { maxRetries: -1 }), InvalidInput);
  });
});
