/** The client and a mesh under --secure: TLS, a certificate of its own, API keys and their limits. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, describe, it } from "node:test";

import {
  accessOfEnv,
  Client,
  HeadraceError,
  RateLimited,
  Unauthenticated,
  Unavailable,
  type Access,
} from "../src/index.js";
import { mesh, picture } from "./mesh.js";

const { ca = "", cert = "", key = "", apiKey = "", limitedKey = "", queueManager = "" } = mesh;
const tls = { ca: readFileSync(ca) };
const clients: Client[] = [];
after(() => clients.forEach((client) => client.close()));

function enter(access: Access, address: string | string[] = mesh.grpc): Client {
  const client = new Client(address, access);
  clients.push(client);
  return client;
}

describe("a secured mesh", { timeout: 60_000 }, () => {
  it("answers about a picture", async () => {
    const access = accessOfEnv({ HEADRACE_API_KEY: apiKey, HEADRACE_TLS_CA: ca });
    const answer = enter(access).generate("what is it?", { images: [picture(7)], maxTokens: 8, ignoreEos: true });
    assert.ok((await answer.text()).length);
    assert.ok(answer.usage.imageTokens > 0);
  });

  it("lets nobody in without a key, in the clear, or as somebody else", async () => {
    await assert.rejects(enter({ tls }).models(), Unauthenticated);
    await assert.rejects(enter({ tls, apiKey: "hr-none" }).generate("hi").text(), Unauthenticated);
    await assert.rejects(enter({ apiKey }).models(), Unavailable);
    await assert.rejects(enter({ apiKey, tls: { ...tls, name: "elsewhere.example" } }).models(), Unavailable);
  });

  it("shows its certificate where one is asked for", async () => {
    const pair = { cert: readFileSync(cert), key: readFileSync(key) };
    await assert.rejects(enter({ tls }, queueManager).models(), Unavailable);
    // The queue manager is no gateway: it lets the client in and does not know the method.
    await assert.rejects(enter({ tls: { ...tls, ...pair } }, queueManager).models(), (error: HeadraceError) => {
      assert.ok(!(error instanceof Unavailable), error.message);
      return true;
    });
  });

  it("says when to come back", async () => {
    const client = enter({ tls, apiKey: limitedKey });
    await client.generate("one", { maxTokens: 4 }).text();
    // With less time than the wait it is no use to wait.
    await assert.rejects(client.generate("two", { maxTokens: 4, timeoutS: 5 }).text(), (error: HeadraceError) => {
      assert.ok(error instanceof RateLimited);
      assert.equal(error.code, "rate_limit_exceeded");
      assert.ok(error.retryAfterS > 30 && error.retryAfterS <= 60, String(error.retryAfterS));
      return true;
    });
  });
});
