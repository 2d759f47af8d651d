/** The TypeScript client of Headrace; README.md beside package.json shows its use. */
export { accessOfEnv, type Access, type Tls } from "./access.js";
export { AnswerStream, Client, type Signal } from "./client.js";
export {
  Cancelled,
  Conflict,
  ContextTooLong,
  DeadlineExceeded,
  Expired,
  HeadraceError,
  InvalidInput,
  ModelNotFound,
  NotFound,
  Overloaded,
  PayloadTooLarge,
  PermissionDenied,
  QuotaExceeded,
  RateLimited,
  StageError,
  TooLate,
  Unauthenticated,
  Unavailable,
  UnsupportedModality,
} from "./errors.js";
export type { Conversation, Options } from "./request.js";
export type * from "./types.js";
