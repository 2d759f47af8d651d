"""tritonclient, both of its clients: the Open Inference Protocol v2 on an encoder and on a model that answers."""

import queue
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import ASSETS, Served

grpcclient: Any = pytest.importorskip("tritonclient.grpc", reason="not installed here: make test-clients")
httpclient: Any = pytest.importorskip("tritonclient.http", reason="not installed here: make test-clients")
triton: Any = pytest.importorskip("tritonclient.utils", reason="not installed here: make test-clients")

pytestmark = pytest.mark.timeout(300)
PARIS = b"What is the capital of France?"
PARAMETERS = {"max_tokens": 20, "temperature": 0.0}
KINDS = ("grpc", "http")


def opened(served: Served, kind: str) -> tuple[Any, Any]:
    """The client and its module."""
    if kind == "grpc":
        return grpcclient.InferenceServerClient(served.grpc_addr), grpcclient
    return httpclient.InferenceServerClient(served.http_url.removeprefix("http://"), network_timeout=200.0), httpclient


def tensor(module: Any, name: str, *values: bytes) -> Any:
    made = module.InferInput(name, [len(values)], "BYTES")
    made.set_data_from_numpy(np.array(values, dtype=object))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_what_there_is(served: Served, kind: str) -> None:
    client, _ = opened(served, kind)
    assert client.is_server_live()  # health needs no key
    assert client.is_server_ready()
    assert client.is_model_ready(served.model, headers=served.door)
    told = {"grpc": {"as_json": True}, "http": {}}[kind]
    server = client.get_server_metadata(headers=served.door, **told)
    model = client.get_model_metadata("minilm", headers=served.door, **told)
    assert (server["name"], "generate" in server["extensions"]) == ("headrace", True)
    assert ([one["name"] for one in model["inputs"]], [one["datatype"] for one in model["outputs"]]) == (
        ["text_input"],
        ["FP32"],
    )
    with pytest.raises(triton.InferenceServerException):
        client.get_model_metadata("no-such-model", headers=served.door)
    with pytest.raises(triton.InferenceServerException, match=r"(?i)key"):
        client.get_model_metadata("minilm")


def test_an_encoder_by_both(served: Served) -> None:
    """Texts and a picture to vectors: the same ones whichever way, raw and as JSON."""
    found = dict[str, list[Any]]()
    for kind in KINDS:
        client, module = opened(served, kind)
        texts = tensor(module, "text_input", b"a cat", b"a kitten", b"shares")
        picture = tensor(module, "image", (ASSETS / "digit-7.png").read_bytes())
        asked = [("minilm", texts), (f"{served.model}.image", picture)]
        replies = [client.infer(name, [given], headers=served.door, request_id=name) for name, given in asked]
        found[kind] = [reply.as_numpy("embedding") for reply in replies]
    words, pictures = found["grpc"]
    assert [part.shape for part in (words, pictures)] == [(3, 384), (1, 576)]
    assert np.linalg.norm(words, axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    assert words[0] @ words[1] > words[0] @ words[2]
    for left, right in zip(*found.values(), strict=True):
        assert left == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_answers(served: Served, kind: str) -> None:
    """Two turns in one request, and a picture beside a turn."""
    client, module = opened(served, kind)
    two = client.infer(
        served.model,
        [tensor(module, "text_input", PARIS, b"What is 2 + 2?")],
        parameters=PARAMETERS,
        headers=served.door,
    )
    seen = client.infer(
        served.model,
        [
            tensor(module, "text_input", b"What digit is in the image?"),
            tensor(module, "image", (ASSETS / "digit-7.png").read_bytes()),
        ],
        parameters=PARAMETERS,
        headers=served.door,
    )
    first, second = two.as_numpy("text_output")
    assert b"Paris" in first
    assert b"4" in second
    assert b"seven" in seen.as_numpy("text_output")[0]


def test_a_stream_of_pieces(served: Served) -> None:
    """ModelStreamInfer: pieces as they come, an error in its place, and the stream goes on."""
    client, module = opened(served, "grpc")
    told: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: told.put((result, error)), headers=served.door)
    pieces = list[str]()
    try:
        for number, name in enumerate(("no-such-model", served.model)):
            client.async_stream_infer(
                name,
                [tensor(module, "text_input", PARIS)],
                request_id=str(number),
                parameters=PARAMETERS,
                enable_empty_final_response=True,
            )
        _, error = told.get(timeout=200)
        assert "no-such-model" in str(error)
        final = False
        while not final:
            result, error = told.get(timeout=200)
            assert error is None
            response = result.get_response()
            final = response.parameters["triton_final_response"].bool_param
            output = result.as_numpy("text_output")
            pieces += [] if output is None else [output[0].decode()]
    finally:
        client.stop_stream()
    assert len(pieces) > 3
    assert "Paris" in "".join(pieces)
