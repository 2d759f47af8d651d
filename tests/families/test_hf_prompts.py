"""Prompts of Hugging Face directories: templates, placeholders, begins of sequence, bytes of tokens; no torch.

The directories are written by hand: a tokenizer, a template, a config.json; no weights.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from headrace.core.errors import InvalidInput, Unavailable
from headrace.core.types import Media, MediaMeta, Prompt
from headrace.engines.families import ChatMessage, Family, MediaPart, TextPart
from headrace.engines.families.directory import Directory, open_family
from headrace.engines.families.hf_config import eos_ids, language
from headrace.engines.families.hf_tokens import load_vocabulary
from tests.checkpoints import CHATML, LLAVA_TEMPLATE, text_fields, write_json, write_tokenizer

IMAGE = 259  # the first special token behind those of every tokenizer here
Write = Callable[..., Family]


@pytest.fixture
def text(tmp_path: Path) -> Write:
    """A text model with a template; more files by name."""

    def write(template: str = CHATML, **files: dict[str, Any]) -> Family:
        write_tokenizer(tmp_path, (), template)
        return _open(tmp_path, {"model_type": "llama", **text_fields()}, files)

    return write


@pytest.fixture
def llava(tmp_path: Path) -> Write:
    def write(template: str = LLAVA_TEMPLATE, **files: dict[str, Any]) -> Family:
        write_tokenizer(tmp_path, ("<image>",), template)
        config = {
            "model_type": "llava",
            "text_config": {"model_type": "llama", **text_fields()},
            "vision_config": {"image_size": 28, "patch_size": 7},
        }
        return _open(tmp_path, config, files)

    return write


def _open(path: Path, config: dict[str, Any], files: dict[str, dict[str, Any]]) -> Family:
    write_json(path / "config.json", config)
    for name, value in files.items():
        known = path / f"{name}.json"
        write_json(known, {**(json.loads(known.read_text()) if known.exists() else {}), **value})
    return open_family(path)


def ask(family: Family, *parts: str | int, media: int = 0) -> tuple[int, ...]:
    return _prompt(family, *parts, media=media).tokens


def _prompt(family: Family, *parts: str | int, media: int = 0) -> Prompt:
    content = tuple(MediaPart(part) if isinstance(part, int) else TextPart(part) for part in parts)
    return family.render([ChatMessage("user", content)], [_media()] * media)


def _media() -> Media:
    return Media(MediaMeta("image", "image/png", 30, 20, 100), "", 16)


def shown(family: Family, tokens: tuple[int, ...]) -> str:
    """Tokens as text, special ones by name."""
    found: str = family.tokenizer.decode(list(tokens), skip_special_tokens=False)
    return found


# --- media positions ---


def test_a_part_becomes_a_span_where_the_template_puts_it(llava: Write) -> None:
    family = llava()
    prompt = _prompt(family, "a", 0, "b", 1, media=2)
    assert [(span.part, span.length, span.modality) for span in prompt.spans] == [(0, 16, "image"), (1, 16, "image")]
    assert [i for i, token in enumerate(prompt.tokens) if token == IMAGE] == [
        *range(prompt.spans[0].offset, prompt.spans[0].offset + 16),
        *range(prompt.spans[1].offset, prompt.spans[1].offset + 16),
    ]
    assert shown(family, prompt.tokens[prompt.spans[1].offset + 16 :]) == "\nab<|im_end|>\n<|im_start|>assistant\n"


def test_parts_are_counted_over_all_messages_in_order(llava: Write) -> None:
    family = llava()
    messages = [
        ChatMessage("user", (MediaPart(1), TextPart("first"))),
        ChatMessage("assistant", (TextPart("yes"),)),
        ChatMessage("user", (TextPart("second"), MediaPart(0))),
    ]
    assert [span.part for span in family.render(messages, [_media()] * 2).spans] == [1, 0]


@pytest.mark.parametrize(
    "words",
    [
        ("<image>",),
        ("see <image> and <image>", "<image>"),
        ("a <image\ufdd0> b <image>",),
    ],
)
def test_a_user_who_writes_a_placeholder_gets_text(llava: Write, words: tuple[str, ...]) -> None:
    """The picture stands once, and the word is there to be read, in its place."""
    family = llava()
    prompt = _prompt(family, *words, 0, media=1)
    (span,) = prompt.spans
    assert prompt.tokens.count(IMAGE) == span.length == 16
    assert set(prompt.tokens[span.offset : span.offset + 16]) == {IMAGE}
    behind = b"".join(family.pieces[token] for token in prompt.tokens[span.offset + 16 :])
    assert behind == ("\n" + "".join(words) + "\nassistant\n").encode()


FRAGMENTS = ("<image>", "<ima", "ge>", "<", ">", "\ufdd0", "\ufdd1", "\u00e9", "x y", "\n", "<image", "image>")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(FRAGMENTS), max_size=8), media=st.integers(0, 2))
def test_whatever_a_user_writes_pictures_stand_where_they_were_put(llava: Write, words: list[str], media: int) -> None:
    family = _once(llava)
    said = "".join(words)
    prompt = _prompt(family, *range(media), said, media=media)
    assert [span.part for span in prompt.spans] == list(range(media))
    assert prompt.tokens.count(IMAGE) == 16 * media
    text = b"".join(family.pieces[token] for token in prompt.tokens)
    assert text.decode() == "user\n" + "\n" * media + said + "\nassistant\n"


_MADE: list[Family] = []


def _once(write: Write) -> Family:
    if not _MADE:
        _MADE.append(write())
    return _MADE[0]


def test_without_pictures_the_word_is_text_as_well(llava: Write) -> None:
    family = llava()
    prompt = _prompt(family, "what does <image> mean in HTML?")
    assert prompt.spans == ()
    assert IMAGE not in prompt.tokens
    assert b"does <image> mean" in b"".join(family.pieces[token] for token in prompt.tokens)


def test_a_placeholder_spelled_across_parts_is_refused(llava: Write) -> None:
    with pytest.raises(InvalidInput, match="spells the token '<image>'"):
        ask(llava(), "<ima", "ge>", 0, media=1)


def test_a_template_that_forgets_a_picture_is_found_out(llava: Write) -> None:
    family = llava(CHATML.replace("MEDIA", ""))
    with pytest.raises(InvalidInput, match="wrote 0 of 1 media parts"):
        ask(family, 0, "hello", media=1)


# --- templates ---


def test_templates_that_know_only_texts_get_texts(llava: Write) -> None:
    family = llava("{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}")
    prompt = _prompt(family, 0, "hello", media=1)
    assert prompt.spans[0].offset == len("user: ")
    assert shown(family, prompt.tokens[prompt.spans[0].offset + 16 :]) == "\nhello"


def test_texts_of_several_parts_are_one_text(text: Write) -> None:
    family = text()
    assert ask(family, "ab", "cd") == ask(family, "abcd")


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{ bos_token }}{{ eos_token }}", "<|im_end|>"),  # this tokenizer has no begin of sequence
        ("{% if tools is none and documents is none and add_generation_prompt %}on{% endif %}", "on"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "é<"}]'),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
    ],
)
def test_templates_find_what_the_field_gives_them(text: Write, template: str, wanted: str) -> None:
    family = text(template)
    assert shown(family, ask(family, "é<")) == wanted


def test_a_template_may_refuse(text: Write) -> None:
    family = text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidInput, match=r"refuses these messages: roles must alternate") as caught:
        ask(family, "hello")
    assert caught.value.field == "messages"


def test_a_template_cannot_leave_its_sandbox(text: Write) -> None:
    family = text("{{ messages.__class__.__base__.__subclasses__() }}")
    with pytest.raises(InvalidInput, match="unsafe"):
        ask(family, "hello")


def test_a_broken_template_is_said_at_start(text: Write) -> None:
    with pytest.raises(Unavailable, match="the chat template is broken"):
        text("{% for %}")


def test_templates_are_looked_for_where_checkpoints_keep_them(tmp_path: Path, text: Write) -> None:
    """chat_template.jinja before chat_template.json before tokenizer_config.json; several by name: the default."""
    text()
    names = [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "chat_template.jinja").unlink()
    family = text_again(tmp_path, tokenizer_config={"chat_template": names})
    assert shown(family, ask(family, "x")) == "D"
    family = text_again(tmp_path, chat_template={"chat_template": "P"})
    assert shown(family, ask(family, "x")) == "P"


def text_again(path: Path, **files: dict[str, Any]) -> Family:
    return _open(path, json.loads((path / "config.json").read_text()), files)


def test_without_a_template_chatml_where_its_tokens_are(tmp_path: Path, text: Write) -> None:
    text()
    (tmp_path / "chat_template.jinja").unlink()
    family = open_family(tmp_path)
    assert shown(family, ask(family, "x")) == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    source = (tmp_path / "tokenizer.json").read_text().replace("<|im_start|>", "<|begin|>")
    (tmp_path / "tokenizer.json").write_text(source)
    with pytest.raises(Unavailable, match="has no chat template"):
        open_family(tmp_path)


# --- begin of sequence ---


@pytest.mark.parametrize(
    ("template", "post_processed", "config", "begins"),
    [
        ("x", True, {}, 1),  # the processor's tokenizer puts it there
        ("x", True, {"add_bos_token": False}, 0),
        ("x", False, {"add_bos_token": True}, 1),
        ("x", False, {}, 0),
        ("{{ bos_token }}x", True, {}, 1),  # the template has
    ],
)
def test_a_processor_begins_once(
    tmp_path: Path, llava: Write, template: str, post_processed: bool, config: dict[str, Any], begins: int
) -> None:
    llava(template)
    if post_processed:
        tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing("<|im_start|> $A", None, [("<|im_start|>", 256)])
        tokenizer.save(str(tmp_path / "tokenizer.json"))
    family = text_again(tmp_path, tokenizer_config={"bos_token": "<|im_start|>", **config})
    assert ask(family, "hello").count(256) == begins


def test_text_models_have_what_the_template_writes(tmp_path: Path, text: Write) -> None:
    text("x")
    family = text_again(tmp_path, tokenizer_config={"bos_token": "<|im_start|>", "add_bos_token": True})
    assert shown(family, ask(family, "hello")) == "x"


# --- facts ---


def test_what_files_leave_out_has_the_classes_defaults() -> None:
    fields = language({"model_type": "llava", "text_config": {"vocab_size": 32064}})
    assert (fields["hidden_size"], fields["num_hidden_layers"], fields["head_dim"]) == (4096, 32, 128)
    assert fields["vocab_size"] == 32064
    assert language({"model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16})["head_dim"] == 128


@pytest.mark.parametrize(
    ("generation", "config", "wanted"),
    [
        ({"eos_token_id": [7, 8]}, {"eos_token_id": 9}, {7, 8}),
        ({}, {"eos_token_id": 9}, {9}),
        ({}, {"eos_token_id": None, "text_config": {"eos_token_id": 5}}, {5}),
    ],
)
def test_ends_are_those_that_generate_knows(
    tmp_path: Path, generation: dict[str, Any], config: dict[str, Any], wanted: set[int]
) -> None:
    write_json(tmp_path / "generation_config.json", generation)
    write_json(tmp_path / "config.json", config)
    assert eos_ids(Directory(tmp_path)) == wanted


def test_a_tower_that_does_not_fit_is_refused_at_start(tmp_path: Path) -> None:
    """Pixtral's files say llava too; its tower takes pictures of any size."""
    config = {"model_type": "llava", "vision_config": {"model_type": "pixtral", "image_size": 1024, "patch_size": 16}}
    with pytest.raises(Unavailable, match="tower 'pixtral' is not known"):
        _open(tmp_path, config, {})


def test_the_spec_is_read_off_the_files(tmp_path: Path, llava: Write) -> None:
    spec = llava().spec
    assert (spec.name, spec.context_tokens, spec.vocab_size, spec.embed_width) == (tmp_path.name, 2048, 384, 64)
    assert spec.kv_bytes_per_token == 3 * 2 * 2 * 16 * 4  # layers, keys and values, heads, their width, float32
    assert (spec.modalities, spec.placeholder_id, spec.eos_ids) == (("image",), IMAGE, frozenset({257}))


# --- bytes of tokens ---


def test_pieces_of_byte_level_tokens(tmp_path: Path, text: Write) -> None:
    text()
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pieces = open_family(tmp_path).pieces
    assert pieces[:256] == [bytes([byte]) for byte in range(256)]
    assert pieces[256:260] == [b"", b"", b"", b"<tool_call>"]
    assert len(pieces) == 384


def test_pieces_of_sentencepiece_tokens(tmp_path: Path) -> None:
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "\u2581a", "\u00e9"]
    tokenizer = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [("\u2581", "a")], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = load_vocabulary(Directory(tmp_path))
    pieces = vocabulary.pieces(300)
    words = "a a\u00e9 a\n\u4e16"
    assert b"".join(pieces[token] for token in vocabulary.encode(words)) == f" {words}".encode()
    assert pieces[:3] == [b""] * 3
    assert len(pieces) == 300


def test_a_missing_file_is_named(tmp_path: Path, text: Write) -> None:
    text()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(Unavailable, match=r"tokenizer\.json cannot be read"):
        open_family(tmp_path)
