"""Training rows: branches that share images do not see one another, answers are predicted from the right places."""

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")

from headrace.core.errors import Unavailable  # noqa: E402
from headrace.engines.families.smollm2 import END_OF_TURN, SmolLM2, load, weights_path  # noqa: E402
from headrace.training.alignment import caption, captions  # noqa: E402
from headrace.training.batches import Row, Sampler, collate  # noqa: E402
from headrace.training.pictures import COLORS, CORNERS, KINDS, Digit, Shape  # noqa: E402

LABELS = [Digit(value) for value in range(10)] + [Shape("red", "circle", "top left")]
PREFIX = 24


@pytest.fixture(scope="module")
def smollm2() -> SmolLM2:
    try:
        weights_path()
    except Unavailable as error:
        pytest.skip(error.message)
    return load()


def branched(smollm2: SmolLM2) -> Row:
    """A row of three images and at least two questions."""
    sampler = Sampler(smollm2, LABELS, seed=1)
    return next(row for row in (sampler.row_of(3) for _ in range(100)) if len(row.questions) > 1)


def test_a_branch_sees_the_images_and_itself(smollm2: SmolLM2) -> None:
    row = branched(smollm2)
    mask = collate([row]).mask[0, 0]
    assert mask[:, :PREFIX].all()
    for at, branch in enumerate(row.branches):
        seen = {i for i in range(len(row.tokens)) if mask[at, PREFIX + i]}
        assert seen == {i for i in range(at + 1) if row.branches[i] in (0, branch)}


def test_positions_go_on_after_the_images_in_every_branch(smollm2: SmolLM2) -> None:
    row = branched(smollm2)
    shared = row.branches.count(0)
    for branch in set(row.branches) - {0}:
        positions = [p for p, b in zip(row.positions, row.branches, strict=True) if b == branch]
        assert positions == list(range(PREFIX + shared, PREFIX + shared + len(positions)))


def test_targets_spell_the_answers(smollm2: SmolLM2) -> None:
    row = branched(smollm2)
    for number, question in enumerate(row.questions):
        ids = [token for _, token, owner in row.targets if owner == number]
        assert ids[-1] == END_OF_TURN
        assert smollm2.tokenizer.decode(ids[:-1]) == question.answer
        places = [at for at, _, owner in row.targets if owner == number]
        assert [row.tokens[at] for at in places[1:]] == ids[:-1]


def test_captions_are_a_word_a_soft_token(smollm2: SmolLM2) -> None:
    shapes = [Shape(color, kind, corner) for color in COLORS for kind in KINDS for corner in CORNERS]
    assert captions(smollm2, [*LABELS, *shapes]).shape == (len(LABELS) + len(shapes), 4)
    assert caption(Digit(6)) == " digit six six even"
