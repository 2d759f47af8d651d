/**
 * What the client throws. The names, and `code`, are those of the mesh's error codes.
 *
 * HeadraceError
 *   InvalidInput          the request is at fault; field says where
 *     ModelNotFound, PayloadTooLarge, ContextTooLong, UnsupportedModality
 *   Unauthenticated, PermissionDenied
 *   Conflict              the idempotency key was used with another body
 *   NotFound              no such request
 *   Overloaded            a queue is full; retryAfterS says when to come back
 *     TooLate             the queue is longer than the request's time
 *     Expired             it has waited for as long as its class lets a request wait
 *     RateLimited         the API key's requests or tokens of this minute are used up, or too many of its requests run
 *       QuotaExceeded     the API key's tokens of this day are used up
 *   Unavailable           no gateway or no worker could be reached
 *   DeadlineExceeded      the request's time is over
 *   Cancelled             somebody else stopped the request
 *   StageError            a stage could not do its part
 */
import { fromBinary } from "@bufbuild/protobuf";
import { Metadata, status, type ServiceError } from "@grpc/grpc-js";

import { FailureSchema, type Failure } from "./gen/headrace/v1/common_pb.js";

const FAILURE_KEY = "headrace-failure-bin"; // trailing metadata: a headrace.v1.Failure

export interface About {
  /** The offending input, if any. */
  field?: string;
  /** Seconds; 0: coming back does not help, or nobody knows when it would. */
  retryAfterS?: number;
  cause?: unknown;
}

export class HeadraceError extends Error {
  static readonly code: string = "internal";
  readonly field: string;
  readonly retryAfterS: number;

  constructor(message: string, { field = "", retryAfterS = 0, cause }: About = {}) {
    super(field ? `${field}: ${message}` : message, cause === undefined ? {} : { cause });
    this.name = new.target.name;
    this.field = field;
    this.retryAfterS = retryAfterS;
  }

  /** A stable word. */
  get code(): string {
    return (this.constructor as typeof HeadraceError).code;
  }
}

export class InvalidInput extends HeadraceError {
  static override readonly code: string = "invalid_input";
}
export class ModelNotFound extends InvalidInput {
  static override readonly code = "model_not_found";
}
export class PayloadTooLarge extends InvalidInput {
  static override readonly code = "payload_too_large";
}
export class ContextTooLong extends InvalidInput {
  static override readonly code = "context_length_exceeded";
}
export class UnsupportedModality extends InvalidInput {
  static override readonly code = "unsupported_modality";
}
export class Unauthenticated extends HeadraceError {
  static override readonly code = "unauthenticated";
}
export class PermissionDenied extends HeadraceError {
  static override readonly code = "permission_denied";
}
export class Conflict extends HeadraceError {
  static override readonly code = "idempotency_conflict";
}
export class NotFound extends HeadraceError {
  static override readonly code = "not_found";
}
export class Overloaded extends HeadraceError {
  static override readonly code: string = "overloaded";
}
export class TooLate extends Overloaded {
  static override readonly code = "deadline_unreachable";
}
export class Expired extends Overloaded {
  static override readonly code = "ttl_expired";
}
export class RateLimited extends Overloaded {
  static override readonly code: string = "rate_limit_exceeded";
}
export class QuotaExceeded extends RateLimited {
  static override readonly code = "insufficient_quota";
}
export class Unavailable extends HeadraceError {
  static override readonly code = "unavailable";
}
export class DeadlineExceeded extends HeadraceError {
  static override readonly code = "deadline_exceeded";
}
export class Cancelled extends HeadraceError {
  static override readonly code = "cancelled";
}
export class StageError extends HeadraceError {
  static override readonly code = "stage_error";
}

const KINDS = [
  ...[InvalidInput, ModelNotFound, PayloadTooLarge, ContextTooLong, UnsupportedModality, Unauthenticated],
  ...[PermissionDenied, Conflict, NotFound, Overloaded, TooLate, Expired, RateLimited, QuotaExceeded, Unavailable],
  ...[DeadlineExceeded, Cancelled, StageError],
];
const BY_CODE = new Map<string, typeof HeadraceError>(KINDS.map((kind) => [kind.code, kind]));

/** For errors that no gateway put in words: the connection broke, a proxy answered. */
const BY_STATUS = new Map<status, typeof HeadraceError>([
  [status.UNAVAILABLE, Unavailable],
  [status.UNKNOWN, Unavailable],
  [status.INTERNAL, Unavailable], // a reset stream
  [status.CANCELLED, Cancelled],
  [status.DEADLINE_EXCEEDED, DeadlineExceeded],
  [status.RESOURCE_EXHAUSTED, PayloadTooLarge], // gRPC's own limit on a message
  [status.UNAUTHENTICATED, Unauthenticated],
  [status.PERMISSION_DENIED, PermissionDenied],
  [status.INVALID_ARGUMENT, InvalidInput],
  [status.NOT_FOUND, NotFound],
]);

export function ofFailure(failure: Failure, cause?: unknown): HeadraceError {
  const kind = BY_CODE.get(failure.code) ?? HeadraceError;
  return new kind(failure.message, { field: failure.field, retryAfterS: failure.retryAfterS, cause });
}

/** The typed error behind a failed call. What did not come from a call is thrown as it is: it is a bug of ours. */
export function ofCall(error: unknown): HeadraceError {
  if (!isServiceError(error)) throw error;
  const [packed] = error.metadata.get(FAILURE_KEY);
  if (packed instanceof Uint8Array) return ofFailure(fromBinary(FailureSchema, packed), error);
  const kind = BY_STATUS.get(error.code) ?? HeadraceError;
  return new kind(error.details || (status[error.code] ?? "UNKNOWN"), { cause: error });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error && error.metadata instanceof Metadata;
}
