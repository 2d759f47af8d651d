/** The mesh that tests/e2e/test_typescript.py has started: where it is, and the processes that may be killed. */
import { deflateSync } from "node:zlib";

export interface Mesh {
  /** host:port of each gateway's gRPC. */
  grpc: string[];
  http: string;
  /** Process of each gateway. */
  pids: number[];
  /** Paths of PEM files and API keys, where the mesh is secured. */
  ca?: string;
  cert?: string;
  key?: string;
  apiKey?: string;
  /** One request a minute. */
  limitedKey?: string;
  /** A service that asks for a certificate. */
  queueManager?: string;
}

const given = process.env["HEADRACE_TEST_MESH"];
if (given === undefined) throw new Error("HEADRACE_TEST_MESH is missing: run `make test-typescript`");
export const mesh = JSON.parse(given) as Mesh;

/** A PNG of one colour. */
export function picture(red: number, width = 48, height = 32): Uint8Array {
  const row = Buffer.concat([Buffer.of(0), Buffer.alloc(3 * width).fill(Buffer.of(red, 40, 90))]);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2], 8); // bits a channel, RGB
  const pixels = deflateSync(Buffer.concat(Array<Buffer>(height).fill(row)));
  const signature = Buffer.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))]);
}

function chunk(kind: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(kind, "latin1"), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}

function crc32(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** A WAV of a tone, 16 kHz. */
export function tone(seconds: number): Uint8Array {
  const samples = Math.round(16_000 * seconds);
  const wav = Buffer.alloc(44 + 2 * samples);
  wav.write("RIFF", 0, "latin1");
  wav.writeUInt32LE(36 + 2 * samples, 4);
  wav.write("WAVEfmt ", 8, "latin1");
  wav.writeUInt32LE(16, 16);
  wav.set([1, 0, 1, 0], 20); // PCM, one channel
  wav.writeUInt32LE(16_000, 24);
  wav.writeUInt32LE(32_000, 28);
  wav.set([2, 0, 16, 0], 32);
  wav.write("data", 36, "latin1");
  wav.writeUInt32LE(2 * samples, 40);
  for (let i = 0; i < samples; i += 1) wav.writeInt16LE(Math.round(8_000 * Math.sin(i / 8)), 44 + 2 * i);
  return wav;
}
