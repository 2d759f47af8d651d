/** What the client takes in and hands out. */

/** The bytes of a file in any common format: PNG, JPEG, ...; WAV, FLAC, MP3, Ogg, MP4; MP4, WebM, Matroska, GIF. */
export type Media = { image: Uint8Array } | { audio: Uint8Array } | { video: Uint8Array };

/** Text, or a media part. */
export type Part = string | Media;

/** A function that the model may call. */
export interface Tool {
  /** At most 64 letters, digits, _ and -. */
  name: string;
  description?: string;
  /** JSON Schema of an object, always kept; absent: no arguments. */
  parameters?: Readonly<Record<string, unknown>>;
}

/** A call that an answer makes. arguments: a JSON object, as text. */
export interface ToolCall {
  id: string;
  name: string;
  arguments: string;
}

/** What is added to a call: its id and name with the first piece (empty later), arguments piece by piece. */
export interface ToolCallDelta extends ToolCall {
  /** Of the call in its answer. */
  index: number;
}

/**
 * One turn. Text and media may come in any order.
 *
 * @example { role: "user", content: [{ image: await readFile("seven.png") }, "Which digit is this?"] }
 */
export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  /** May be absent beside toolCalls. */
  content?: string | readonly Part[];
  /** Of the assistant: answer.toolCalls. */
  toolCalls?: readonly ToolCall[];
  /** Of a tool: the call that it answers. */
  toolCallId?: string;
}

export interface LikelyToken {
  token: number;
  /** What the token adds to the output; special tokens add nothing. */
  text: Uint8Array;
  logprob: number;
}

/** Natural log-probabilities at one output token's position, before temperature and cuts. */
export interface TokenLogprobs {
  index: number;
  drawn: LikelyToken;
  /** As many of the likeliest as were asked for, likeliest first. */
  top: LikelyToken[];
}

/** Tokens index .. index + tokens.length - 1 and the text and calls that they complete. */
export interface Delta {
  index: number;
  tokens: number[];
  text: string;
  /** Of those tokens, if asked for. One is missing where it was lost with the worker that drew the token. */
  logprobs: TokenLogprobs[];
  toolCalls: ToolCallDelta[];
  /** Which of several answers. */
  choice: number;
}

export interface Usage {
  promptTokens: number;
  completionTokens: number;
  imageTokens: number;
  cachedTokens: number;
  /** An estimate; 0 where nothing can be read. */
  joules: number;
  audioTokens: number;
  videoTokens: number;
}

/** One interval of the request's life, seconds since the Unix epoch. */
export interface Stage {
  stage: string;
  startS: number;
  endS: number;
  worker: string;
  part: number;
  /** Of encode: the embedding was there already. */
  cached: boolean;
}

export type Reason = "stop" | "tool_calls" | "length" | "cancelled" | "deadline" | "error";

/** How an answer ended. */
export interface End {
  reason: Reason;
  usage: Usage;
  timeline: Stage[];
}

export interface Model {
  id: string;
  contextTokens: number;
  modalities: string[];
  servable: boolean;
}
