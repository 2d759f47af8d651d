"""The queue manager as a pure state machine: QueueCore(config).handle(event, now_s) -> effects."""

from headrace.core.queue.config import QueueConfig
from headrace.core.queue.core import QueueCore

__all__ = ["QueueConfig", "QueueCore"]
