/**
 * The protocol of one response, without any I/O: what to call, what an event means, whether a failure is survived.
 *
 * A broken connection is survived by attaching again with the request id at the next gateway, from the next token on:
 * no gap, no duplicate.
 */
import { create } from "@bufbuild/protobuf";

import { Cancelled, DeadlineExceeded, HeadraceError, Overloaded, Unavailable, ofCall, ofFailure } from "./errors.js";
import {
  FinishReason,
  type End as WireEnd,
  type TokenLogprobs as WireLogprobs,
  type Usage as WireUsage,
} from "./gen/headrace/v1/common_pb.js";
import {
  AttachStreamRequestSchema,
  type AttachStreamRequest,
  type Delta as WireDelta,
  type GenerateEvent,
  type GenerateRequest,
  type Started,
} from "./gen/headrace/v1/gateway_pb.js";
import type { Delta, End, Reason, TokenLogprobs, ToolCall, ToolCallDelta, Usage } from "./types.js";

const CHOICES_MAX = 8; // as the gateway's
const TRIES_MAX = 8; // in a row without an event: 0.1 + 0.2 + ... about 10 s, longer than a gateway takes to restart
export const RETRIES = 2; // refusals of one answer that are waited out: more would multiply an overload
const BACKOFF_S_MIN = 0.1;
const BACKOFF_S_MAX = 2.0;
const DEADLINE_SLACK_S = 5.0; // the mesh ends a request at its deadline and says so; a mesh that is gone needs this

export type NextCall =
  | { method: "generate"; request: GenerateRequest; deadline: Date | undefined; refusals: number }
  | { method: "attach"; request: AttachStreamRequest; deadline: Date | undefined };

/** What has come of one of several answers. */
class Choice {
  nextIndex: number;
  requestId = "";
  end: End | undefined;
  readonly calls = new Map<number, ToolCall>();

  constructor(nextIndex = 0) {
    this.nextIndex = nextIndex;
  }

  take(delta: WireDelta, choice: number): Delta {
    if (delta.index !== this.nextIndex) {
      throw new Error(`token ${delta.index} came where ${this.nextIndex} was asked for`);
    }
    this.nextIndex += delta.tokens.length;
    const logprobs = delta.logprobs.map((told) => logprobsOf(delta, told));
    const toolCalls = delta.toolCalls.map((one) => {
      return { index: one.index, id: one.id, name: one.name, arguments: one.arguments };
    });
    toolCalls.forEach((piece) => this.#add(piece));
    return { index: delta.index, tokens: delta.tokens, text: delta.text, logprobs, toolCalls, choice };
  }

  #add({ index, id, name, arguments: more }: ToolCallDelta): void {
    const call = this.calls.get(index);
    if (call !== undefined) call.arguments += more;
    else if (id) this.calls.set(index, { id, name, arguments: more }); // who attached within a call lacks its beginning
  }
}

/** The state of a response. Ask next() what to call, take() every event, broken() what to do about a failure. */
export class Answer {
  /** Of the first answer. */
  requestId: string;
  traceId = "";
  model = "";
  error: HeadraceError | undefined;
  /** By this client. */
  cancelled = false;
  readonly choices: Choice[];
  readonly #request: GenerateRequest | undefined;
  #deadline: Date | undefined;
  readonly #maxRetries: number;
  #failures = 0;
  #refusals = 0;

  constructor(request: GenerateRequest | undefined, { requestId = "", nextIndex = 0, maxRetries = RETRIES } = {}) {
    this.#request = request;
    this.#maxRetries = maxRetries;
    this.requestId = requestId;
    this.choices = [new Choice(nextIndex)];
    while (this.choices.length < Math.min(request?.n ?? 1, CHOICES_MAX)) this.choices.push(new Choice());
  }

  /** Whether a request that is there goes on when this client leaves. */
  get keeps(): boolean {
    return !this.requestId || (this.#request?.keepOnDisconnect ?? true);
  }

  /** The first call, or the one that goes on where the last one broke. */
  next(): NextCall {
    const timeoutS = this.#request?.timeoutS ?? 0;
    if (timeoutS) this.#deadline ??= new Date(Date.now() + 1000 * (timeoutS + DEADLINE_SLACK_S));
    const deadline = this.#deadline;
    if (this.#request !== undefined && !this.requestId) {
      return { method: "generate", request: this.#request, deadline, refusals: this.#refusals };
    }
    const [nextIndex, ...otherNextIndex] = this.choices.map((choice) => choice.nextIndex);
    const request = create(AttachStreamRequestSchema, {
      requestId: this.requestId,
      nextIndex: nextIndex ?? 0,
      toolCalls: this.#request === undefined || this.#request.tools.length > 0,
      otherNextIndex,
    });
    return { method: "attach", request, deadline };
  }

  /** The new part of an event; undefined if it holds no tokens, text or calls. */
  take({ kind, choice: index }: GenerateEvent): Delta | undefined {
    this.#failures = 0;
    const choice = this.choices[index];
    if (choice === undefined) throw new Error(`an event of answer ${index}, which was not asked for`);
    if (choice.end !== undefined) return undefined; // attached again for the others: it is told once more
    switch (kind.case) {
      case "started":
        choice.requestId = kind.value.requestId;
        if (index === 0) this.#takeStarted(kind.value);
        return undefined;
      case "end":
        choice.end = this.#takeEnd(kind.value);
        return undefined;
      case "delta":
        return choice.take(kind.value, index);
      default:
        return undefined; // of a newer gateway
    }
  }

  /** All answers have. */
  get ended(): boolean {
    return this.choices.every((choice) => choice.end !== undefined);
  }

  /** A failure of the call tells nothing new: the end has come, or this client gave up before the start. */
  get over(): boolean {
    return this.ended || (this.cancelled && !this.requestId);
  }

  /** Of all answers together: the question counts once. */
  get usage(): Usage {
    const [first = usageOf(), ...others] = this.choices.flatMap(({ end }) => (end === undefined ? [] : [end.usage]));
    return {
      ...first,
      completionTokens: others.reduce((sum, usage) => sum + usage.completionTokens, first.completionTokens),
      joules: others.reduce((sum, usage) => sum + usage.joules, first.joules),
    };
  }

  /**
   * Seconds to wait before next() is called at another gateway. Throws the typed error where it is no use, it has been
   * tried often enough, or the wait alone takes the request's time.
   */
  broken(error: unknown): number {
    const typed = error instanceof HeadraceError ? error : ofCall(error);
    this.#failures += 1;
    if (typed instanceof Overloaded) this.#refusals += 1;
    const passing = typed instanceof Unavailable || typed instanceof Overloaded;
    const survivable = passing && this.#refusals <= this.#maxRetries;
    const timeoutS = this.#request?.timeoutS ?? 0;
    const inVain = timeoutS > 0 && timeoutS <= typed.retryAfterS;
    if (this.cancelled || !survivable || inVain || this.#failures > TRIES_MAX) throw typed;
    const backoffS = Math.min(BACKOFF_S_MIN * 2 ** (this.#failures - 1), BACKOFF_S_MAX);
    return Math.max(backoffS * (0.5 + Math.random() / 2), typed.retryAfterS);
  }

  #takeStarted(started: Started): void {
    this.requestId = started.requestId;
    this.traceId = started.traceId || this.traceId;
    this.model = started.model;
  }

  #takeEnd(end: WireEnd): End {
    const reason = (FinishReason[end.reason] ?? "error").toLowerCase() as Reason;
    this.error ??= this.#errorOf(reason, end);
    const timeline = end.timeline.map(({ stage, startS, endS, worker, part, cached }) => {
      return { stage, startS, endS, worker, part, cached };
    });
    return { reason, usage: usageOf(end.usage), timeline };
  }

  #errorOf(reason: Reason, end: WireEnd): HeadraceError | undefined {
    if (reason === "cancelled") return this.cancelled ? undefined : new Cancelled("the request was cancelled");
    if (reason === "deadline") return new DeadlineExceeded("the request's deadline passed");
    return end.failure === undefined ? undefined : ofFailure(end.failure);
  }
}

export function usageOf(usage?: WireUsage): Usage {
  return {
    promptTokens: usage?.promptTokens ?? 0,
    completionTokens: usage?.completionTokens ?? 0,
    imageTokens: usage?.imageTokens ?? 0,
    cachedTokens: usage?.cachedTokens ?? 0,
    joules: usage?.joules ?? 0,
    audioTokens: usage?.audioTokens ?? 0,
    videoTokens: usage?.videoTokens ?? 0,
  };
}

function logprobsOf(delta: WireDelta, told: WireLogprobs): TokenLogprobs {
  const drawn = { token: delta.tokens[told.row - delta.index] ?? 0, text: told.text, logprob: told.logprob };
  const top = told.top.map((token, i) => {
    return { token, text: told.topText[i] ?? new Uint8Array(), logprob: told.topLogprob[i] ?? -Infinity };
  });
  return { index: told.row, drawn, top };
}
