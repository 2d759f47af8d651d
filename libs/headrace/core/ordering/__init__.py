"""Orders: who is served next. One file per order, one line in the registry.

An order is a small object that gives each waiting request a sort key; smaller goes first.
"""

from headrace.core.ordering.base import Order, Standing
from headrace.core.ordering.edf import Edf
from headrace.core.ordering.fcfs import Fcfs
from headrace.core.ordering.least_slack import LeastSlack
from headrace.core.ordering.shortest_prompt import ShortestPrompt
from headrace.core.ordering.srpt import Srpt
from headrace.core.ordering.ssjf import Ssjf

ORDERS: dict[str, Order] = {
    order.name: order for order in (Fcfs(), Edf(), LeastSlack(), Ssjf(), Srpt(), ShortestPrompt())
}

# Of the lines before the encoders, where the planner orders what comes after them; what it is worth in overload:
# docs/reproduce/together.md.
ENCODER_ORDER = LeastSlack().name

__all__ = ["ENCODER_ORDER", "ORDERS", "Order", "Standing"]
