"""The mesh and the load under which the planner's operations come about all the time.

Two workers of four slots, and two models. Long answers of the class batch-2 take every slot; short ones that want their
first token within half a second have them evicted. Most of what is asked at a time is for one model, so that both
workers load it and evicted answers may move; and which model that is changes all the time.
"""

import random
import uuid
from pathlib import Path

from headrace.cli.plan import MeshConfig
from headrace.v1 import gateway_pb2 as pb
from tests.chaos.faults import Load
from tests.e2e.asking import picture, request
from tests.e2e.meshes import small_mesh

PROFILE = Path(__file__).parent / "operations.toml"
MODELS = ("profile-tiny", "profile-tiny-b")
# So many questions long this share of them asks for one model, the others for any.
FASHION_QUESTIONS, FASHION_SHARE = 24, 0.8
LONG, SHORT = range(160, 261), range(10, 31)  # tokens of an answer; an answer is not evicted in its first second
LONG_CLIENTS, SHORT_CLIENTS = 9, 5  # the long ones alone take all slots
TTFT_TARGET_S = 0.5  # shorter than the wait for a long answer's end, longer than an eviction or a warm load
TEXTS = 3  # of each kind and model: their undisturbed answers are asked for once
# A long answer may be evicted four times, and whoever is stopped holds up all the others for ten seconds.
ANSWER_WITHIN_S = 120.0
# One worker evicts, resumes or loads every four seconds or so, and gives something away about once a minute.
LAND_WITHIN_S = 300.0
SETTLED_S = 4.0  # models have been loaded by then, and answers evicted


def operations_mesh(data_dir: Path) -> MeshConfig:
    """Each worker prefills and decodes, so that it may take what others evict, and change its model."""
    return small_mesh(
        data_dir,
        profile=str(PROFILE),
        models=MODELS,
        colocate=("prefill", "decode"),
        prefill=2,
        decode=2,
        environment={
            "HEADRACE_SLOTS": "4",
            "HEADRACE_PLANNER": "headrace",
            "HEADRACE_PREDICT": "off",
            "HEADRACE_WARM_MODELS": "1",
        },
    )


def question(rng: random.Random, client: int, number: int) -> pb.GenerateRequest:
    long = client < LONG_CLIENTS
    fashionable = MODELS[(1 + number // FASHION_QUESTIONS) % len(MODELS)]  # a worker that has just started has another
    model = fashionable if rng.random() < FASHION_SHARE else rng.choice(MODELS)
    return _asked(long, rng.randrange(TEXTS), model, rng.choice(LONG if long else SHORT))


def _asked(long: bool, text: int, model: str, max_tokens: int) -> pb.GenerateRequest:
    """Some of the default model's bring a picture: an evicted KV cache is all that is left of it."""
    kind = "long" if long else "short"
    images = [picture(text)] if long and text == 0 and model == MODELS[0] else []
    message = request(f"{kind} question {text}", max_tokens=max_tokens, images=images, key=uuid.uuid4().hex, keep=True)
    message.model = model
    if long:
        message.slo_class = "batch-2"
    else:
        message.ttft_target_s = TTFT_TARGET_S
    return message


def undisturbed(message: pb.GenerateRequest) -> pb.GenerateRequest:
    """The same question where nobody is in a hurry, answered as long as it is ever wanted."""
    plain = pb.GenerateRequest(model=message.model, messages=message.messages, slo_class="batch-2")
    plain.sampling.CopyFrom(message.sampling)
    plain.sampling.max_tokens = LONG[-1] if message.slo_class == "batch-2" else SHORT[-1]
    return plain


LOAD = Load(LONG_CLIENTS + SHORT_CLIENTS, question, undisturbed, ANSWER_WITHIN_S, LAND_WITHIN_S, SETTLED_S)
