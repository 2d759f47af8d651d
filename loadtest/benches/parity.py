"""Whether the mesh says what transformers says: eight mixed requests a model, stage by stage in separate processes.

Every architecture as a small random checkpoint on the torch engine, and the default model on its own. Tokens must be
equal one by one; log-probabilities of the likeliest twenty are compared at each of them. --mutate breaks something on
purpose: then the shares must fall.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc.aio

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.engines.families import family
from headrace.v1 import gateway_pb2, gateway_pb2_grpc
from loadtest.benches.parity_default import MODEL, DefaultReference
from loadtest.benches.parity_mutations import MUTATIONS, Mutation
from loadtest.benches.parity_questions import Question, questions
from loadtest.benches.parity_reference import Reference, Told
from loadtest.benches.report import finish, say
from tests.checkpoints_more import BUILDERS, build

SEED = 7
TOP = 20
ANSWER_S = 60.0
QUICK = ("llama", "qwen2_5_vl")


@dataclass(frozen=True, slots=True)
class Heard:
    """What the mesh answered: tokens, and for each the log-probabilities of the likeliest."""

    tokens: list[int]
    top: list[dict[int, float]]
    failure: str = ""


class Teller(Protocol):
    def answer(self, question: Question) -> Told: ...


async def run(names: Sequence[str], engine: str, mutation: Mutation | None) -> dict[str, Any]:
    by_model, differences, counted = dict[str, float](), list[float](), 0
    with tempfile.TemporaryDirectory(prefix="headrace-parity-") as folder:
        for name in names:
            shares = await examine(name, Path(folder), engine, mutation)
            exact = [difference is not None for difference in shares]
            by_model[name] = sum(exact) / len(exact)
            differences += [difference for difference in shares if difference is not None]
            counted += len(shares)
            say(f"{name:<18} {by_model[name]:7.2%} of {len(shares)}, logits within {max(differences, default=0):.1e}")
    total = sum(by_model.values()) / len(by_model)
    return {
        "requests": counted,
        "exact_share": total,
        "logit_diff_max": max(differences, default=None),
        "by_model": by_model,
        "engine": engine,
        "mutation": mutation.name if mutation else None,
    }


async def examine(name: str, folder: Path, engine: str, mutation: Mutation | None) -> list[float | None]:
    """For each request the largest difference of a log-probability; None where a token differs."""
    if name == MODEL:
        model, served, used = MODEL, MODEL, "onnx"
    else:
        directory = build(name, folder, SEED)
        model, used = str(directory), engine
        served = str(mutation.of_checkpoint(directory)) if mutation else model
        await _export(served)
    asked = questions(family(model).spec.modalities, SEED)
    sent = [mutation.of_question(question) for question in asked] if mutation else asked
    environment = mutation.environment(folder) if mutation else {}
    config = MeshConfig(data_dir=folder / f"mesh-{name}", model=served, engine=used, environment=environment)
    async with Mesh(config) as mesh:
        heard = await _ask(mesh.grpc_addr, sent)
    teller: Teller = DefaultReference() if name == MODEL else Reference(Path(model))
    return [_compare(question, answer, teller) for question, answer in zip(asked, heard, strict=True)]


async def _export(directory: str) -> None:
    command = (sys.executable, "-m", "headrace.cli.main", "model", "export", directory)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, f"{' '.join(command)} failed"


async def _ask(address: str, asked: Sequence[Question]) -> list[Heard]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
        return list(await asyncio.gather(*(_answer(stub, question) for question in asked)))


async def _answer(stub: Any, question: Question) -> Heard:
    """A request that fails is an answer that differs: the mutations may well end so."""
    await asyncio.sleep(question.arrives_s)
    tokens, top = list[int](), list[dict[int, float]]()
    try:
        async for event in stub.Generate(question.request("", TOP), timeout=ANSWER_S):
            _hear(event, tokens, top)
    except grpc.aio.AioRpcError as error:
        return Heard(tokens, top, f"{error.code().name} {error.details()}")
    return Heard(tokens, top)


def _hear(event: gateway_pb2.GenerateEvent, tokens: list[int], top: list[dict[int, float]]) -> None:
    if event.WhichOneof("kind") == "delta":
        tokens += event.delta.tokens
        top += [dict(zip(told.top, told.top_logprob, strict=True)) for told in event.delta.logprobs]


def _compare(question: Question, heard: Heard, teller: Teller) -> float | None:
    told = teller.answer(question)
    if heard.tokens != told.tokens:
        say(f"  {question.name}: differs. {heard.failure}\n    mesh      {heard.tokens}\n    reference {told.tokens}")
        return None
    assert len(heard.top) == len(heard.tokens), "every token comes with its log-probabilities"
    return max(
        abs(logprob - float(row[token]))
        for row, top in zip(told.logprobs, heard.top, strict=True)
        for token, logprob in top.items()
    )


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench parity", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)} alone")
    parser.add_argument("--models", default="", help=f"some of {', '.join((MODEL, *BUILDERS))}, with commas between")
    parser.add_argument("--mutate", choices=list(MUTATIONS), help="break it on purpose")
    args = parser.parse_args(argv)
    names = args.models.split(",") if args.models else QUICK if args.quick else (MODEL, *BUILDERS)
    figures = asyncio.run(run(names, "torch", MUTATIONS[args.mutate] if args.mutate else None))
    for key in ("requests", "exact_share", "logit_diff_max"):
        say(f"{key}: {figures[key]}")
    if args.json:
        finish("parity", argv, [SEED], figures)


if __name__ == "__main__":
    main()
