"""One request's life: when it came, each stage, how it ended; of one that has not, what the queue manager says."""

import asyncio
import time

from headrace.core.errors import HeadraceError, NotFound, Unavailable
from headrace.core.slo import Classes
from headrace.v1 import queue_pb2
from services.gateway.console import shown
from services.gateway.console.managers import Managers
from services.gateway.console.tally import Row, Tally
from services.gateway.live import Live
from services.gateway.service import Gateway

UNKNOWN = "unknown"


async def life_of(gateway: Gateway, managers: Managers, classes: Classes, tally: Tally, request_id: str) -> shown.Shown:
    """Looks and changes nothing: a request that another gateway streams stays there.

    Raises:
        NotFound: nobody knows it, any more or at all.
        Unavailable: the journal is away.
    """
    live, told = await asyncio.gather(gateway.lookup.ended_or_here(request_id), _explained(managers, request_id))
    if live is None and (told is None or told.state == UNKNOWN):
        why = "the queue manager does not answer" if told is None else "results are kept for a few minutes"
        raise NotFound(f"no such request; {why}", field="request_id")
    shown_life: shown.Shown = {"id": request_id, "now_s": time.time(), "explain": None}
    if live is not None:
        shown_life |= _seen(gateway, classes, live)
        if (row := tally.ended(request_id)) is not None and not live.received_s:
            shown_life |= _remembered(gateway, classes, row)
    if told is not None and told.state != UNKNOWN:
        shown_life["explain"] = shown.explained(told)
        if live is None or live.end is None:
            shown_life["timeline"] = [*shown_life.get("timeline", ()), *[shown.span(one) for one in told.timeline]]
    return shown_life


async def _explained(managers: Managers, request_id: str) -> queue_pb2.ExplainResponse | None:
    try:
        return await managers.explain(request_id)
    except (Unavailable, HeadraceError):
        return None  # what the gateway itself knows is shown


def _seen(gateway: Gateway, classes: Classes, live: Live) -> shown.Shown:
    """What this gateway, or the result, tells."""
    facts, end, slo = live.facts, live.end, classes.named.get(live.facts.slo_class)
    here = bool(live.received_s)
    first_s = live.received_s + live.first_token_s - live.opened_s if here and live.first_token_s is not None else None
    spans = []
    if here and live.admitted_s:
        spans.append(_span("admit", live.received_s, live.admitted_s, gateway.name))
    if end is not None:
        spans += [shown.span(one) for one in end.timeline]
    return {
        "class": facts.slo_class,
        "model": facts.model,
        "tenant": facts.tenant,
        "trace_id": facts.traceparent[3:35],  # empty: not traced
        "gateway": gateway.name if here else "",
        "received_s": live.received_s or None,
        "first_token_s": first_s,
        "ended_s": live.received_s + live.ended_s - live.opened_s if here and live.ended_s else None,
        "target_s": facts.ttft_s or (slo.ttft_s if slo is not None else None),
        "tokens": len(live.stream.tokens),
        "attempt": live.stream.attempt,
        "prompt_tokens": facts.prompt_tokens,
        "reason": end.reason if end is not None else "",
        "failure": {"code": end.failure.code, "message": end.failure.message} if end and end.failure else None,
        "usage": shown.usage(end.usage) if end is not None else None,
        "timeline": spans,
    }


def _remembered(gateway: Gateway, classes: Classes, row: Row) -> shown.Shown:
    """Results do not tell these; this gateway still knows them of its own requests."""
    slo = classes.named.get(row.slo_class)
    return {
        "class": row.slo_class,
        "gateway": gateway.name,
        "received_s": row.at_s,
        "first_token_s": row.at_s + row.ttft_s if row.ttft_s is not None else None,
        "ended_s": row.at_s + row.took_s if row.took_s is not None else None,
        "target_s": slo.ttft_s if slo is not None else None,
    }


def _span(stage: str, start_s: float, end_s: float, worker: str) -> shown.Shown:
    whole = {"stage": stage, "start_s": start_s, "end_s": end_s, "worker": worker}
    return whole | {"part": 0, "cached": False, "joules": None}
