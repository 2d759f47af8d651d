"""A TAPAS week, minute by minute: the plant, who is placed where, what is routed and configured, and what throttles.

Variants differ in three switches: placement, routing, configuration. Without them instances go where the next space is,
traffic is spread over an endpoint's instances as it comes, and all run at full speed. Whatever the variant, a row above
its power limit is capped as a whole, and a server with a GPU above its soft limit runs the next minute at half speed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from headrace.control.constants import InletLaw
from headrace.control.plant import Bursts, Plant, Seen, Weather
from headrace.core.power import configuration, placement, routing
from headrace.core.power.configuration import Config, Hysteresis, Point, Wanted, pareto
from headrace.core.power.emergency import Emergency, Event
from headrace.core.power.placement import Ask, Ground, Mask
from headrace.core.power.routing import Instances, Room
from headrace.core.power.templates import HOURS
from loadtest.reproduce.tapas_kept import Kept
from loadtest.reproduce.tapas_latency import Moment, Watch, seconds_of, tokens_of
from loadtest.reproduce.tapas_learning import learn
from loadtest.reproduce.tapas_load import ENDPOINTS, Case, Floats, Load, Numbers
from loadtest.reproduce.tapas_rivals import SLACK, SPEEDS, Rival, Rivals

SOFT_C = 83.0
SETTLE_MINUTES = 30  # ten times what a sink takes
MARGIN_C = 1.0  # [I] below the soft limit, bursts included
BURST_KEEP = 0.999  # of the highest burst seen, from minute to minute
NEWS = 0.05  # [I] relative change of an instance's work that makes its configuration a question
# Quality: MMLU of Llama 2 beside its 70B (68.9, 54.8, 45.3) [R]; throughput by size, 8-bit 1.5 x [I].
CONFIGS = (
    Config("70b", 1.0, 1.0, 1.0),
    Config("70b-fp8", 1.5, 0.95, 0.99),
    Config("13b", 4.0, 0.85, 54.8 / 68.9),
)
QUALITY_LEAST = 0.98  # outside emergencies: 8-bit may be used, smaller models may not
BURST_S = 4.0  # [I] of prefills that follow one another within a minute
UNEVEN = 0.10  # [I] deviation of an endpoint's instances' shares, without routing
THROTTLED = 0.5  # speed of a server that is too hot
PROMPT = 0.6  # [I] busy share that configuration leaves at most, where power and heat allow it
TARGET = 0.93  # [I] of a row's limit that configuration steers to


@dataclass(frozen=True, slots=True)
class Variant:
    place: bool = False
    route: bool = False
    configure: bool = False
    rival: Rival = ""  # instead of configuration: what others do

    @property
    def name(self) -> str:
        if self.rival:
            return self.rival
        on = [name for name in ("place", "route", "configure") if getattr(self, name)]
        return {0: "none", 3: "all"}.get(len(on), "+".join(on))


class World:
    def __init__(
        self,
        case: Case,
        loads: Load,
        variant: Variant,
        emergencies: Mapping[int, set[Event]] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """emergencies: which events hold from a minute on. watch: keeps minutes for the request simulator."""
        self.watch = watch or Watch(())
        self.case, self.loads, self.variant = case, loads, variant
        self.kind, self.server = case.kind, case.server
        self.emergencies: Mapping[int, set[Event]] = emergencies or {}
        self.emergency = Emergency()
        law = replace(InletLaw(), floor_c=InletLaw().floor_c + case.warm_k)
        self.plant = Plant(case.layout, self.kind, self.server, case.seed, law, aisle_airflow_m3s=case.aisle_most_m3s)
        self.models = learn(case, self.plant)
        self.rng = np.random.default_rng([case.seed, 23])
        self.points: list[list[Point]] = [self._table(endpoint.prefill) for endpoint in ENDPOINTS]
        self.full_w = np.array([self._dynamic_w(endpoint.prefill) for endpoint in ENDPOINTS])[loads.endpoint]
        per_minute = np.array([60.0 * tokens_of(each.name) / seconds_of(each.name) for each in ENDPOINTS])
        self.tokens_per_minute = per_minute[loads.endpoint]  # that a fully busy instance answers with
        shares = np.array([endpoint.prefill for endpoint in ENDPOINTS])[loads.endpoint]
        self.rivals = Rivals(variant.rival, self.kind, shares)
        self.config = np.zeros(loads.servings, dtype=np.int64)  # of each serving instance, into its endpoint's points
        self.loaded_s = np.full(loads.servings, -np.inf)
        self.hysteresis = Hysteresis.of(case.rows)
        self.kept = Kept()
        self.where = self._place()
        self.throttled: Mask = np.zeros(case.layout.servers, dtype=bool)
        self.opaque_w = np.zeros(loads.opaques)
        self.known_work = np.full(loads.servings, np.inf)  # that each was configured for
        self.burst_k = np.zeros(case.layout.servers)

    def _table(self, prefill: float) -> list[Point]:
        return pareto(
            CONFIGS,
            SPEEDS,
            prefill=prefill,
            decode_free=self.kind.decode_free_speed,
            exponent=self.kind.speed_exponent,
        )

    def _dynamic_w(self, prefill: float) -> float:
        """Of a GPU whose instance is fully busy at full speed."""
        kind = self.kind
        return prefill * (kind.prefill_w - kind.context_w) + (1.0 - prefill) * (kind.decode_w - kind.context_w)

    # --- placement ---

    def _place(self) -> Numbers:
        """The server of each instance: opaque ones first, then serving ones."""
        layout = self.case.layout
        count = self.loads.opaques + self.loads.servings
        where = np.full(count, -1, dtype=np.int64)
        if not self.variant.place:
            where[self.loads.order] = np.arange(layout.servers)[:count]
            return where
        ground = self._ground()
        for each in self.loads.order.tolist():
            ask = self._ask(each)
            placed = placement.place(ask, ground)
            assert placed is not None, "there are more servers than instances"
            ground.take(ask, placed.server)
            where[each] = placed.server
        return where

    def _ground(self) -> Ground:
        """What the models say of the hottest day."""
        case, gpus = self.case, self.server.gpus
        inlet = self.models.inlet_c(35.0, 0.8)
        low, high = 150.0, 600.0
        shape = (case.layout.servers, gpus)
        cold, hot = (self.models.gpu_c(inlet, np.full(shape, watts)).max(axis=1) for watts in (low, high))
        slope = (hot - cold) / (high - low)
        heat = (cold - slope * low, slope, SOFT_C)
        return Ground.empty(case.layout.row, case.layout.aisle, case.row_most_w, case.aisle_most_m3s, heat, HOURS)

    def _ask(self, each: int) -> Ask:
        """Opaque ones by their weekly templates; an endpoint's share at the load up to which promises are kept."""
        kind, gpus = self.kind, self.server.gpus
        if each < self.loads.opaques:
            dynamic = self.loads.templates[each] * (kind.prefill_w - kind.context_w)
        else:
            dynamic = np.full(HOURS, SLACK * self.full_w[each - self.loads.opaques])
        gpu_w = kind.context_w + dynamic
        air = self.server.airflow_least + (1 - self.server.airflow_least) * gpu_w / kind.prefill_w
        server_w = self.server.rest_w + gpus * gpu_w * (1 + self.server.rest_share) + self.server.fan_w * air**3
        name: placement.Kind = "opaque" if each < self.loads.opaques else "serving"
        return Ask(name, server_w, air * self.server.airflow_m3s, float(gpu_w.max()))

    # --- a minute ---

    def run(self) -> dict[str, float]:
        """The whole of it; figures of Kept, and processor seconds."""
        began = time.process_time()
        self._settle()
        for minute in range(self.case.minutes):
            self.emergency.events = self.emergencies.get(minute, self.emergency.events)
            self._minute(minute)
        return self.kept.figures() | {"cpu_s": time.process_time() - began}

    def _settle(self) -> None:
        """The first minute until its heat is its own: the models have learnt at loads that nobody had, and left the
        plant as hot as those made it."""
        for _ in range(SETTLE_MINUTES):
            self._minute(0)
        self.kept = Kept()
        self.throttled[:] = False

    def _minute(self, minute: int) -> None:
        loads, kept = self.loads, self.kept
        opaque = loads.opaque[minute]
        row_most, aisle_most = self.emergency.limits(self.case.row_most_w, self.case.aisle_most_m3s)
        weather = Weather(
            float(loads.outside_c[minute]), float(0.5 * (opaque.mean() + loads.work[minute].sum() / loads.servings))
        )
        inlet = self.models.inlet_c(weather.outside_c, weather.load)
        busy = self._route(minute, inlet, row_most, aisle_most)
        if self.variant.configure or self.variant.rival:
            if self.variant.rival:
                self._configure_as_others_do(minute, busy, row_most)
            else:
                self._configure(minute, busy, inlet, row_most)
            busy = self._route(minute, inlet, row_most, aisle_most)
        capacity, dynamic = self._running()
        opaque_w = opaque * (self.kind.prefill_w - self.kind.context_w)
        slowed = np.where(self.throttled, THROTTLED, 1.0)[self.where]
        dynamic_w = np.concatenate([opaque_w, busy * dynamic * self.full_w]) * slowed**self.kind.speed_exponent
        speed = slowed * self._cap(dynamic_w, row_most)
        gpu_w = self._gpus(dynamic_w * (speed / slowed) ** self.kind.speed_exponent)
        seen = self.plant.step(gpu_w, weather, 60.0, self._bursts(gpu_w, dynamic, speed))
        self.throttled = np.any(seen.peak_c >= SOFT_C, axis=1)
        self.burst_k = np.maximum(BURST_KEEP * self.burst_k, (seen.peak_c - seen.die_c).max(axis=1))
        self.opaque_w = opaque_w
        self._count(minute, seen, busy, capacity, speed, row_most)
        kept.opaque_asked += float(opaque.sum())
        kept.opaque_served += float((opaque * speed[: loads.opaques]).sum())
        if self.watch.wants(minute):
            self.watch.moments[minute] = self._moment(minute, busy * capacity, speed)

    def _moment(self, minute: int, doing: Floats, speed: Floats) -> Moment:
        loads, opaque = self.loads, self.loads.opaque[minute]
        points = [self.points[endpoint][at] for endpoint, at in zip(loads.endpoint, self.config, strict=True)]
        clock, slowed = np.array([point.speed for point in points]), speed[loads.opaques :]
        prefill, decode = (self.rivals.prefill, self.rivals.decode) if self.variant.rival else (clock, clock)
        return Moment(
            self._wanted(minute, doing),
            np.array([point.config.capacity for point in points]),
            prefill * slowed,
            decode * slowed,
            float(opaque.sum()),
            float((opaque * speed[: loads.opaques]).sum()),
        )

    def _running(self) -> tuple[Floats, Floats]:
        """Capacity and relative dynamic power of each serving instance, as configured."""
        if self.variant.rival:
            return self.rivals.running()
        points = [self.points[endpoint][at] for endpoint, at in zip(self.loads.endpoint, self.config, strict=True)]
        return np.array([point.capacity for point in points]), np.array([point.dynamic for point in points])

    def _route(self, minute: int, inlet: Floats, row_most: Floats, aisle_most: Floats) -> Floats:
        """Busy share of each serving instance."""
        loads, case = self.loads, self.case
        capacity, dynamic = self._running()
        busy = np.zeros(loads.servings)
        servers = self.where[loads.opaques :]
        if self.variant.route:
            base = self._gpus(np.concatenate([self.opaque_w, np.zeros(loads.servings)]))
            row_w = self.plant.by_row(self.models.server_w(base))
            air = self.plant.by_aisle(self.models.airflow_m3s(base))
            room_w = self._room_w(inlet)[servers]
            coolest = np.clip((room_w - self.kind.context_w) / np.maximum(dynamic * self.full_w, 1.0), 0.0, 1.0)
        for at in range(len(ENDPOINTS)):
            own = np.flatnonzero(loads.endpoint == at)
            work = float(loads.work[minute, at])
            if not self.variant.route:
                shares = np.maximum(0.1, 1.0 + UNEVEN * self._uneven(minute, at, len(own))) * capacity[own]
                busy[own] = np.minimum(1.0, work * shares / shares.sum() / capacity[own])
                continue
            rows, aisles = case.layout.row[servers[own]], case.layout.aisle[servers[own]]
            load_w = dynamic[own] * self.full_w[own] * self.server.gpus * (1.0 + self.server.rest_share)
            load_air = (1 - self.server.airflow_least) * self.server.airflow_m3s * load_w
            load_air = load_air / (self.server.gpus * self.kind.prefill_w * (1.0 + self.server.rest_share))
            busy[own] = routing.spread(
                work,
                Instances(rows, aisles, capacity[own], load_w, load_air, coolest[own]),
                Room(row_w, row_most, air, aisle_most),
            )
            row_w = row_w + np.bincount(rows, busy[own] * load_w, case.rows)
            air = air + np.bincount(aisles, busy[own] * load_air, case.layout.aisles)
        return busy

    def _room_w(self, inlet: Floats) -> Floats:
        """Watts of a GPU of each server at which its hottest stays below the soft limit, in its bursts as well."""
        safe_c = SOFT_C - MARGIN_C - self.burst_k
        found: Floats = np.min(self.models.gpu_w_for(safe_c[:, None], inlet), axis=1)
        return found

    def _uneven(self, minute: int, endpoint: int, count: int) -> Floats:
        """The same for every variant, whatever else it draws."""
        return np.random.default_rng([self.case.seed, minute // 10, endpoint]).normal(size=count)

    def _configure(self, minute: int, busy: Floats, inlet: Floats, row_most: Floats) -> None:
        loads = self.loads
        capacity, dynamic = self._running()
        servers = self.where[loads.opaques :]
        rows = self.case.layout.row[servers]
        base = self._gpus(np.concatenate([self.opaque_w, np.zeros(loads.servings)]))
        base_w = self.plant.by_row(self.models.server_w(base))
        factor = self.server.gpus * (1.0 + self.server.rest_share)
        drawn_w = busy * dynamic * self.full_w * factor
        row_w = base_w + np.bincount(rows, drawn_w, self.case.rows)
        must, may = self.hysteresis.look(row_w / row_most, 60.0 * minute)
        room_w = self._room_w(inlet)[servers] - self.kind.context_w
        hot = busy * dynamic * self.full_w > room_w
        wanted = self._wanted(minute, busy * capacity) / PROMPT
        news = ~must[rows] & (np.abs(wanted - self.known_work) > NEWS * np.maximum(self.known_work, NEWS))
        left = np.maximum(TARGET * row_most - base_w, 0.0) / np.maximum(np.bincount(rows, drawn_w, self.case.rows), 1.0)
        for each in np.flatnonzero(must[rows] | hot | news | (may[rows] & (self.config > 0))).tolist():
            own_w = left[rows[each]] * drawn_w[each] / factor if drawn_w[each] else self.full_w[each]
            most = min(own_w, room_w[each]) / self.full_w[each]
            self.known_work[each] = wanted[each]
            self._reconfigure(each, minute, float(wanted[each]), max(0.0, float(most)))

    def _configure_as_others_do(self, minute: int, busy: Floats, row_most: Floats) -> None:
        capacity, dynamic = self._running()
        drawn = self._gpus(np.concatenate([self.opaque_w, busy * dynamic * self.full_w]))
        risk = self.plant.by_row(self.models.server_w(drawn)) / row_most
        rows = self.case.layout.row[self.where[self.loads.opaques :]]
        self.rivals.choose(self._wanted(minute, busy * capacity), risk[rows])

    def _wanted(self, minute: int, doing: Floats) -> Floats:
        """Of each serving instance: what it does, and its part of what its endpoint cannot do now."""
        endpoint = self.loads.endpoint
        done = np.bincount(endpoint, doing, len(ENDPOINTS))
        found: Floats = doing * np.maximum(1.0, self.loads.work[minute] / np.maximum(done, 1e-9))[endpoint]
        return found

    def _reconfigure(self, each: int, minute: int, work: float, dynamic_most: float) -> None:
        points, now = self.points[int(self.loads.endpoint[each])], int(self.config[each])
        may_reload = 60.0 * minute - self.loaded_s[each] >= configuration.RELOAD_S
        least = 0.0 if self.emergency.events else QUALITY_LEAST
        found = configuration.choose(points, Wanted(work, dynamic_most, least), now, may_reload=may_reload)
        if points[found].config != points[now].config:
            self.loaded_s[each] = 60.0 * minute
            self.kept.reloads += 1
        self.config[each] = found

    # --- physics beside the plant ---

    def _gpus(self, dynamic_w: Floats) -> Floats:
        """[server, gpu]: all GPUs of an instance draw the same; an empty server's are off."""
        watts = np.full(self.case.layout.servers, self.kind.idle_w)
        watts[self.where] = self.kind.context_w + dynamic_w
        return np.repeat(watts[:, None], self.server.gpus, axis=1)

    def _cap(self, dynamic_w: Floats, row_most: Floats) -> Floats:
        """Speeds under the rows' power capping: all in a row alike, as breakers demand. Counts an event a row."""
        gpu_w = self._gpus(dynamic_w) * self.plant.varied.power
        row_w = self.plant.by_row(self.plant.server_w(gpu_w, self.plant.airflow_share(gpu_w)))
        over = row_w > row_most
        self.kept.over_row += int(over.sum())
        self.kept.power_events += int(over.sum())
        self.kept.capped_minutes += int(over.sum())
        self.kept.row_peak_w = max(self.kept.row_peak_w, float(row_w.max()))
        if not over.any():
            return np.ones(len(dynamic_w))
        rows = self.case.layout.row[self.where]
        movable = np.bincount(rows, dynamic_w * self.server.gpus * (1 + self.server.rest_share), self.case.rows)
        keep = np.clip(1.0 - (row_w - row_most) / np.maximum(movable, 1.0), 0.05, 1.0)
        return np.where(over, keep, 1.0)[rows] ** (1.0 / self.kind.speed_exponent)

    def _bursts(self, gpu_w: Floats, dynamic: Floats, speed: Floats) -> Bursts:
        """A busy instance prefills for some seconds at a time."""
        full = np.ones(self.loads.opaques + self.loads.servings)
        full[self.loads.opaques :] = dynamic
        peak = self.kind.context_w + full * speed**self.kind.speed_exponent * (
            self.kind.prefill_w - self.kind.context_w
        )
        power = np.zeros(self.case.layout.servers)
        power[self.where] = peak
        return Bursts(np.maximum(np.broadcast_to(power[:, None], gpu_w.shape), gpu_w), np.full(gpu_w.shape, BURST_S))

    def _count(self, minute: int, seen: Seen, busy: Floats, capacity: Floats, speed: Floats, row_most: Floats) -> None:
        kept, loads = self.kept, self.loads
        peak = seen.peak_c
        kept.t_max_c = max(kept.t_max_c, float(peak.max()))
        kept.t_max_above_inlet_c = max(kept.t_max_above_inlet_c, float((peak - seen.inlet_c[:, None]).max()))
        kept.over_temp += int((peak >= SOFT_C).sum())
        kept.thermal_events += int((peak >= SOFT_C).any(axis=1).sum())
        kept.gpu_minutes += peak.size
        kept.row_minutes += self.case.rows
        kept.energy_j += 60.0 * float(seen.row_w.sum())
        kept.serving_j += 60.0 * float(seen.server_w[self.where[loads.opaques :]].sum())
        if minute % 60 == 0:
            kept.gpu_p99_c.append(float(np.quantile(peak, 0.99)))
        points = [self.points[endpoint][at] for endpoint, at in zip(loads.endpoint, self.config, strict=True)]
        quality = np.array([point.quality for point in points])
        slow = speed[loads.opaques :]
        done = np.minimum(busy * capacity, capacity * slow)  # what is not fully busy catches up
        kept.asked += float(loads.work[minute].sum())
        kept.served += float(done.sum())
        kept.tokens += float(done @ self.tokens_per_minute)
        kept.quality += float((done * quality).sum())
