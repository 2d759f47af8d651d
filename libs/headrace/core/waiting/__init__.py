"""Waiting times: how fast workers are, what is ahead, when the first token comes, and how far off that was."""

from headrace.core.waiting.bounds import Bounds
from headrace.core.waiting.errors import WaitErrorRow, WaitErrors
from headrace.core.waiting.estimate import Instance, Wait, completion, decode, first_token, queue_wait
from headrace.core.waiting.pace import PaceLearner
from headrace.core.waiting.remaining import Remaining
from headrace.core.waiting.work import NOTHING, Work

__all__ = [
    "NOTHING",
    "Bounds",
    "Instance",
    "PaceLearner",
    "Remaining",
    "Wait",
    "WaitErrorRow",
    "WaitErrors",
    "Work",
    "completion",
    "decode",
    "first_token",
    "queue_wait",
]
