"""What earlier attempts left behind: token logs in Redis, what gateways have shown, results already stored."""

import asyncio
from collections import defaultdict

from headrace.core.effects import FindResults, Orphan, RecoverTokens
from headrace.core.errors import Unavailable
from headrace.core.events import Recovered, ResultsFound, TokensRecovered
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import StoreDown
from headrace.mesh.journal import Journal
from headrace.mesh.logs import get_logger
from headrace.mesh.store import Store
from headrace.mesh.token_log import Logged
from headrace.v1 import queue_pb2
from headrace.wire.convert import end_from_proto, key_to_proto, logprobs_from_proto

HELD_WAIT_S = 0.5  # a gateway that does not answer by then is taken for gone
FENCES_MAX = 256  # in one query: with 1,000 tokens each held the answer still fits into 1 MB
LOOKUPS_AT_ONCE = 256
AGAIN_S = 0.2

log = get_logger("queue")


class Recovery:
    def __init__(self, bus: Bus, store: Store, journal: Journal, epoch: int) -> None:
        self._bus = bus
        self._store = store
        self._journal = journal
        self._epoch = epoch

    async def tokens(self, effect: RecoverTokens) -> TokensRecovered:
        """The longest of what the token log and the gateway have; the end if the gateway has one."""
        logs, held = await asyncio.gather(self._logs(effect), self._held(effect))
        return TokensRecovered(tuple([_longest(orphan, logs, held) for orphan in effect.orphans]))

    async def _logs(self, effect: RecoverTokens) -> dict[str, Logged]:
        ids = [orphan.key.request_id for orphan in effect.orphans]
        try:
            return await self._store.read_tokens(ids)
        except StoreDown:
            log.warning("token_logs_unreadable", requests=len(ids))
            return {}

    async def _held(self, effect: RecoverTokens) -> dict[str, queue_pb2.HeldTokens]:
        by_gateway: dict[str, list[Orphan]] = defaultdict(list)
        for orphan in effect.orphans:
            by_gateway[orphan.gateway].append(orphan)
        replies = await asyncio.gather(*(self._ask(gateway, asked) for gateway, asked in by_gateway.items()))
        return {held.request_id: held for reply in replies for held in reply if held.known}

    async def _ask(self, gateway: str, orphans: list[Orphan]) -> list[queue_pb2.HeldTokens]:
        """One query after the other; a gateway that has not answered one is asked no more."""
        held: list[queue_pb2.HeldTokens] = []
        for start in range(0, len(orphans), FENCES_MAX):
            fence = [key_to_proto(orphan.key) for orphan in orphans[start : start + FENCES_MAX]]
            query = queue_pb2.HeldQuery(epoch=self._epoch, fence=fence)
            try:
                data = await self._bus.request(subjects.held(gateway), query.SerializeToString(), HELD_WAIT_S)
            except Unavailable as error:
                log.warning("gateway_does_not_answer", gateway=gateway, why=error.message)
                return held
            held.extend(queue_pb2.HeldReply.FromString(data).held)
        return held

    async def results(self, effect: FindResults) -> ResultsFound:
        ended: list[str] = []
        ids = effect.request_ids
        for start in range(0, len(ids), LOOKUPS_AT_ONCE):
            chunk = ids[start : start + LOOKUPS_AT_ONCE]
            found = await asyncio.gather(*map(self._has_result, chunk))
            ended.extend(request_id for request_id, has in zip(chunk, found, strict=True) if has)
        return ResultsFound(len(ids), tuple(ended))

    async def _has_result(self, request_id: str) -> bool:
        """Asked until the journal answers: to run an ended request again would be worse than to wait."""
        while True:
            try:
                return await self._journal.result(request_id) is not None
            except Unavailable:
                await asyncio.sleep(AGAIN_S)


def _longest(orphan: Orphan, logs: dict[str, Logged], held: dict[str, queue_pb2.HeldTokens]) -> Recovered:
    request_id = orphan.key.request_id
    logged, shown = logs.get(request_id, Logged()), held.get(request_id)
    if shown is None:
        return Recovered(orphan.key, logged.tokens, logprobs=logged.logprobs)
    end = end_from_proto(shown.end) if shown.HasField("end") else None
    tokens = tuple(shown.tokens) if end is not None else max(logged.tokens, tuple(shown.tokens), key=len)
    told = {**dict(logged.logprobs), **dict(logprobs_from_proto(shown.logprobs))}
    return Recovered(orphan.key, tokens, end, tuple([(at, told[at]) for at in sorted(told) if at < len(tokens)]))
