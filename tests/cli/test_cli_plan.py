"""Which processes a configuration means, how threads are shared, what a service is told."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.cli.environment import Addresses, service_command, service_environment
from headrace.cli.options import add_mesh, mesh_config, mesh_words
from headrace.cli.plan import MeshConfig, parse_colocate, plan_services, pools, worker_plan
from headrace.cli.ports import Ports

# changes, cores -> {id: threads} of the workers
SHARES = [
    ("two cores: one thread each", {}, 2, {"encoder-0": 1, "prefill-0": 1, "decode-0": 1}),
    ("eight cores: the LLM workers share them", {}, 8, {"encoder-0": 1, "prefill-0": 4, "decode-0": 4}),
    (
        "more workers than cores",
        {"decode": 3},
        2,
        {"encoder-0": 1, "prefill-0": 1, **{f"decode-{n}": 1 for n in range(3)}},
    ),
    ("colocated: nobody to share with", {"colocate": ("prefill", "decode")}, 4, {"encoder-0": 1, "worker-0": 4}),
    ("everything in one", {"colocate": ("encode", "prefill", "decode")}, 2, {"worker-0": 2}),
]


@pytest.mark.parametrize(("changes", "cores", "threads"), [row[1:] for row in SHARES], ids=[row[0] for row in SHARES])
def test_workers_and_their_threads(changes: dict[str, object], cores: int, threads: dict[str, int]) -> None:
    plans = plan_services(MeshConfig(cores=cores, **changes))  # type: ignore[arg-type]
    assert {plan.id: plan.threads for plan in plans if plan.stages} == threads


def test_managers_start_first_and_gateways_last() -> None:
    ids = [plan.id for plan in plan_services(MeshConfig(gateways=2))]
    assert ids == ["qm-0", "governor-0", "encoder-0", "prefill-0", "decode-0", "gateway-0", "gateway-1"]


def test_a_colocated_worker_is_told_its_stages() -> None:
    (worker,) = [plan for plan in plan_services(MeshConfig(colocate=("prefill", "decode"))) if plan.id == "worker-0"]
    assert service_command(worker, tethered=False)[-4:] == ["--id", "worker-0", "--stages", "prefill,decode"]


@pytest.mark.parametrize(
    ("text", "stages"),
    [("", ()), ("all", ("encode", "prefill", "decode")), ("decode,prefill", ("prefill", "decode"))],
)
def test_colocate_words(text: str, stages: tuple[str, ...]) -> None:
    assert parse_colocate(text) == stages


@pytest.mark.parametrize("text", ["prefill", "prefill,prefil", "prefill,prefill"])
def test_colocate_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"stage"):
        parse_colocate(text)


def test_every_service_has_its_own_address_and_the_first_gateway_the_wanted_ports(tmp_path: Path) -> None:
    ports = Ports()
    wanted = ports.take()
    config = MeshConfig(gateways=2, http_port=0, grpc_port=wanted, environment={"HEADRACE_LOG_LEVEL": "debug"})
    plans = plan_services(config)
    addresses = Addresses.choose(config, plans, Ports(), tmp_path, tmp_path)
    assert addresses.grpc["gateway-0"] == f"127.0.0.1:{wanted}"
    everyone = [*addresses.grpc.values(), *addresses.http.values()]
    assert len(set(everyone)) == len(everyone) == len(plans) + 2
    told = service_environment(plans[-1], config, addresses)
    assert told["HEADRACE_HTTP_ADDR"] == addresses.http["gateway-1"]
    assert told["HEADRACE_LOG_LEVEL"] == "debug"


def test_a_taken_port_is_not_given() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert Ports().take(port) != port


def parsed(*words: str) -> MeshConfig:
    parser = argparse.ArgumentParser()
    add_mesh(parser)
    return mesh_config(parser.parse_args(words), tethered=False)


SCALED = [
    # words -> pools that the queue manager is told
    ("", ""),
    ("--autoscale headrace", "encode:1-2 prefill:1-2 decode:1-2"),
    (
        "--autoscale published --encoders 0 --min-encoders 0 --max-encoders 6 --decode 3",
        "encode:0-6 prefill:1-2 decode:1-6",
    ),
    ("--autoscale headrace --colocate prefill,decode --max-decode 3", "encode:1-2 prefill+decode:1-3"),
    ("--autoscale headrace --min-decode 2 --max-decode 2", "encode:1-2 prefill:1-2 decode:2-2"),
]


@pytest.mark.parametrize(("words", "told_pools"), SCALED)
def test_the_queue_manager_is_told_which_pools_it_scales(words: str, told_pools: str, tmp_path: Path) -> None:
    config = parsed(*words.split())
    plans = plan_services(config)
    addresses = Addresses.choose(config, plans, Ports(), tmp_path, tmp_path)
    told = service_environment(plans[0], config, addresses)
    assert (plans[0].id, told.get("HEADRACE_AUTOSCALE_POOLS", "")) == ("qm-0", told_pools)
    assert told.get("HEADRACE_AUTOSCALE", "") == config.autoscale


@pytest.mark.parametrize("words", [*(words for words, _ in SCALED), "--encode image --encode audio,video"])
def test_a_mesh_in_the_background_is_told_the_same(words: str) -> None:
    parser = argparse.ArgumentParser()
    add_mesh(parser)
    args = parser.parse_args(words.split())
    assert parsed(*mesh_words(args)) == mesh_config(args, tethered=False)


def test_a_worker_that_is_added_is_like_the_others_of_its_pool() -> None:
    config = MeshConfig(cores=8, colocate=("prefill", "decode"))
    assert pools(config) == (("encode",), ("prefill", "decode"))
    for stages in pools(config):
        [first] = [plan for plan in plan_services(config) if plan.stages == stages]
        assert worker_plan(config, stages, 0) == first
        assert worker_plan(config, stages, 5) == replace(first, id=first.id.replace("-0", "-5"))


def test_encoders_of_one_modality_are_told_so_and_others_take_all() -> None:
    plans = [plan for plan in plan_services(MeshConfig(encode=("image", "audio,video"))) if plan.stages == ("encode",)]
    assert [plan.arguments for plan in plans] == [("--modalities", "image"), ("--modalities", "audio,video")]
    more = plan_services(MeshConfig(encoders=3, encode=("image",)))
    assert [plan.arguments for plan in more if plan.stages == ("encode",)] == [("--modalities", "image"), (), ()]
