/** How a client gets in: an API key, and TLS with the authority that it trusts and a certificate of its own. */
import { readFileSync } from "node:fs";

import { credentials, Metadata, type ChannelCredentials, type ChannelOptions } from "@grpc/grpc-js";

const MESSAGE_BYTES_MAX = 64 * 1024 * 1024; // as the gateway's

/** PEM texts, not paths. */
export interface Tls {
  ca: string | Uint8Array;
  /** Where the gateway asks for a certificate; with its key. */
  cert?: string | Uint8Array;
  key?: string | Uint8Array;
  /** What the server's certificate must say instead of its address. */
  name?: string;
}

export interface Access {
  apiKey?: string;
  /** Absent: nothing is encrypted. */
  tls?: Tls;
  /** Sample every request of this client. */
  trace?: boolean;
  traceparent?: string;
  /** How often one answer is asked for again when the mesh is full, after as long as it says; absent: 2. */
  maxRetries?: number;
}

/** From HEADRACE_API_KEY, and the paths in HEADRACE_TLS_CA, HEADRACE_TLS_CERT and HEADRACE_TLS_KEY. */
export function accessOfEnv(env: Readonly<Record<string, string | undefined>> = process.env): Access {
  const { HEADRACE_API_KEY: apiKey, HEADRACE_TLS_CA: ca, HEADRACE_TLS_CERT: cert, HEADRACE_TLS_KEY: key } = env;
  const pair = cert && key ? { cert: readFileSync(cert), key: readFileSync(key) } : {};
  return { ...(apiKey ? { apiKey } : {}), ...(ca ? { tls: { ca: readFileSync(ca), ...pair } } : {}) };
}

export function metadataOf({ apiKey, trace, traceparent }: Access): Metadata {
  const metadata = new Metadata();
  if (apiKey) metadata.set("authorization", `Bearer ${apiKey}`);
  if (trace) metadata.set("x-headrace-trace", "1");
  if (traceparent) metadata.set("traceparent", traceparent);
  return metadata;
}

export function credentialsOf({ tls }: Access): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  const [cert, key] = [tls.cert, tls.key].map((pem) => (pem === undefined ? null : Buffer.from(pem)));
  return credentials.createSsl(Buffer.from(tls.ca), key, cert);
}

export function channelOptionsOf({ tls }: Access): ChannelOptions {
  return {
    "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    "grpc.keepalive_time_ms": 30_000, // a peer that vanished without a word is noticed
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
    ...(tls?.name === undefined ? {} : { "grpc.ssl_target_name_override": tls.name }),
  };
}
