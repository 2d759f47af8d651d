"""How an answer's log-probabilities read on a terminal."""

import math

from headrace.cli.likelihood import rows
from headrace.client import LikelyToken, TokenLogprobs


def test_tokens_show_as_they_are() -> None:
    word = LikelyToken(5, b" red", math.log(0.75))
    half, special = LikelyToken(9, b"\xc3", math.log(0.2)), LikelyToken(2, b"", math.log(0.05))
    assert rows([TokenLogprobs(0, word, (word, half, special)), TokenLogprobs(1, special, ())]) == [
        ("' red'", "75.0%", "' red' 75.0%, '\\\\xc3' 20.0%, <2> 5.0%"),
        ("<2>", "5.0%", ""),
    ]
