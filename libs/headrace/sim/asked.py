"""What the world knows of a request and the mesh does not: how long its answer will be, what its client has seen."""

from headrace.core.types import Request


class Part:
    """One media part as its encoder computes it."""

    __slots__ = ("pixels", "tiles")

    def __init__(self, tiles: int, pixels: int) -> None:
        self.tiles = tiles
        self.pixels = pixels


class Asked:
    """A request of the workload on its way: at its gateway, and in whatever worker computes for it."""

    __slots__ = (
        "attempt",
        "cross_rows",
        "ended",
        "fence",
        "output_tokens",
        "parts",
        "paused_s",
        "request",
        "row",
        "shown",
    )

    def __init__(
        self, request: Request, row: int, output_tokens: int, parts: tuple[Part, ...], cross_rows: int
    ) -> None:
        self.request = request
        self.row = row
        self.output_tokens = output_tokens
        self.parts = parts
        self.cross_rows = cross_rows  # media rows that stand beside the sequence
        self.shown = 0  # tokens that its client has seen
        self.attempt = 0  # the last that was sent to prefill
        self.fence = 0  # attempts before this one are not listened to
        self.paused_s = 0.0  # when its last token went out, while it moves from one worker to another
        self.ended = ""  # the reason, once its client knows
