/** From a conversation and options to the message that the gateway takes. */
import { randomBytes, randomUUID } from "node:crypto";

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import { InvalidInput } from "./errors.js";
import {
  GenerateRequestSchema,
  MessageSchema,
  ToolChoiceSchema,
  ToolSchema,
  type ContentPartSchema,
  type GenerateRequest,
} from "./gen/headrace/v1/gateway_pb.js";
import type { Media, Message, Part, Tool } from "./types.js";

export type Conversation = string | readonly Message[];

/** How to generate. What is absent is the gateway's to choose. */
export interface Options {
  model?: string;
  maxTokens?: number;
  /** 0, or absent: greedy. */
  temperature?: number;
  topP?: number;
  topK?: number;
  seed?: number | bigint;
  stop?: readonly string[];
  repetitionPenalty?: number;
  ignoreEos?: boolean;
  /** 0: of the tokens; n: of the n likeliest beside each, too. */
  logprobs?: number;
  /** What the answer must be, at most one of these: JSON of this schema, ... */
  jsonSchema?: Readonly<Record<string, unknown>>;
  /** ... any JSON object, ... */
  jsonObject?: boolean;
  /** ... a text that the whole expression matches, ... */
  regex?: string;
  /** ... one of these texts. */
  choice?: readonly string[];
  /** At most 128 functions that the model may call. */
  tools?: readonly Tool[];
  /** Absent: "auto"; a tool: exactly one call of it. */
  toolChoice?: "auto" | "required" | "none" | Tool;
  /** false: at most one call; else at most 8. */
  parallelToolCalls?: boolean;
  /** Answers, each a request of its own; at most 8; absent: one. */
  n?: number;
  sloClass?: string;
  /** Wanted until the first token; absent: the class's. */
  ttftTargetS?: number;
  /** Wanted between two tokens; absent: the class's. */
  tbtTargetS?: number;
  /** -3 .. 3, higher is sooner; what is beyond is clamped. */
  priority?: number;
  /** Whose share the request counts against, among this tenant's. */
  flow?: string;
  /** The request ends after so long; absent: its class's. */
  timeoutS?: number;
  /** The same key with the same body is the same request; absent: one of this call's own, so that a retry is safe. */
  idempotencyKey?: string;
  keepOnDisconnect?: boolean;
  /** Stand before the text of the last message. */
  images?: readonly Uint8Array[];
  audio?: readonly Uint8Array[];
  videos?: readonly Uint8Array[];
}

/** A request with a key of its own, so that trying again is the same request. Throws InvalidInput. */
export function build(conversation: Conversation, options: Options): GenerateRequest {
  const messages = withMedia(
    typeof conversation === "string" ? [{ role: "user", content: conversation }] : conversation,
    mediaOf(options),
  );
  return create(GenerateRequestSchema, {
    model: options.model ?? "",
    messages: messages.map(messageOf),
    sampling: {
      temperature: options.temperature ?? 0,
      topP: options.topP ?? 0,
      topK: options.topK ?? 0,
      seed: seedOf(options),
      repetitionPenalty: options.repetitionPenalty ?? 0,
      maxTokens: options.maxTokens ?? 0,
      stop: [...(options.stop ?? [])],
      ignoreEos: options.ignoreEos ?? false,
      ...(options.logprobs === undefined ? {} : { logprobs: options.logprobs }),
      grammar: grammarOf(options),
    },
    sloClass: options.sloClass ?? "",
    ttftTargetS: options.ttftTargetS ?? 0,
    tbtTargetS: options.tbtTargetS ?? 0,
    priority: options.priority ?? 0,
    flow: options.flow ?? "",
    timeoutS: options.timeoutS ?? 0,
    idempotencyKey: options.idempotencyKey || randomUUID(),
    keepOnDisconnect: options.keepOnDisconnect ?? false,
    tools: (options.tools ?? []).map(toolOf),
    ...(options.toolChoice === undefined ? {} : { toolChoice: toolChoiceOf(options.toolChoice) }),
    oneCall: options.parallelToolCalls === false,
    n: options.n ?? 1,
  });
}

function mediaOf({ images = [], audio = [], videos = [] }: Options): Media[] {
  return [
    ...images.map((image) => ({ image })),
    ...audio.map((clip) => ({ audio: clip })),
    ...videos.map((video) => ({ video })),
  ];
}

function withMedia(messages: readonly Message[], media: readonly Media[]): readonly Message[] {
  const last = messages.at(-1);
  if (media.length === 0) return messages;
  if (last === undefined) throw new InvalidInput("media need a message to belong to", { field: "messages" });
  return [...messages.slice(0, -1), { ...last, content: [...media, ...partsOf(last)] }];
}

function partsOf(message: Message): readonly Part[] {
  const { content = [] } = message;
  return typeof content === "string" ? [content] : content;
}

function messageOf(message: Message): MessageInitShape<typeof MessageSchema> {
  const { role, toolCalls = [], toolCallId = "" } = message;
  const calls = toolCalls.map((call) => ({ id: call.id, name: call.name, arguments: call.arguments }));
  return { role, content: partsOf(message).map(partOf), toolCalls: calls, toolCallId };
}

function toolOf({ name, description = "", parameters }: Tool): MessageInitShape<typeof ToolSchema> {
  return { name, description, parameters: parameters === undefined ? "" : JSON.stringify(parameters) };
}

function toolChoiceOf(choice: string | Tool): MessageInitShape<typeof ToolChoiceSchema> {
  return { kind: typeof choice === "string" ? { case: "mode", value: choice } : { case: "name", value: choice.name } };
}

function partOf(part: Part): MessageInitShape<typeof ContentPartSchema> {
  if (typeof part === "string") return { kind: { case: "text", value: part } };
  const [[modality, data] = ["", new Uint8Array()]] = Object.entries<Uint8Array>(part);
  return { kind: { case: "media", value: { modality, data } } };
}

/** The same seed for every try of this request: a retry draws what the first one drew. */
function seedOf({ seed, temperature }: Options): bigint {
  if (seed !== undefined) return BigInt(seed);
  return temperature ? (randomBytes(8).readBigUInt64LE() >> 2n) + 1n : 0n;
}

function grammarOf({ jsonSchema, jsonObject, regex, choice }: Options): Uint8Array {
  const said = { json_schema: jsonSchema, json_object: jsonObject || undefined, regex: regex || undefined, choice };
  const asked = Object.entries(said).filter(([, value]) => value !== undefined);
  if (asked.length > 1) {
    const names = asked.map(([name]) => name).join(" and ");
    throw new InvalidInput(`${names} exclude one another`, { field: "sampling.grammar" });
  }
  return asked.length ? new TextEncoder().encode(JSON.stringify(Object.fromEntries(asked))) : new Uint8Array();
}
