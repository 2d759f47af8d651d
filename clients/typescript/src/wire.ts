/** The protocol as it is generated from protos/headrace/v1, and how its methods are called over @grpc/grpc-js. */
import {
  fromBinary,
  toBinary,
  type DescMethodStreaming,
  type DescMethodUnary,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Client as Channel, type CallOptions, type ClientReadableStream, type Metadata } from "@grpc/grpc-js";

export * from "./gen/headrace/v1/common_pb.js";
export * from "./gen/headrace/v1/gateway_pb.js";

/** A call whose answer is a stream of messages: iterate it, or cancel() it. */
export function stream<M extends DescMethodStreaming>(
  channel: Channel,
  method: M,
  request: MessageShape<M["input"]>,
  metadata: Metadata,
  options: CallOptions = {},
): ClientReadableStream<MessageShape<M["output"]>> {
  const { input, output } = method;
  return channel.makeServerStreamRequest(
    pathOf(method),
    (message: MessageShape<M["input"]>) => Buffer.from(toBinary(input, message)),
    (bytes) => fromBinary(output, bytes) as MessageShape<M["output"]>,
    request,
    metadata,
    options,
  );
}

/** A call with one answer. Rejects with a ServiceError, or with the signal's reason. */
export function unary<M extends DescMethodUnary>(
  channel: Channel,
  method: M,
  request: MessageShape<M["input"]>,
  metadata: Metadata,
  { signal, ...options }: CallOptions & { signal?: AbortSignal | undefined } = {},
): Promise<MessageShape<M["output"]>> {
  const { input, output } = method;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const call = channel.makeUnaryRequest(
      pathOf(method),
      (message: MessageShape<M["input"]>) => Buffer.from(toBinary(input, message)),
      (bytes) => fromBinary(output, bytes) as MessageShape<M["output"]>,
      request,
      metadata,
      options,
      (error, response) => {
        signal?.removeEventListener("abort", stop);
        if (signal?.aborted) reject(signal.reason);
        else if (error !== null || response === undefined) reject(error);
        else resolve(response);
      },
    );
    const stop = (): void => call.cancel();
    signal?.addEventListener("abort", stop, { once: true });
  });
}

function pathOf(method: DescMethodStreaming | DescMethodUnary): string {
  return `/${method.parent.typeName}/${method.name}`;
}
