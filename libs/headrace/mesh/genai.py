"""Attribute names of traces, pinned in this one place.

GenAI names follow open-telemetry/semantic-conventions-genai (status Development) as of 1.38; they have moved
before. Ours start with headrace.
"""

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ERROR_TYPE = "error.type"

PROVIDER = "headrace"
OPERATION_CHAT = "chat"
OPERATION_EMBEDDINGS = "embeddings"

REQUEST_ID = "headrace.request_id"
ATTEMPT = "headrace.attempt"
SLO_CLASS = "headrace.slo_class"
WORKER = "headrace.worker"
PART = "headrace.part"
JOULES = "headrace.joules"  # of a stage: what its worker's devices took for this request
CACHED = "headrace.cached"  # of encode: the embedding was there already
