"""The log-probabilities of an answer as a table: one line per token, what it was and what else it might have been."""

import math
from collections.abc import Iterable

from headrace.client import LikelyToken, TokenLogprobs

COLUMNS = ("token", "probability", "likeliest")


def rows(told: Iterable[TokenLogprobs]) -> list[tuple[str, str, str]]:
    return [(_text(one.drawn), _share(one.drawn), ", ".join(map(_likely, one.top))) for one in told]


def _likely(token: LikelyToken) -> str:
    return f"{_text(token)} {_share(token)}"


def _text(token: LikelyToken) -> str:
    """Quoted: spaces and pieces of characters show. A special token adds no text: its number."""
    return repr(token.text.decode("utf-8", "backslashreplace")) if token.text else f"<{token.token}>"


def _share(token: LikelyToken) -> str:
    return f"{math.exp(token.logprob):.1%}"
