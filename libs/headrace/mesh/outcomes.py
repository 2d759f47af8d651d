"""What became of each line of a batch: stored once, the first time counts, until the batch's files are written.

A JetStream stream with one message a line. The order in which they were stored is the order of every later reading.
"""

from collections.abc import Callable

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from headrace.core.errors import Unavailable
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.follower import Follower, Record
from headrace.mesh.jetstream import START_S, ApiFailure, StreamSpec, WrongLastSequence, again, api, ensure_stream, store

OUTCOME_BYTES_MAX = 900_000  # NATS takes a message of 1 MB
AGAIN_S_MAX = 2.0


class Outcomes:
    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._bus = bus
        self._spec = StreamSpec(
            subjects.STREAM_LINES,
            subjects.LINES,
            settings.batch_bytes,
            settings.batch_kept_s,
            "new",
            settings.journal_replicas,
        )

    async def open(self) -> None:
        """Raises BadSetup: the server has no room for the stream."""
        try:
            await again(self._ensure, START_S)
        except ApiFailure as error:
            raise BadSetup(f"stream {self._spec.name}: {error.description}; see HEADRACE_BATCH_BYTES") from error

    async def _ensure(self) -> None:
        await ensure_stream(self._bus, self._spec)

    async def store(self, batch_id: str, number: int, data: bytes) -> bool:
        """False: this line had one already. Waits, for as long as the caller does, while the stream is away or full."""
        assert len(data) <= OUTCOME_BYTES_MAX
        subject = subjects.line(batch_id, number)
        head = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n"

        async def once() -> bool:
            try:
                await store(self._bus, subject, data, head)
            except WrongLastSequence:
                return False
            return True

        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.05, max=AGAIN_S_MAX),
            retry=retry_if_exception_type(Unavailable),
            reraise=True,
        )
        return await retrying(once)

    def follow(
        self, batch_id: str, on_records: Callable[[list[Record]], None], on_caught_up: Callable[[], None]
    ) -> Follower:
        """The batch's outcomes in the order of their storing; a record's request_id is the line's number."""
        subject = subjects.line(batch_id, "*")
        return Follower(self._bus, self._spec.name, self._ensure, on_records, on_caught_up, subject)

    async def purge(self, batch_id: str) -> None:
        """Raises Unavailable; what stays goes by its age."""
        await api(self._bus, f"STREAM.PURGE.{self._spec.name}", {"filter": subjects.line(batch_id, "*")})
