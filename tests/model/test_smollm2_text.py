"""The tokenizer and the chat template against what transformers made of the same package (tokenizer_reference.json).

The reference is written by `python -m headrace.training.reference`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.core.errors import ModelNotFound, Unavailable
from headrace.core.types import Media, MediaMeta
from headrace.engines.families import ChatMessage, MediaPart, TextPart, family
from headrace.engines.families.smollm2 import PREFIX_TEXT, SPEC, SmolLM2, weights_path
from headrace.modalities import modality

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "tokenizer_reference.json").read_text())
ROWS = 6


@pytest.fixture(scope="module")
def smollm2() -> SmolLM2:
    try:
        weights_path()
    except Unavailable as error:
        pytest.skip(error.message)
    loaded = family("smollm2-135m")
    assert isinstance(loaded, SmolLM2)
    return loaded


def image(width: int = 40, height: int = 30) -> Media:
    meta = MediaMeta("image", "image/png", width, height, 1000)
    return Media(meta, "0" * 64, modality("image").token_count(meta))


def user(*parts: str | int) -> ChatMessage:
    return ChatMessage("user", tuple(TextPart(p) if isinstance(p, str) else MediaPart(p) for p in parts))


@pytest.mark.model
@pytest.mark.parametrize("case", REFERENCE["texts"], ids=lambda case: repr(case["text"])[:30])
def test_ids_and_bytes_of_texts(smollm2: SmolLM2, case: dict[str, Any]) -> None:
    ids = smollm2.encode(case["text"])
    assert ids == case["ids"]
    plain = [i for i in ids if smollm2.pieces[i]]
    if plain == ids:  # no special token in it
        assert b"".join(smollm2.pieces[i] for i in ids).decode() == case["text"]


@pytest.mark.model
def test_digits_outside_ascii_stand_alone(smollm2: SmolLM2) -> None:
    """The Digits step of SmolLM2's tokenizer.json, which transformers' GGUF loader leaves out."""
    assert smollm2.encode(" ½") == smollm2.encode(" ") + smollm2.encode("½")
    assert [smollm2.pieces[i] for i in smollm2.encode("2026")] == [b"2", b"0", b"2", b"6"]


@pytest.mark.model
@pytest.mark.parametrize("case", REFERENCE["chats"], ids=["one turn", "own system", "two turns"])
def test_chat_template_is_the_plain_models(smollm2: SmolLM2, case: dict[str, Any]) -> None:
    messages = [ChatMessage(m["role"], (TextPart(m["content"]),)) for m in case["messages"]]
    prompt = smollm2.render(messages, [])
    assert list(prompt.tokens) == case["ids"]
    assert prompt.spans == ()
    assert prompt.prefix == ""


@pytest.mark.model
def test_text_in_parts_is_one_text(smollm2: SmolLM2) -> None:
    assert smollm2.render([user("What is ", "this", "?")], []) == smollm2.render([user("What is this?")], [])


@pytest.mark.model
def test_one_image_continues_the_learned_prefix(smollm2: SmolLM2) -> None:
    prompt = smollm2.render([user(0, "What digit is this?")], [image()])
    assert prompt.prefix == "image"
    assert [(s.part, s.offset, s.length) for s in prompt.spans] == [(0, 0, ROWS)]
    tail = smollm2.encode("What digit is this?<|im_end|>\n<|im_start|>assistant\n")
    assert list(prompt.tokens) == [SPEC.placeholder_id] * ROWS + tail


@pytest.mark.model
def test_the_learned_prefix_stands_for_system_prompt_and_header(smollm2: SmolLM2) -> None:
    prefix = smollm2.encode(PREFIX_TEXT)
    assert len(prefix) == SPEC.prefix_tokens["image"]
    plain = smollm2.render([user("Hello")], []).tokens
    assert list(plain[: len(prefix)]) == prefix


@pytest.mark.model
@pytest.mark.parametrize(
    ("parts", "texts"),
    [
        ((0, 1, "Which?"), [" first image:", " second image:", "Which?"]),
        (("Which?", 0, 1), ["Which? first image:", " second image:", ""]),
        ((0, "and", 1, "Which?"), [" first image:", "and second image:", "Which?"]),
    ],
    ids=["after", "before", "between"],
)
def test_several_images_get_ordinals(smollm2: SmolLM2, parts: tuple[str | int, ...], texts: list[str]) -> None:
    prompt = smollm2.render([user(*parts)], [image(), image()])
    texts = [*texts[:-1], texts[-1] + "<|im_end|>\n<|im_start|>assistant\n"]
    at, seen = 0, []
    for span in (*prompt.spans, None):
        end = span.offset if span else len(prompt.tokens)
        seen.append(list(prompt.tokens[at:end]))
        at = end + ROWS
    assert seen == [smollm2.encode(text) for text in texts]
    assert [span.part for span in prompt.spans] == [0, 1]


@pytest.mark.model
def test_sixteen_images(smollm2: SmolLM2) -> None:
    prompt = smollm2.render([user(*range(16), "How many?")], [image()] * 16)
    assert len(prompt.spans) == SPEC.max_media
    assert " sixteenth image:" in smollm2.tokenizer.decode(list(prompt.tokens))
    ends = [span.offset + span.length for span in prompt.spans]
    assert all(span.offset > end for span, end in zip(prompt.spans[1:], ends, strict=False))


@pytest.mark.model
@pytest.mark.parametrize(
    "messages",
    [
        [ChatMessage("system", (TextPart("Be brief."),)), user(0, "What?")],
        [user("Hi"), ChatMessage("assistant", (TextPart("Hello."),)), user(0, "What?")],
        [user(0, "What?"), ChatMessage("assistant", (TextPart("Three."),)), user("Sure?")],
    ],
    ids=["own system", "later turn", "earlier turn"],
)
def test_other_turns_start_from_the_real_prefix(smollm2: SmolLM2, messages: list[ChatMessage]) -> None:
    prompt = smollm2.render(messages, [image()])
    assert prompt.prefix == ""
    (span,) = prompt.spans
    assert set(prompt.tokens[span.offset : span.offset + span.length]) == {SPEC.placeholder_id}
    without = prompt.tokens[: span.offset] + prompt.tokens[span.offset + span.length :]
    bare = [ChatMessage(m.role, tuple(p for p in m.parts if isinstance(p, TextPart))) for m in messages]
    assert without == smollm2.render(bare, []).tokens


@pytest.mark.model
def test_a_media_part_left_out_is_our_bug(smollm2: SmolLM2) -> None:
    with pytest.raises(AssertionError):
        smollm2.render([user(0, "What?")], [image(), image()])


@pytest.mark.model
def test_special_tokens_have_no_bytes_and_every_token_has_a_piece(smollm2: SmolLM2) -> None:
    assert len(smollm2.pieces) == SPEC.vocab_size
    assert [i for i, piece in enumerate(smollm2.pieces) if not piece] == list(range(17))


def test_unknown_model() -> None:
    with pytest.raises(ModelNotFound, match="smollm2-135m"):
        family("no-such-model")


@pytest.mark.parametrize("package", ["no-such-package-of-ours", "numpy"], ids=["missing", "without weights"])
def test_missing_weights_say_what_to_do(package: str) -> None:
    with pytest.raises(Unavailable, match="make setup"):
        weights_path(package)
