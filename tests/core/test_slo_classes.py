"""SLO classes as configuration: what a file may leave out, and errors that name the key."""

import tomllib
from typing import Any

import pytest

from headrace.core.slo import BUILT_IN, CLASSES, BadClasses, SloClass, classes_of

GOLD = "[classes.gold]\nttft_s = 1\ntimeout_s = 30\nqueue_limit = 10\n"


def read(text: str) -> Any:
    return classes_of(tomllib.loads(text))


def test_the_built_in_ones() -> None:
    assert (BUILT_IN.get(""), BUILT_IN.get("batch-2")) == (CLASSES["interactive"], CLASSES["batch-2"])
    assert BUILT_IN.get("gold") is None


def test_a_class_of_ones_own() -> None:
    classes = read('default = "gold"\n' + GOLD + "tbt_s = 0.05\nttl_s = 20\n")
    assert classes.named == {"gold": SloClass("gold", 1.0, 30.0, 10, 0.05, 20.0)}
    assert classes.get("") is classes.get("gold")
    assert classes.get("interactive") is None, "the classes are those of the file alone"


def test_a_built_in_class_says_only_what_is_different() -> None:
    classes = read("[classes.interactive]\nttft_s = 2.5\nttl_s = 0\n" + GOLD)
    was = CLASSES["interactive"]
    assert classes.get("") == SloClass("interactive", 2.5, was.timeout_s, was.queue_limit)
    assert list(classes.named) == ["interactive", "gold"]


BAD = {
    "an empty file": ("", "classes"),
    "no class": ("[classes]", "classes"),
    "classes as a number": ("classes = 3", "classes"),
    "an unknown key": ("clases = 3\n" + GOLD, "clases"),
    "an unknown member": (GOLD + "ttft = 3", "classes.gold.ttft"),
    "a missing member": ("[classes.gold]\nttft_s = 1\nqueue_limit = 1", "classes.gold.timeout_s"),
    "a class that is no table": ("[classes]\ngold = 3", "classes.gold"),
    "a name with a space": ('[classes."very gold"]\nttft_s = 1', "classes.very gold"),
    "a target in words": (GOLD.replace("ttft_s = 1", 'ttft_s = "soon"'), "classes.gold.ttft_s"),
    "a target of nothing": (GOLD.replace("ttft_s = 1", "ttft_s = 0"), "classes.gold.ttft_s"),
    "a target that is no number": (GOLD.replace("ttft_s = 1", "ttft_s = nan"), "classes.gold.ttft_s"),
    "true as a number": (GOLD.replace("= 10", "= true"), "classes.gold.queue_limit"),
    "half a place": (GOLD.replace("= 10", "= 10.5"), "classes.gold.queue_limit"),
    "no place": (GOLD.replace("= 10", "= 0"), "classes.gold.queue_limit"),
    "a target behind the deadline": (GOLD.replace("ttft_s = 1", "ttft_s = 31"), "classes.gold.ttft_s"),
    "a negative time to live": (GOLD + "ttl_s = -1", "classes.gold.ttl_s"),
    "no default": (GOLD, "default"),
    "a default that is not there": ('default = "silver"\n' + GOLD, "default"),
    "a default that is no name": ("default = [1]\n" + GOLD, "default"),
    "too many": ("".join(GOLD.replace("gold", f"g{i}") for i in range(65)), "classes"),
}


@pytest.mark.parametrize(("text", "key"), BAD.values(), ids=BAD.keys())
def test_an_error_names_its_key(text: str, key: str) -> None:
    with pytest.raises(BadClasses) as caught:
        read(text)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")
