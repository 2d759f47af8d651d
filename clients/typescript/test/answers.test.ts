/** The client against a real mesh: answers, errors, leaving, and a gateway that is killed. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  Cancelled,
  Client,
  Conflict,
  ContextTooLong,
  DeadlineExceeded,
  HeadraceError,
  InvalidInput,
  ModelNotFound,
  NotFound,
  Unavailable,
  type AnswerStream,
  type Delta,
  type Message,
  type Tool,
  type ToolCall,
  type ToolCallDelta,
} from "../src/index.js";
import { mesh, picture, tone } from "./mesh.js";

const client = new Client(mesh.grpc, { trace: true });
after(() => client.close());

async function tokensOf(answer: AnswerStream): Promise<number[]> {
  const tokens: number[] = [];
  for await (const delta of answer) tokens.push(...delta.tokens);
  return tokens;
}

/** Reads until so many tokens are there, and what `then` does comes between them and the next. */
async function readTo(answer: AnswerStream, count: number, then: (delta: Delta) => void): Promise<number[]> {
  const tokens: number[] = [];
  let done = false;
  for await (const delta of answer) {
    assert.equal(delta.index, tokens.length, "no gap, no duplicate");
    tokens.push(...delta.tokens);
    if (!done && tokens.length >= count) then(delta);
    done ||= tokens.length >= count;
  }
  return tokens;
}

/** How a request ended, once its gateway has noticed that nobody reads it: attached to before that, it goes on. */
async function reasonOf(requestId: string): Promise<string | undefined> {
  await sleep(300);
  const again = client.attach(requestId);
  await tokensOf(again).catch((error: unknown) => assert.ok(error instanceof Cancelled, String(error)));
  return again.end?.reason;
}

describe("answers", { timeout: 60_000 }, () => {
  it("streams text", async () => {
    const answer = client.generate("hello", { maxTokens: 20, ignoreEos: true });
    assert.equal((await tokensOf(answer)).length, 20);
    assert.equal(answer.end?.reason, "length");
    assert.equal(answer.usage.completionTokens, 20);
    const stages = new Set(answer.timeline.map((span) => span.stage));
    for (const stage of ["gateway", "queue", "prefill", "decode"]) assert.ok(stages.has(stage), stage);
    assert.match(answer.requestId, /^[0-9a-f]{32}$/);
    assert.match(answer.traceId, /^[0-9a-f]{32}$/);
    assert.equal(answer.model, "profile-tiny");
  });

  it("gives the text at once", async () => {
    assert.ok(
      (await client.generate([{ role: "user", content: "hello" }], { maxTokens: 12, ignoreEos: true }).text()).length,
    );
  });

  it("takes pictures in their order, and sound", async () => {
    const [one, two] = [picture(10), picture(200)];
    const ask = (images: Uint8Array[]) => client.generate("which?", { images, maxTokens: 12, ignoreEos: true });
    const first = ask([one, two]);
    const answers = [await tokensOf(first), await tokensOf(ask([two, one])), await tokensOf(ask([one, two]))];
    assert.deepEqual(answers[0], answers[2]);
    assert.notDeepEqual(answers[0], answers[1]);
    assert.equal(first.usage.imageTokens, 12);
    const heard = client.generate(
      [{ role: "user", content: ["hear", { audio: tone(1) }, { image: one }, "and see"] }],
      {
        maxTokens: 4,
      },
    );
    await heard.text();
    assert.ok(heard.usage.audioTokens > 0);
    assert.equal(heard.usage.imageTokens, 6);
  });

  it("draws again what a seed has drawn", async () => {
    const ask = () =>
      tokensOf(client.generate("dice", { temperature: 1, seed: 2n ** 60n, maxTokens: 16, ignoreEos: true }));
    assert.deepEqual(await ask(), await ask());
  });

  it("tells log-probabilities", async () => {
    const told: Delta["logprobs"] = [];
    const answer = client.generate("how likely?", { logprobs: 2, maxTokens: 8, ignoreEos: true });
    const tokens: number[] = [];
    for await (const delta of answer) {
      tokens.push(...delta.tokens);
      told.push(...delta.logprobs);
    }
    assert.deepEqual(
      told.map((one) => one.drawn.token),
      tokens,
    );
    assert.ok(told.every((one) => one.top.length === 2 && one.top[0]?.token === one.drawn.token));
  });

  it("keeps to a grammar", async () => {
    assert.match(await client.generate("a digit", { regex: "[1-9][0-9]?" }).text(), /^[1-9][0-9]?$/);
    assert.throws(() => client.generate("?", { regex: "a", choice: ["b"] }), InvalidInput);
  });

  it("lists models", async () => {
    const [model] = await client.models();
    assert.equal(model?.id, "profile-tiny");
    assert.ok(model.servable && model.modalities.includes("audio"));
  });
});

describe("errors have types and fields", { timeout: 60_000 }, () => {
  const rows: [object, typeof HeadraceError, string][] = [
    [{ model: "gpt-9" }, ModelNotFound, "model"],
    [{ maxTokens: 100_000 }, ContextTooLong, "sampling.max_tokens"],
    [{ temperature: 9 }, InvalidInput, "sampling.temperature"],
    [{ images: [Buffer.from("nonsense")] }, InvalidInput, "messages[0].content[0].media.data"],
  ];
  for (const [options, kind, field] of rows) {
    it(field, async () => {
      await assert.rejects(client.generate("hi", options).text(), (error: HeadraceError) => {
        assert.equal(error.constructor, kind);
        assert.equal(error.field, field);
        assert.equal(error.code, kind.code);
        return true;
      });
    });
  }

  it("nothing is there", async () => {
    await assert.rejects(client.attach("0".repeat(32)).text(), NotFound);
    assert.equal(await client.cancel("0".repeat(32)), false);
  });

  it("a key that was used with another body", async () => {
    const idempotencyKey = randomUUID();
    const ask = (text: string) => client.generate(text, { idempotencyKey, maxTokens: 5, ignoreEos: true });
    const [first, again] = [ask("once"), ask("once")];
    assert.deepEqual(await tokensOf(first), await tokensOf(again));
    assert.equal(first.requestId, again.requestId);
    await assert.rejects(ask("twice").text(), Conflict);
  });

  it("nobody is there", async () => {
    const alone = new Client("127.0.0.1:1");
    await assert.rejects(alone.models(), Unavailable);
    alone.close();
    assert.throws(() => new Client(""), InvalidInput);
  });
});

describe("leaving", { timeout: 60_000 }, () => {
  const long = { maxTokens: 4000, ignoreEos: true } as const;

  it("a signal cancels, and its reason is thrown", async () => {
    for (const count of [1, 10]) {
      const stopping = new AbortController();
      const answer = client.generate("stop me", { ...long, signal: stopping.signal });
      const why = new Error("enough");
      await assert.rejects(
        readTo(answer, count, () => stopping.abort(why)),
        (error) => error === why,
      );
      assert.equal(await reasonOf(answer.requestId), "cancelled");
    }
    await assert.rejects(client.generate("hi", { signal: AbortSignal.abort() }).text(), { name: "AbortError" });
    await assert.rejects(client.generate("slow", { ...long, signal: AbortSignal.timeout(300) }).text(), {
      name: "TimeoutError",
    });
  });

  it("a loop that is left cancels", async () => {
    const answer = client.generate("leave me", long);
    for await (const delta of answer) if (delta.index >= 3) break;
    assert.equal(await reasonOf(answer.requestId), "cancelled");
  });

  it("close() and cancel()", async () => {
    const closed = client.generate("close me", long);
    await closed[Symbol.asyncIterator]().next();
    await closed.close();
    assert.equal(await reasonOf(closed.requestId), "cancelled");
    const cancelled = client.generate("cancel me", long);
    await readTo(cancelled, 3, () => void cancelled.cancel());
    assert.equal(cancelled.end?.reason, "cancelled");
  });

  it("somebody else cancels", async () => {
    const answer = client.generate("cancel me, too", long);
    await assert.rejects(
      readTo(answer, 3, () => void client.cancel(answer.requestId)),
      Cancelled,
    );
  });

  it("its time is over", async () => {
    const answer = client.generate("too long", { ...long, timeoutS: 0.7 });
    await assert.rejects(tokensOf(answer), DeadlineExceeded);
    assert.equal(answer.end?.reason, "deadline");
    assert.ok(answer.usage.completionTokens > 0, "what was ready in time is delivered");
  });
});

describe("tools and several answers", { timeout: 60_000 }, () => {
  const note: Tool = {
    name: "note",
    description: "Writes a note.",
    parameters: {
      type: "object",
      properties: { text: { type: "string", minLength: 40, maxLength: 60 } },
      required: ["text"],
      additionalProperties: false,
    },
  };
  const options = { tools: [note], toolChoice: note, temperature: 1, seed: 3, maxTokens: 400 };

  it("calls, with their results behind them", async () => {
    const answer = client.generate("note it", options);
    const pieces: ToolCallDelta[] = [];
    let text = "";
    for await (const delta of answer) {
      pieces.push(...delta.toolCalls);
      text += delta.text;
    }
    assert.equal(text, "");
    assert.equal(answer.end?.reason, "tool_calls");
    const [call, ...others] = answer.toolCalls;
    assert.ok(call !== undefined && others.length === 0 && call.name === "note" && call.id);
    assert.ok(pieces.length > 5, "arguments come piece by piece");
    assert.equal(pieces.map((piece) => piece.arguments).join(""), call.arguments);
    assert.ok((JSON.parse(call.arguments) as { text: string }).text.length >= 40);
    const turns: Message[] = [
      { role: "user", content: "note it" },
      { role: "assistant", toolCalls: answer.toolCalls },
      { role: "tool", toolCallId: call.id, content: "noted" },
    ];
    assert.ok((await client.generate(turns, { maxTokens: 5, ignoreEos: true }).text()).length);
    const attached = client.attach(answer.requestId);
    assert.equal(await attached.text(), "");
    assert.deepEqual(attached.toolCalls, answer.toolCalls);
  });

  it("says which tool is at fault", async () => {
    await assert.rejects(client.generate("?", { tools: [note, { name: "a b" }] }).text(), (error: HeadraceError) => {
      assert.ok(error instanceof InvalidInput);
      assert.equal(error.field, "tools[1]");
      return true;
    });
  });

  it("several answers, the same as over HTTP", async () => {
    const answer = client.generate("note it", { ...options, n: 3 });
    assert.deepEqual(await answer.texts(), ["", "", ""]);
    assert.equal(new Set(answer.requestIds).size, 3);
    assert.deepEqual(
      answer.ends.map((end) => end?.reason),
      ["tool_calls", "tool_calls", "tool_calls"],
    );
    const body = {
      messages: [{ role: "user", content: "note it" }],
      tools: [{ type: "function", function: note }],
      tool_choice: { type: "function", function: { name: "note" } },
      ...{ temperature: 1, seed: 3, max_tokens: 400, n: 3 },
    };
    const reply = await fetch(`${mesh.http}/v1/chat/completions`, { method: "POST", body: JSON.stringify(body) });
    const told = (await reply.json()) as { choices: { message: { tool_calls: { function: ToolCall }[] } }[] };
    assert.deepEqual(
      answer.allToolCalls.map((calls) => calls.map((call) => call.arguments)),
      told.choices.map((choice) => choice.message.tool_calls.map((call) => call.function.arguments)),
    );
    assert.equal(new Set(answer.allToolCalls.flat().map((call) => call.arguments)).size, 3);
  });

  it("a signal cancels all", async () => {
    const stopping = new AbortController();
    const answer = client.generate("stop us", { maxTokens: 4000, ignoreEos: true, n: 3, signal: stopping.signal });
    const heard = new Set<number>();
    await assert.rejects(
      (async () => {
        for await (const delta of answer) if (heard.add(delta.choice).size === 3) stopping.abort();
      })(),
      { name: "AbortError" },
    );
    for (const id of answer.requestIds) assert.equal(await reasonOf(id), "cancelled");
  });
});

describe("connections that break", { timeout: 60_000 }, () => {
  const options = { maxTokens: 80, ignoreEos: true, keepOnDisconnect: true } as const;

  it("attach goes on at another gateway", async () => {
    const whole = await tokensOf(client.generate("move me", options));
    const answer = client.generate("move me", options);
    const tokens: number[] = [];
    for await (const delta of answer) {
      tokens.push(...delta.tokens);
      if (tokens.length >= 5) break;
    }
    const other = new Client(mesh.grpc[1] as string);
    for await (const delta of other.attach(answer.requestId, { nextIndex: tokens.length }))
      tokens.push(...delta.tokens);
    other.close();
    assert.deepEqual(tokens, whole);
  });

  it("a gateway is killed: no gap, no duplicate, the same tokens; who leaves meanwhile cancels", async () => {
    const ends = { maxTokens: 80, ignoreEos: true };
    const undisturbed = await tokensOf(client.generate("kill one", ends));
    // Both begin at the first gateway; the second client finds another one only at its third try.
    const [own, unlucky] = [new Client(mesh.grpc), new Client([mesh.grpc[0], "127.0.0.1:1", mesh.grpc[1]] as string[])];
    const leaving = new AbortController();
    const left = unlucky.generate("leave it", { maxTokens: 4000, ignoreEos: true, signal: leaving.signal });
    await left[Symbol.asyncIterator]().next();
    const answer = own.generate("kill one", { ...ends, n: 2 });
    const tokens: number[][] = [[], []];
    let killed = false;
    for await (const { choice, index, tokens: more } of answer) {
      const so = tokens[choice] as number[];
      assert.equal(index, so.length, "no gap, no duplicate");
      so.push(...more);
      if (killed || so.length < 10) continue;
      killed = process.kill(mesh.pids[0] as number, "SIGKILL");
      setTimeout(() => leaving.abort(), 150);
    }
    assert.deepEqual(tokens, [undisturbed, undisturbed], "greedy: both answers are the same");
    assert.deepEqual(
      answer.ends.map((end) => end?.reason),
      ["length", "length"],
    );
    await assert.rejects(tokensOf(left), { name: "AbortError" });
    assert.equal(await reasonOf(left.requestId), "cancelled");
    own.close();
    unlucky.close();
  });
});
