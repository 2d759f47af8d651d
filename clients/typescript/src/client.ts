/** The client: a thin shell around answer.ts. It talks to one of several gateways; what breaks goes on at the next. */
import { setTimeout as sleep } from "node:timers/promises";

import { create, type MessageShape } from "@bufbuild/protobuf";
import {
  Client as Channel,
  status,
  type ChannelCredentials,
  type ClientReadableStream,
  type Metadata,
  type ServiceError,
} from "@grpc/grpc-js";

import { channelOptionsOf, credentialsOf, metadataOf, type Access } from "./access.js";
import { Answer, RETRIES } from "./answer.js";
import { InvalidInput, Unavailable, ofCall } from "./errors.js";
import {
  CancelGenerateRequestSchema,
  GatewayService,
  ListModelsRequestSchema,
  stream,
  unary,
  type GenerateEvent,
} from "./wire.js";
import { build, type Conversation, type Options } from "./request.js";
import type { Delta, End, Model, Stage, ToolCall, Usage } from "./types.js";

const RETRY_COUNT = "x-headrace-retry-count"; // the gateway has a budget for those who come back
const UNARY_S_MAX = 10; // Cancel and ListModels ask nobody who computes

export interface Signal {
  /** Aborted: the request is cancelled everywhere, and who waits for it gets the signal's reason. */
  signal?: AbortSignal | undefined;
}

/**
 * An answer, or the several (n) to one question. Iterate it for deltas, or await text(); nothing is asked before that. Leaving it early cancels the
 * request, unless it is to be kept (keepOnDisconnect).
 *
 * @example for await (const delta of client.generate("Count to ten.")) process.stdout.write(delta.text);
 */
export class AnswerStream implements AsyncIterable<Delta> {
  readonly #client: Client;
  readonly #answer: Answer;
  readonly #signal: AbortSignal | undefined;
  readonly #deltas: AsyncGenerator<Delta, void, undefined>;
  #call: ClientReadableStream<GenerateEvent> | undefined;
  #connected = false;

  /** @internal */
  constructor(client: Client, answer: Answer, signal: AbortSignal | undefined) {
    this.#client = client;
    this.#answer = answer;
    this.#signal = signal;
    this.#deltas = this.#read();
  }

  /** Throws HeadraceError, or the reason of the signal that was aborted. */
  [Symbol.asyncIterator](): AsyncGenerator<Delta, void, undefined> {
    return this.#deltas;
  }

  /** The rest of the first answer, waited for. Throws what iterating throws. */
  async text(): Promise<string> {
    return (await this.texts())[0] ?? "";
  }

  /** The rest of each answer, waited for. */
  async texts(): Promise<string[]> {
    const texts = this.#answer.choices.map(() => "");
    for await (const delta of this) texts[delta.choice] += delta.text;
    return texts;
  }

  /** Stop the request itself; iteration then ends, and end.reason is "cancelled". */
  async cancel(): Promise<void> {
    this.#answer.cancelled = true;
    if (this.#answer.requestId) await this.#client.cancel(this.#answer.requestId);
    else this.#call?.cancel();
  }

  /** Stop reading: as if the loop were left. */
  async close(): Promise<void> {
    this.#call?.cancel();
    await this.#deltas.return();
  }

  /** Empty until the gateway has accepted the request. */
  get requestId(): string {
    return this.#answer.requestId;
  }

  /** Empty unless the request is sampled. */
  get traceId(): string {
    return this.#answer.traceId;
  }

  get model(): string {
    return this.#answer.model;
  }

  /** Of each answer; cancelling the first one's cancels all. */
  get requestIds(): string[] {
    return this.#answer.choices.map((choice) => choice.requestId);
  }

  /** Of the first answer; undefined while it runs. */
  get end(): End | undefined {
    return this.ends[0];
  }

  get ends(): (End | undefined)[] {
    return this.#answer.choices.map((choice) => choice.end);
  }

  /** Of the first answer, as far as they have come; to be made where end.reason is "tool_calls". */
  get toolCalls(): ToolCall[] {
    return this.allToolCalls[0] ?? [];
  }

  /** Of each answer. */
  get allToolCalls(): ToolCall[][] {
    return this.#answer.choices.map((choice) => [...choice.calls.values()].map((call) => ({ ...call })));
  }

  /** Of all answers together: the question counts once. */
  get usage(): Usage {
    return this.#answer.usage;
  }

  /** Of the first answer. */
  get timeline(): Stage[] {
    return this.end?.timeline ?? [];
  }

  async *#read(): AsyncGenerator<Delta, void, undefined> {
    const answer = this.#answer;
    let elsewhere = false;
    try {
      while (!answer.over) {
        let waitS = 0;
        try {
          yield* this.#attempt(elsewhere);
        } catch (error) {
          this.#signal?.throwIfAborted();
          if (answer.over) break;
          waitS = answer.broken(error);
          elsewhere = true;
        }
        if (!answer.over) await this.#pause(waitS);
      }
    } finally {
      // A gateway that is read from notices who leaves. Where there is none the client says so itself, once; if nobody
      // can be reached the request ends at its deadline.
      if (!this.#connected && !answer.over && !answer.keeps) {
        await this.#client.cancel(answer.requestId).catch(() => false);
      }
    }
    if (answer.error !== undefined) throw answer.error;
  }

  /** What one call brings. Throws a ServiceError, or Unavailable where it ends before the answer does. */
  async *#attempt(elsewhere: boolean): AsyncGenerator<Delta, void, undefined> {
    this.#connected = false;
    this.#signal?.throwIfAborted();
    const call = this.#client.begin(this.#answer, elsewhere);
    this.#call = call;
    const stop = (): void => call.cancel();
    this.#signal?.addEventListener("abort", stop, { once: true });
    let lost = false; // told at once, before what had come is read
    call.on("error", (error: ServiceError) => {
      lost = error.code !== status.CANCELLED;
      if (lost) this.#connected = false;
    });
    try {
      for await (const event of call) {
        this.#connected = !lost;
        const delta = this.#answer.take(event as GenerateEvent);
        if (delta !== undefined) yield delta;
      }
    } finally {
      this.#signal?.removeEventListener("abort", stop);
      call.cancel();
    }
    if (!this.#answer.over) throw new Unavailable("the gateway ended the stream before the answer's end");
  }

  async #pause(waitS: number): Promise<void> {
    const signal = this.#signal;
    await sleep(1000 * waitS, undefined, signal === undefined ? {} : { signal }).catch(() => signal?.throwIfAborted());
  }
}

/**
 * Talks to one of several gateways of a cell; an answer that breaks goes on at the next.
 *
 * @example
 * const client = new Client("127.0.0.1:8001");
 * console.log(await client.generate("Which digit is this?", { images: [await readFile("seven.png")] }).text());
 * client.close();
 */
export class Client {
  readonly #addresses: readonly string[];
  readonly #access: Access;
  readonly #maxRetries: number;
  readonly #metadata: Metadata;
  readonly #credentials: ChannelCredentials;
  readonly #channels = new Map<string, Channel>();
  #at = 0;

  /** addresses: host:port, one or several. */
  constructor(addresses: string | readonly string[], access: Access = {}) {
    this.#addresses = typeof addresses === "string" ? addresses.split(",") : [...addresses];
    if (this.#addresses.length === 0 || this.#addresses.includes("")) {
      throw new InvalidInput("at least one gateway address is needed, host:port", { field: "addresses" });
    }
    this.#maxRetries = access.maxRetries ?? RETRIES;
    if (this.#maxRetries < 0) {
      throw new InvalidInput(`maxRetries is ${this.#maxRetries}; it is 0 or more`, { field: "maxRetries" });
    }
    this.#access = access;
    this.#metadata = metadataOf(access);
    this.#credentials = credentialsOf(access);
  }

  /** Asks for an answer. Throws InvalidInput where the options exclude one another. */
  generate(conversation: Conversation, { signal, ...options }: Options & Signal = {}): AnswerStream {
    return new AnswerStream(this, new Answer(build(conversation, options), { maxRetries: this.#maxRetries }), signal);
  }

  /** Reads a request that runs or has ended within the last minutes, from a token on, at any gateway. */
  attach(requestId: string, { nextIndex = 0, signal }: { nextIndex?: number } & Signal = {}): AnswerStream {
    return new AnswerStream(this, new Answer(undefined, { requestId, nextIndex }), signal);
  }

  /** false: no such request. */
  async cancel(requestId: string, { signal }: Signal = {}): Promise<boolean> {
    const request = create(CancelGenerateRequestSchema, { requestId });
    return (await this.#unary(GatewayService.method.cancel, request, signal)).known;
  }

  async models({ signal }: Signal = {}): Promise<Model[]> {
    const reply = await this.#unary(GatewayService.method.listModels, create(ListModelsRequestSchema), signal);
    return reply.models.map(({ id, contextTokens, modalities, servable }) => {
      return { id, contextTokens, modalities, servable };
    });
  }

  /** Ends all connections; what is being read breaks. */
  close(): void {
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  /** @internal */
  begin(answer: Answer, elsewhere: boolean): ClientReadableStream<GenerateEvent> {
    const call = answer.next();
    const options = call.deadline === undefined ? {} : { deadline: call.deadline };
    const { generate, attach } = GatewayService.method;
    const channel = this.#channel(elsewhere);
    if (call.method === "attach") return stream(channel, attach, call.request, this.#metadata, options);
    const metadata = this.#metadata.clone();
    if (call.refusals > 0) metadata.set(RETRY_COUNT, String(call.refusals));
    return stream(channel, generate, call.request, metadata, options);
  }

  /** Cancel and ListModels may be made twice: an unreachable gateway passes the call on to the next. */
  async #unary<M extends (typeof GatewayService.method)["cancel" | "listModels"]>(
    method: M,
    request: MessageShape<M["input"]>,
    signal: AbortSignal | undefined,
  ): Promise<MessageShape<M["output"]>> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const deadline = new Date(Date.now() + 1000 * UNARY_S_MAX);
        return await unary(this.#channel(attempt > 0), method, request, this.#metadata, { deadline, signal });
      } catch (error) {
        signal?.throwIfAborted();
        const typed = ofCall(error);
        if (!(typed instanceof Unavailable) || attempt + 1 >= this.#addresses.length) throw typed;
      }
    }
  }

  #channel(elsewhere: boolean): Channel {
    if (elsewhere) this.#at = (this.#at + 1) % this.#addresses.length;
    const address = this.#addresses[this.#at] as string;
    let channel = this.#channels.get(address);
    if (channel === undefined) {
      channel = new Channel(address, this.#credentials, channelOptionsOf(this.#access));
      this.#channels.set(address, channel);
    }
    return channel;
  }
}
