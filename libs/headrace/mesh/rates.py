"""Rate limits and quotas of API keys in Redis: one script and one round trip a request, the same for all gateways.

The rule is core/rates.py's; the clock is Redis' own, so that gateways whose clocks differ agree. Both keys of a
script share the cell's hash tag and have a TTL: limits hold on a cluster, and a key that is not used leaves nothing.
"""

import asyncio

from headrace.core.access import Limits
from headrace.core.rates import BUSY_AGAIN_S, DAY_S, Verdict
from headrace.mesh.store import CONNECTIONS_MAX, Store

TTL_S = DAY_S + 3600  # of a day's quota; buckets are full again after a minute

# KEYS: the buckets (hash), the running requests (sorted set). ARGV: the four limits, cost, request, seconds it may run.
# Numbers go back as text: Redis would cut them to integers.
_TAKE = f"""
local r, t, c, d, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local had = redis.call('HMGET', KEYS[1], 'r', 't', 'at', 'day', 'used')
local at = tonumber(had[3]) or now
local passed = math.max(0, now - at)
local requests = math.min(r, (tonumber(had[1]) or r) + r * passed / 60)
local tokens = math.min(t, (tonumber(had[2]) or t) + t * passed / 60)
local today = math.floor(now / {DAY_S})
local used = tonumber(had[5]) or 0
if tonumber(had[4]) ~= today then used = 0 end
local running = 0
if c > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  running = redis.call('ZCARD', KEYS[2])
end
local refused, wait = '', 0
local function no(name, seconds) if seconds > wait then refused, wait = name, seconds end end
if r > 0 and requests < 1 then no('requests', (1 - requests) * 60 / r) end
if t > 0 and tokens < cost then no('tokens', (cost - tokens) * 60 / t) end
if c > 0 and running >= c then no('concurrent', {BUSY_AGAIN_S}) end
if d > 0 and used + cost > d then no('quota', (today + 1) * {DAY_S} - now) end
if refused == '' then
  if r > 0 then requests = requests - 1 end
  if t > 0 then tokens = tokens - cost end
  used = used + cost
  if c > 0 then
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[7]), ARGV[6])
    redis.call('EXPIRE', KEYS[2], {TTL_S})
  end
end
local function text(number) return string.format('%.6f', number) end
redis.call('HSET', KEYS[1], 'r', text(requests), 't', text(tokens), 'at', text(now), 'day', today, 'used', text(used))
redis.call('EXPIRE', KEYS[1], {TTL_S})
return {{refused, text(wait), text(requests), text(tokens), tostring(today)}}
"""
# ARGV: tokens a minute, request, tokens to give back, day of the charge.
_SETTLE = """
redis.call('ZREM', KEYS[2], ARGV[2])
local had = redis.call('HMGET', KEYS[1], 't', 'day', 'used')
if not had[1] then return 0 end
local back = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 't', string.format('%.6f', math.min(tonumber(ARGV[1]), tonumber(had[1]) + back)))
if had[2] == ARGV[4] then
  redis.call('HSET', KEYS[1], 'used', string.format('%.6f', math.max(0, tonumber(had[3]) - back)))
end
return 1
"""


class Rates:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._take, self._settle = store.script(_TAKE), store.script(_SETTLE)
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)  # a burst waits its turn; it is no outage of Redis

    def _keys(self, key_id: str) -> list[str]:
        return [self._store.key("rate", key_id), self._store.key("running", key_id)]

    async def take(self, key_id: str, limits: Limits, request: str, cost: int, runs_s: float) -> Verdict:
        """Charges one request, or nothing. runs_s: it has ended by then for certain. Raises StoreDown."""
        args = [limits.requests_per_min, limits.tokens_per_min, limits.concurrent, limits.tokens_per_day, cost]
        async with self._room:
            answer = await self._store.run(self._take, self._keys(key_id), [*args, request, runs_s])
        refused, wait_s, requests, tokens, day = (word.decode() for word in answer)
        return Verdict(refused, float(wait_s), float(requests), float(tokens), int(day))

    async def settle(self, key_id: str, limits: Limits, request: str, back: int, day: int) -> None:
        """The request has ended; back: tokens charged and not used. Raises StoreDown."""
        async with self._room:
            await self._store.run(self._settle, self._keys(key_id), [limits.tokens_per_min, request, back, day])
