"""The mesh and the load under which prefill begins on a request's first pictures all the time.

Encoders take 60 ms a picture and keep none; questions have four to six. Few clients: who begins early needs room.
"""

import random
import uuid
from pathlib import Path

from headrace.cli.plan import MeshConfig
from headrace.v1 import gateway_pb2 as pb
from tests.chaos.faults import Load, again
from tests.e2e.asking import picture, request
from tests.e2e.meshes import small_mesh

PROFILE = Path(__file__).parents[1] / "e2e" / "overlap.toml"
CLIENTS = 4
PICTURES = range(4, 7)


def overlap_mesh(data_dir: Path) -> MeshConfig:
    environment = {"HEADRACE_ENCODER_CACHE_MB": "0"}
    return small_mesh(data_dir, profile=str(PROFILE), encoders=2, prefill=2, decode=2, environment=environment)


def question(rng: random.Random, _client: int, number: int) -> pb.GenerateRequest:
    images = [picture(rng.randrange(1000)) for _ in range(rng.choice(PICTURES))]
    text = f"question {number} {rng.random()}"
    return request(text, max_tokens=rng.randint(10, 30), images=images, key=uuid.uuid4().hex, keep=True)


LOAD = Load(CLIENTS, question, again)
