"""Masks: which tokens may follow. Real vocabularies, real llguidance; texts are walked token by token."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from headrace.core.errors import InvalidInput
from headrace.core.types import Key, Sampling
from headrace.engines import constrain, grammar
from headrace.engines.base import SequenceInput
from headrace.engines.constrain import Grammars, Guides
from headrace.engines.families import Family, family
from headrace.engines.sampling import Mask, allowed

MODELS = ["profile-tiny", pytest.param("smollm2-135m", marks=pytest.mark.model)]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "ü"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
ADD = ("add", {"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False})
SAY = ("say", {"properties": {"t": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"type": "string"}}, "required": ["t"]})
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 3}}\n</tool_call>'
SAID = '<tool_call>\n{"name": "say", "arguments": {"t": "}\\"é"}}\n</tool_call>'


@dataclass
class Row:
    """A sequence in a batch, as far as masks go."""

    input: SequenceInput
    tokens: list[int] = field(default_factory=lambda: [7, 7])  # of the prompt

    @property
    def key(self) -> Key:
        return self.input.key

    @property
    def next_index(self) -> int:
        return len(self.tokens) - 2


def row(rules: bytes, tokens: Sequence[int] = (), name: str = "a") -> Any:
    made = Row(SequenceInput(Key(name, 1), (7, 7), 2, (), (), "", Sampling(100, grammar=rules)))
    made.tokens += tokens
    return made


def mask(guides: Guides, live: Any) -> Mask:
    found = guides.masks([live])[0]
    assert found is not None, guides.take_failed()
    return found


def walk(kind: Family, rules: bytes, text: str) -> tuple[str, bool]:
    """How much of the text the grammar lets pass, and whether the answer may end behind it."""
    guides, live, passed = Guides(Grammars(kind)), row(rules), b""
    for token in kind.encode(text):
        if not allowed(mask(guides, live), kind.spec.vocab_size)[token]:
            return passed.decode(errors="replace"), False
        live.tokens.append(token)
        passed += kind.pieces[token]
    may = allowed(mask(guides, live), kind.spec.vocab_size)
    return passed.decode(errors="replace"), all(may[end] for end in kind.spec.eos_ids)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("rules", "text", "passed"),
    [
        (grammar.json_schema(PERSON), '{"name": "Zoë 😀", "age": 33, "tags": ["ü", "a"]}', None),
        (grammar.json_schema(PERSON), '{"name":"","age":0,"tags":[]}', None),
        (grammar.json_schema(PERSON), '{"age": 3', '{"'),
        (grammar.json_schema(PERSON), '{"name": "abcdefghijklmno', '{"name": "abcdefghijkl'),
        (grammar.json_schema(PERSON), '{ "name": "a", "age": 151', '{ "name": "a", "age": 15'),
        (grammar.json_object(), '{"a": [1, {"b": null}]}', None),
        (grammar.json_object(), "[1]", ""),
        (grammar.regex("(é|😀|żół)+!"), "żół😀é!", None),
        (grammar.choice(['a "b"', "no\n"]), 'a "b"', None),
        (grammar.choice(["a", "no\n"]), "no\n", None),
        (grammar.tools([ADD, SAY], text=False, calls=1), CALL, None),
        (grammar.tools([ADD, SAY], text=False, calls=2), f"{CALL}\n{SAID}", None),
        (grammar.tools([ADD, SAY], text=True, calls=2), f"Let me see < <tool\n{SAID}\n{CALL}", None),
        (grammar.tools([ADD], text=True, calls=1), "No <b>tool</b> is needed: {", None),
        (grammar.tools([ADD], text=PERSON, calls=1), '{"name": "a", "age": 1, "tags": []}', None),
        (grammar.tools([ADD], text=PERSON, calls=1), CALL, None),
        (grammar.tools([ADD], text=PERSON, calls=1), "Well", ""),
        (grammar.tools([ADD], text=True, calls=1), SAID, '<tool_call>\n{"name": "'),
        (grammar.tools([ADD], text=False, calls=1), f"{CALL}\n", CALL),
    ],
)
def test_texts_pass_or_are_stopped(model: str, rules: bytes, text: str, passed: str | None) -> None:
    reached, complete = walk(family(model), rules, text)
    if passed is None:
        assert (reached, complete) == (text, True)
    else:  # tokens are longer than characters: what passed is less than the text, and the end is not allowed
        assert not complete
        assert passed.startswith(reached) or reached == passed


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_ends_only_when_it_is_complete(model: str) -> None:
    kind = family(model)
    (eos,) = kind.spec.eos_ids
    guides, live, text = Guides(Grammars(kind)), row(grammar.json_schema(PERSON)), '{"name":"a","age":3,"tags":[]}'
    for token in kind.encode(text):
        assert not allowed(mask(guides, live), kind.spec.vocab_size)[eos]
        live.tokens.append(token)
    assert np.flatnonzero(allowed(mask(guides, live), kind.spec.vocab_size)).tolist() == [eos]


@pytest.mark.parametrize("model", MODELS)
def test_a_matcher_is_a_function_of_the_tokens(model: str) -> None:
    """Whatever happens to a sequence: a matcher built from its tokens says what the one that saw each of them says."""
    kind, rules = family(model), grammar.json_schema(PERSON)
    grammars = Grammars(kind)
    step, live = Guides(grammars), row(rules)
    for count, token in enumerate(kind.encode('{"name": "é😀", "age": 12, "tags": ["a"]}')):
        anew = mask(Guides(grammars), row(rules, live.tokens[2:]))
        assert (mask(step, live) == anew).all(), count
        assert (mask(step, live) == anew).all(), "asked twice"
        live.tokens.append(token)
    step.drop(live.key)
    assert len(step) == 0


def test_tokens_that_no_grammar_could_have_emitted_are_reported() -> None:
    kind = family("profile-tiny")
    guides = Guides(Grammars(kind))
    lives = [row(grammar.json_object(), kind.encode("[1"), "bad"), row(b"", [1], "free"), row(grammar.json_object())]
    bad, free, good = guides.masks(lives)
    assert (bad, free) == (None, None)
    assert good is not None
    assert [(key.request_id, why.split(":")[0]) for key, why in guides.take_failed()] == [
        ("bad", "the grammar cannot be followed")
    ]
    assert guides.take_failed() == ()


def test_a_lexer_that_runs_full_costs_no_other_request() -> None:
    """A pattern of too many states fails the request that reaches them; for the next one it begins anew."""
    kind, heavy = family("profile-tiny"), grammar.regex("((((x{1,50}){1,50}){1,50}){1,50})")
    guides = Guides(Grammars(kind))
    live, other = row(heavy, name="deep"), row(heavy, [120], "shallow")
    while guides.masks([live])[0] is not None and len(live.tokens) < 1000:
        live.tokens.append(120)
    assert [(key.request_id, why) for key, why in guides.take_failed()] == [
        ("deep", "the grammar cannot be followed: lexer error: too many expressions constructed")
    ]
    assert mask(guides, other) is not None


@pytest.mark.model
def test_a_long_text_of_bounded_length_is_no_trouble() -> None:
    """Each of its tokens takes lexer states of its own."""
    kind = family("smollm2-135m")
    guides, live = Guides(Grammars(kind)), row(grammar.json_schema({"type": "string", "maxLength": 30_000}))
    for token in kind.encode('"' + "ab cd " * 1000):
        assert guides.masks([live])[0] is not None, guides.take_failed()
        live.tokens.append(token)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (grammar.json_schema({"type": "wat"}), "wat"),
        (grammar.json_schema({"not": {"type": "string"}}), "Unimplemented"),
        (grammar.json_schema({"$ref": "http://example.org/a.json"}), "not present|retriev"),
        (grammar.json_schema({"type": "string", "pattern": "("}), "regex"),
        (grammar.json_schema({"properties": {"a": False}, "required": ["a"], "type": "object"}), "unsatisfiable"),
        (grammar.regex("(?=a)b"), "look"),
        (grammar.tools([("f", {"type": "wat"})], text=True, calls=1), "wat"),
    ],
)
def test_what_cannot_be_compiled_says_why(rules: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        Grammars(family("profile-tiny")).matcher(rules)


def test_only_the_last_ones_used_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrain, "COMPILED_MAX", 2)
    grammars = Grammars(family("profile-tiny"))
    one, two, three = (grammar.choice([word]) for word in ("one", "two", "three"))
    first = grammars.begin(one)
    for rules in (two, one, three):
        grammars.begin(rules)
    assert len(grammars) == 2
    assert grammars.begin(one) is first, "two was used before it"


@pytest.mark.parametrize("size", [1, 31, 32, 33, 97, 128, 140])
def test_bits_of_a_mask(size: int) -> None:
    words = np.array([1 << 31, 3, 0, 0xFFFFFFFF], np.uint32)
    bits = allowed(words, size)
    assert len(bits) == size
    expected = [bool(words[n // 32] >> (n % 32) & 1) if n < 128 else False for n in range(size)]
    assert bits.tolist() == expected


def test_large_schemas_compile_in_bounded_time() -> None:
    """64 KiB of optional properties: a tenth of a second here; the library's own limits stop what is worse."""
    wide = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1500)}}
    product: dict[str, Any] = {
        "allOf": [{"anyOf": [{"properties": {f"k{i}_{j}": {}}} for j in range(8)]} for i in range(6)]
    }
    assert len(json.dumps(wide)) < grammar.BYTES_MAX
    Grammars(family("profile-tiny")).matcher(grammar.json_schema(wide))
    with pytest.raises(InvalidInput, match="too large"):
        Grammars(family("profile-tiny")).matcher(grammar.json_schema(product))
