"""First come, first served: what an engine behind a load balancer does (vLLM).

A request (a group of one) goes to the end of the queue where it would begin first, and stays there; rising ids are the
order of arrival. The head is served whatever model it needs.
"""

from headrace.core.planning.board import Board, Place
from headrace.core.planning.cost import Terms
from headrace.core.planning.listing import listed, loose, served_by
from headrace.core.planning.problem import GroupSpec, Plan, Problem


class Fcfs:
    name = "fcfs"
    evicts = False
    group_max = 1

    def insert(self, board: Board, group: GroupSpec, now_s: float) -> Place | None:
        line, model = board.timeline(now_s), board.names.get(group.model, -1)
        begins = []
        for instance in served_by(board, group):
            swap = line.end_model[instance] != model
            wait_s = line.end_straggler_s[instance] + board.load_s(instance, model) if swap else 0.0
            begins.append((float(line.end_s[instance] + wait_s), instance))
        if not begins:
            return None
        instance = min(begins)[1]
        return Place(instance, len(board.queue(instance)))

    def replan(self, problem: Problem, budget: int) -> Plan:
        """Those that stand in a queue stay where they are; the others follow as they came."""
        terms = Terms(problem)
        queues = [list(head) for head in terms.pinned]
        new = []
        for number in sorted(loose(terms), key=terms.standing):
            group = terms.groups[number]
            if group.position >= 0 and group.instance in terms.allowed[number]:
                queues[group.instance].append(number)
            else:
                new.append(number)
        queues = listed(terms, sorted(new), queues)
        return Plan(problem.version, terms.ids(queues), terms.cost(queues), solver=self.name)
