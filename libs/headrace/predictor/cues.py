"""Lexical cues of a prompt: what kind of answer it asks for, in numbers that cost microseconds.

The names are the columns; training and serving compute them with this one function.
"""

import math
import re
from collections.abc import Callable

# How a request opens says much about its answer; the first of these words that stands near the start counts.
OPENINGS = (
    *("write", "create", "generate", "make", "build", "develop", "construct", "implement", "design", "compose"),
    *("explain", "describe", "discuss", "outline", "summarize", "analyze", "compare", "define", "tell", "give"),
    *("list", "name", "identify", "find", "calculate", "compute", "solve", "convert", "translate", "classify"),
    *("rewrite", "edit", "modify", "optimize", "fix", "debug", "complete", "suggest", "count", "read"),
    *("what", "how", "why", "who", "when", "where", "which", "is", "are", "can", "could", "do", "does", "should"),
    *("you", "imagine", "as", "if", "please", "i"),
)
# Each is a column: how often it stands in the prompt as words of its own, at most three times.
_WORDS = {
    "one_word": "one word|single word|one-word|yes or no|only the answer|only the number|only the name|name only",
    "one_sentence": "(?:one|single|1|a|two|2) sentences?|one line|one-liner?",
    "paragraph": "paragraphs?",
    "long_form": "essay|article|report|blog|story|speech|chapter|script|guide",
    "verse": "poem|song|lyrics|haiku|limerick|sonnet|rap",
    "letter": "email|letter|message|review|tweet|post",
    "short": r"brief(?:ly)?|short|concise(?:ly)?|summar\w+|tl;?dr|quick(?:ly)?|simply",
    "long": "details?|detailed|comprehensive|in[- ]depth|thorough(?:ly)?|complete|long|exhaustive",
    "steps": "steps?|step[- ]by[- ]step|reasoning|how to|how (?:do|can|would|should) (?:i|you|we|one)",
    "list": "lists?|bullet|enumerate|examples?|ideas|tips|ways|types of|reasons",
    "table": "table|csv|json|xml|yaml",
    "code": "code|function|program|script|algorithm|method|query|regex|api",
    "page": "html|css|form|page|web ?site|app(?:lication)?|class|model|game|server",
    "language": r"python|java|javascript|c\+\+|c#|php|ruby|rust|go(?:lang)?|swift|r",
    "one_liner": "sql|command|statement|expression|variable|syntax|output|result|value",
    "role": r"you are (?:an?|the)|act as|imagine (?:you|your)\w*|as an? \w+,|pretend|role",
    "choice": "options?|which of|true or false|correct|choose|sentiment|positive|negative",
    "rewrite": "rewrite|paraphrase|translate|grammar|correct the|rephrase|convert|edit",
    "looking": "images?|pictures?|photos?|shown?|see|digits?|shape|colou?r",
    "hearing": "audio|sound|speaker|spoken|hear|transcribe|said|video|frames?",
}
_PATTERNS = {name: re.compile(rf"(?<!\w)(?:{words})(?!\w)") for name, words in _WORDS.items()}
_REQUESTED = re.compile(r"\b(\d{1,5})[ -]?(words?|sentences?|paragraphs?|lines?|pages?|characters?|tokens?)\b")
_ITEMS = re.compile(r"\b(\d{1,3}|two|three|four|five|six|seven|eight|nine|ten)\b")
_TOKENS_EACH = {"word": 1.35, "sentence": 25.0, "paragraph": 110.0, "line": 12.0, "page": 600.0, "character": 0.25}
_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_WORD = re.compile(r"[a-z']+")
_LOOKED_AT = 1_500  # characters at either end: a megabyte of prompt must not cost a second
_OPENING_WORDS = 4  # "Could you please write"

_SHAPE: dict[str, Callable[[str, str], float]] = {
    "log_words": lambda text, lower: math.log1p(len(text.split())),
    "log_first_line": lambda text, lower: math.log1p(len(text.partition("\n")[0])),
    "log_lines": lambda text, lower: math.log1p(text.count("\n")),
    "log_sentences": lambda text, lower: math.log1p(len(re.findall(r"[.!?](\s|$)", text))),
    "questions": lambda text, lower: min(3.0, text.count("?")),
    "ends_with_question": lambda text, lower: float(text.rstrip().endswith("?")),
    "log_digits": lambda text, lower: math.log1p(sum(c.isdigit() for c in text)),
    "log_brackets": lambda text, lower: math.log1p(sum(c in "{}()[];=<>" for c in text)),
    "log_quotes": lambda text, lower: math.log1p(sum(c in "\"'`“”" for c in text)),
    "commas": lambda text, lower: math.log1p(text.count(",")),
    "log_requested_tokens": lambda text, lower: math.log1p(requested_tokens(lower)),
    "log_items": lambda text, lower: math.log1p(_items(lower)),
    "not_ascii": lambda text, lower: sum(not c.isascii() for c in text) / max(1, len(text)),
}

CUES = ("log_characters", *_SHAPE, *_PATTERNS, *(f"opens_{word}" for word in OPENINGS))


def cues(text: str) -> list[float]:
    """One number for each of CUES."""
    seen = text if len(text) <= 2 * _LOOKED_AT else f"{text[:_LOOKED_AT]}\n{text[-_LOOKED_AT:]}"
    lower = seen.lower()
    shape = [math.log1p(len(text)), *(measure(seen, lower) for measure in _SHAPE.values())]
    words = [float(min(3, sum(1 for _ in pattern.finditer(lower)))) for pattern in _PATTERNS.values()]
    opening = _opening(lower)
    return [*shape, *words, *(float(word == opening) for word in OPENINGS)]


def requested_tokens(lower: str) -> float:
    """The length that the prompt asks for in so many words, in tokens; 0: none."""
    found = [float(number) * _TOKENS_EACH.get(unit.rstrip("s"), 1.0) for number, unit in _REQUESTED.findall(lower)]
    return max(found, default=0.0)


def _items(lower: str) -> float:
    """The largest small number: "name five rivers"."""
    found = [_NUMBERS.get(word) or int(word) for word in _ITEMS.findall(lower)]
    return float(max((number for number in found if number <= 100), default=0))


def _opening(lower: str) -> str:
    words: list[str] = _WORD.findall(lower[:80])
    return next((word for word in words[:_OPENING_WORDS] if word in OPENINGS), "")
