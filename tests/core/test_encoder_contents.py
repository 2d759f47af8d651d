"""Embeddings by content: bounds, order of forgetting, what keeps keys apart; and contents that wait for one tower."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.stages.content import Affinity, Content, EncoderCache, Home, content_of
from headrace.core.stages.encoder_batch import EncodeLine, Encoding
from headrace.core.types import Media, MediaMeta

META = MediaMeta("image", "image/png", 40, 30, 100)
MEDIA = Media(META, "ab" * 32, 16)
CONTENT = Content("tenant a", "m", MEDIA)


def content(number: int) -> Content:
    return Content("tenant a", "m", replace(MEDIA, sha256=f"{number:064x}"))


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("another tenant", replace(CONTENT, scope="tenant b")),
        ("all tenants together", replace(CONTENT, scope="all")),
        ("another model", replace(CONTENT, model="n")),
        ("other bytes", replace(CONTENT, media=replace(MEDIA, sha256="cd" * 32))),
        ("another count of tokens", replace(CONTENT, media=replace(MEDIA, tokens=17))),
        (
            "the same bytes as another modality",
            replace(CONTENT, media=replace(MEDIA, meta=replace(META, modality="v"))),
        ),
        ("another size, as a header was read", replace(CONTENT, media=replace(MEDIA, meta=replace(META, width=41)))),
        ("another duration", replace(CONTENT, media=replace(MEDIA, meta=replace(META, duration_s=1.0)))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_differs_in_anything_is_another_content(what: str, other: Content) -> None:
    cache = EncoderCache[str](100)
    cache.put(CONTENT, "mine", 10)
    assert cache.get(Content("tenant a", "m", Media(META, "ab" * 32, 16))) == "mine"
    assert cache.get(other) is None, what


@pytest.mark.parametrize(
    ("scope", "sha256", "shared"),
    [("tenant a", "ab", True), ("tenant ", "ab", True), ("", "ab", False), ("tenant a", "", False)],
    ids=["of a tenant", "of a gateway that is open", "of nobody", "of unknown bytes"],
)
def test_what_may_be_shared(scope: str, sha256: str, shared: bool) -> None:
    assert (content_of(scope, "m", replace(MEDIA, sha256=sha256)) is not None) == shared


def test_the_least_recently_used_goes_first() -> None:
    cache = EncoderCache[int](30)
    for number in range(3):
        cache.put(content(number), number, 10)
    assert cache.get(content(0)) == 0
    cache.put(content(3), 3, 10)
    assert [cache.get(content(number)) for number in range(4)] == [0, None, 2, 3]
    cache.put(content(4), 4, 25)
    assert (len(cache), cache.used_bytes, cache.get(content(4))) == (1, 25, 4)


def test_what_is_larger_than_the_cache_takes_nobodys_place() -> None:
    cache = EncoderCache[int](30)
    cache.put(content(0), 0, 30)
    cache.put(content(1), 1, 31)
    assert (cache.get(content(0)), cache.get(content(1))) == (0, None)
    off = EncoderCache[int](0)
    off.put(content(0), 0, 1)
    assert (len(off), off.used_bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60))
def test_it_holds_what_a_list_in_order_of_use_would(steps: list[tuple[int, int]]) -> None:
    """Size 0 stands for a look."""
    cache, model = EncoderCache[int](100), OrderedDict[int, int]()
    for number, size_bytes in steps:
        if size_bytes:
            cache.put(content(number), number, size_bytes)
            model[number] = size_bytes
            model.move_to_end(number)
            while sum(model.values()) > 100:
                model.popitem(last=False)
        else:
            assert (cache.get(content(number)) is not None) == (number in model)
            if number in model:
                model.move_to_end(number)
        assert (cache.used_bytes, len(cache)) == (sum(model.values()), len(model))


def test_homes_are_bounded_and_the_latest_is_first() -> None:
    affinity = Affinity(contents_max=2, homes_max=2)
    a, b, c = (Home(name, "1") for name in "abc")
    for home in (a, b, a, c):
        affinity.sent(content(0), home)
        affinity.check()
    assert affinity.homes(content(0)) == (c, a)
    affinity.sent(content(1), a)
    affinity.sent(content(0), a)
    affinity.sent(content(2), a)
    assert [len(affinity.homes(content(number))) for number in range(3)] == [2, 0, 1]
    affinity.check()


# --- the line of a tower ---


@dataclass(eq=False)
class Asked:
    name: str
    modality: str = "image"


def line(gone: set[str]) -> EncodeLine[Asked]:
    return EncodeLine(lambda part: part.name not in gone)


def told(batch: list[Encoding[Asked]]) -> list[str]:
    return ["+".join(part.name for part in encoding.parts) for encoding in batch]


def test_one_content_takes_one_turn_whoever_waits_for_it() -> None:
    gone: set[str] = set()
    tower = line(gone)
    for name, number in (("a", 0), ("b", 1), ("c", 0), ("d", 2), ("e", 0)):
        tower.add(Asked(name), content(number))
    assert (len(tower), tower.parts) == (3, 5)
    batch = tower.next(2)
    assert told(batch) == ["a+c+e", "b"]
    tower.add(Asked("f"), content(0))  # it is in the tower now
    tower.add(Asked("g"), None)  # nobody's to share
    tower.add(Asked("h"), None)
    gone.add("a")
    assert [[part.name for part in tower.end(encoding)] for encoding in batch] == [["c", "e", "f"], ["b"]]
    tower.add(Asked("i"), content(0))
    assert told(tower.next(8)) == ["d", "g", "h", "i"]


def test_what_nobody_wants_is_dropped_and_modalities_keep_apart() -> None:
    gone = {"a", "c"}
    tower = line(gone)
    for number, (name, modality) in enumerate((("a", "image"), ("b", "image"), ("c", "audio"), ("d", "audio"))):
        tower.add(Asked(name, modality), content(number))
    batch = tower.next(8)
    assert told(batch) == ["b"]
    assert [encoding.modality for encoding in batch] == ["image"]
    again = tower.next(8)
    assert told(again) == ["d"]
    for encoding in (*batch, *again):
        tower.end(encoding)
    assert (len(tower), tower.parts, tower.next(8)) == (0, 0, [])
    tower.add(Asked("e"), content(0))
    assert told(tower.next(8)) == ["e"], "a dropped content can wait again"


@given(st.lists(st.tuples(st.sampled_from("anteg"), st.integers(0, 3)), max_size=50))
def test_every_wanted_part_gets_an_end_exactly_once(steps: list[tuple[str, int]]) -> None:
    gone, asked, ended, batch = set[str](), list[str](), list[str](), list[Encoding[Asked]]()
    tower = line(gone)
    for verb, number in [*steps, *[("n", 0), ("e", 0)] * 60]:
        if verb in "at":
            asked.append(f"p{len(asked)}")
            tower.add(Asked(asked[-1]), content(number) if verb == "a" else None)
        elif verb == "g" and asked:
            gone.add(asked[-1 - number % len(asked)])
        elif verb == "n" and not batch:
            batch = tower.next(2)
        elif verb == "e":
            ended += [part.name for encoding in batch for part in tower.end(encoding)]
            batch = []
    assert len(ended) == len(set(ended))
    assert set(asked) - gone <= set(ended)
    assert (tower.parts, len(tower)) == (0, 0)
