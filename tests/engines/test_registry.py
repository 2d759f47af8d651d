"""Configuration words become engines or clear errors; the packaged families and the cache directory behind them."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headrace.core.errors import ModelNotFound, Unavailable
from headrace.core.types import Media, MediaMeta, MediaSpan
from headrace.engines.artifacts import build_once, cache_root
from headrace.engines.families import ChatMessage, MediaPart, TextPart, checkpoint, family
from headrace.engines.registry import EngineConfigError, load_engine

TINY = family("profile-tiny")


@pytest.mark.parametrize(
    ("words", "error", "why"),
    [
        ({"engine": "cuda"}, EngineConfigError, "known: onnx, torch, vllm, profile"),
        ({"model": "gpt-5"}, ModelNotFound, "known: smollm2-135m, profile-tiny"),
        ({"profile": "b200"}, EngineConfigError, "packaged: .*zero"),
        ({"slots": 0}, EngineConfigError, "slots is 0"),
        ({"blocks": -1}, EngineConfigError, "blocks is -1"),
        ({"prefix_cache_mb": -2}, EngineConfigError, "prefix_cache_mb is -2"),
        ({"weights": "q5"}, EngineConfigError, "known: fp32, q4, int8"),
        ({"engine": "torch", "weights": "q4"}, EngineConfigError, "torch engine has no weights of kind q4"),
        ({"device": "tpu"}, EngineConfigError, "known: cpu, cuda, auto"),
        ({"segments": 0}, EngineConfigError, "segments is 0"),
        ({"engine": "onnx"}, Unavailable, "no weights"),
    ],
)
def test_wrong_words(words: dict[str, object], error: type[Exception], why: str) -> None:
    given = {"engine": "profile", "model": "profile-tiny", "threads": 1, "slots": 2, "blocks": 64, **words}
    with pytest.raises(error, match=why):
        load_engine(**given)  # type: ignore[arg-type]


def test_a_profile_engine_needs_no_runtime_of_models() -> None:
    script = (
        "import sys; from headrace.engines.registry import load_engine\n"
        "engine = load_engine('profile', 'profile-tiny', threads=1, slots=2, blocks=64)\n"
        "assert engine.inline and engine.slots == 2 and engine.blocks == 64\n"
        "assert not {'onnxruntime', 'onnx', 'torch', 'gguf'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_profile_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('source = "[M] measured"\nkv_bytes_per_token = 10\n[cost]\ntokens = [1]\ntokens_s = [0.5]\n')
    engine = load_engine("profile", "profile-tiny", threads=1, slots=2, blocks=64, profile=str(path))
    assert engine.spec.kv_bytes_per_token == 10


def image(tokens: int) -> Media:
    return Media(MediaMeta("image", "image/png", 32, 32, 100), "0" * 64, tokens)


def test_the_byte_family_renders_chatml() -> None:
    messages = [ChatMessage("user", (TextPart("hé "), MediaPart(1), TextPart("ß"), MediaPart(0)))]
    prompt = TINY.render(messages, [image(3), image(2)])
    text = b"".join(TINY.pieces[token] for token in prompt.tokens).decode()
    assert text == "user\nhé ß\nassistant\n"
    start = 1 + len("user\n") + len("hé ".encode())
    assert prompt.spans == (MediaSpan(1, start, 2), MediaSpan(0, start + 2 + len("ß".encode()), 3))
    for span in prompt.spans:
        assert set(prompt.tokens[span.offset : span.offset + span.length]) == {TINY.spec.placeholder_id}


def test_the_byte_family_has_a_token_for_each_byte() -> None:
    text = bytes(range(256)).decode("latin-1")
    assert b"".join(TINY.pieces[token] for token in TINY.encode(text)).decode() == text
    assert len(TINY.pieces) == TINY.spec.vocab_size == TINY.tokenizer.get_vocab_size()
    assert set(TINY.encode("<|im_end|>")) == TINY.spec.eos_ids


def test_where_the_cache_is() -> None:
    assert cache_root({"HEADRACE_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_root({"XDG_CACHE_HOME": "/b"}) == Path("/b/headrace")
    assert cache_root({}) == Path.home() / ".cache" / "headrace"


def test_workers_that_start_together_build_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(draft: Path) -> None:
        built.append(draft)
        (draft / "file").write_text("whole")

    threads = [threading.Thread(target=build_once, args=(tmp_path / "made", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(built) == 1
    assert (tmp_path / "made" / "file").read_text() == "whole"


def test_a_killed_builder_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(draft: Path) -> None:
        (draft / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "made", fail)
    assert not (tmp_path / "made").exists()
    build_once(tmp_path / "made", lambda draft: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "made.lock"]


def test_a_model_without_weights_says_so() -> None:
    with pytest.raises(Unavailable, match="profile engine"):
        checkpoint("profile-tiny")
