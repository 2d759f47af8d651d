"""Earliest due first: every request (a group of one) by its due time, whatever model changes that takes.

Each goes to the instance where it would begin first among those due before it.
"""

from headrace.core.planning.board import Board, Place
from headrace.core.planning.cost import Terms
from headrace.core.planning.listing import listed, loose, served_by
from headrace.core.planning.problem import GroupSpec, Plan, Problem


class Edf:
    name = "edf"
    evicts = False
    group_max = 1

    def insert(self, board: Board, group: GroupSpec, now_s: float) -> Place | None:
        line, model = board.timeline(now_s), board.names.get(group.model, -1)
        best: tuple[float, int, int] | None = None
        for instance in served_by(board, group):
            queue, first = board.queue(instance), int(board.first[instance])
            pinned = board.heads(instance)
            later = (at for at in range(pinned, len(queue)) if board.groups[queue[at]].due_s > group.due_s)
            at = next(later, len(queue))
            if at < len(queue):
                change_s = line.swap[first + at] * (
                    line.before_straggler_s[first + at]
                    + board.load_s(instance, board.names[board.groups[queue[at]].model])
                )
                ended_s = line.begin_s[first + at] - change_s
                loaded, straggler_s = line.before_model[first + at], line.before_straggler_s[first + at]
            else:
                ended_s, loaded, straggler_s = (
                    line.end_s[instance],
                    line.end_model[instance],
                    line.end_straggler_s[instance],
                )
            begin_s = float(ended_s + (straggler_s + board.load_s(instance, model) if loaded != model else 0.0))
            if best is None or (begin_s, instance) < best[:2]:
                best = (begin_s, instance, at)
        return None if best is None else Place(best[1], best[2])

    def replan(self, problem: Problem, budget: int) -> Plan:
        terms = Terms(problem)
        order = sorted(loose(terms), key=lambda number: (terms.groups[number].due_s, number))
        queues = listed(terms, order)
        return Plan(problem.version, terms.ids(queues), terms.cost(queues), solver=self.name)
