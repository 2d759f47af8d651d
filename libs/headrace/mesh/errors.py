"""What the mesh raises when its servers or peers fail; callers act on the type, clients see the code.

BusDown          NATS cannot be reached right now; the bus reconnects by itself
  Uncertain      it was sent and nobody knows whether it arrived: ask again with the same id
NoResponder      nobody listens on the subject (or no stream takes it)
JournalFull      the stream refuses to grow: no acceptance until requests end
StoreDown        Redis cannot be reached right now; callers go on without it
TransferError    a tensor is gone, incomplete or not what its handle says; another attempt may work
BadSetup         the servers or the settings cannot serve: says what to do; found at start
"""

from headrace.core.errors import StageError, Unavailable


class BusDown(Unavailable):
    pass


class Uncertain(BusDown):
    pass


class NoResponder(Unavailable):
    pass


class JournalFull(Unavailable):
    pass


class StoreDown(Unavailable):
    pass


class TransferError(StageError):
    pass


class BadSetup(Exception):
    """Wrong configuration, an old server, no JetStream. The process says so and does not start."""
