"""Planning in the queue manager: new groups are put where they fit best at once, a solver orders all of them anew when
promises are at stake.
"""

from headrace.core.effects import SolvePlan
from headrace.core.events import PlanSolved
from headrace.core.planning.board import Board, Place
from headrace.core.planning.problem import GroupSpec, InstanceModel, InstanceSpec, Plan, Problem
from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import Group
from headrace.core.queue.launching import prefill_load
from headrace.core.queue.running import instance_of, planner_of, running_at, serves
from headrace.core.queue.sparing import safe_place
from headrace.core.queue.virtual import VirtualQueues
from headrace.core.queue.worker import Worker
from headrace.core.waiting.estimate import first_token
from headrace.core.waiting.work import NOTHING

READY_S = 0.2  # the board is told so often at most what runs
REBUILD_FROM = 64  # changes after which the board is made anew
EVICTED_DRAIN = 0.25  # of a batch's last requests' time: those that end soon are waited for, the others evicted
ANYWAY_S = 5.0  # without anything new: what runs has taken longer, or shorter, than it was expected to
STRAGGLE = 1.5  # the last of those that run has so many times the mean left
SOLVE_WAIT_S = 30.0  # after which a plan that was asked for will not come any more


# --- instances ---


def follow_instances(cell: Cell, virtual: VirtualQueues) -> None:
    """Workers have come, gone or changed their model: so have virtual queues, and what fits into a group."""
    planning = cell.planning
    if not planning.instances_changed:
        return
    planning.instances_changed = False
    planning.version += 1
    planning.wanted = True
    planning.board = None
    instances = [worker for worker in cell.workers.values() if _is_instance(worker)]
    virtual.keep_instances([worker.id for worker in instances])
    for group in [group for group in virtual.groups.values() if group.worker]:
        if not _serves(cell, cell.workers[group.worker], group):
            virtual.take_out(group)
    _size_groups(cell, instances)


def _is_instance(worker: Worker) -> bool:
    return bool(worker.incarnation) and worker.instance and not worker.draining


def _size_groups(cell: Cell, instances: list[Worker]) -> None:
    planning, config, planner = cell.planning, cell.config, planner_of(cell)
    slots: dict[str, list[int]] = {}
    rooms: dict[str, list[float]] = {}
    for worker in instances:
        served = instance_of(cell, worker)
        _note(slots, rooms, worker.model, int(served.slots), worker.blocks * worker.block_tokens)
        for other in worker.loadable.values():
            _note(slots, rooms, other.model, other.slots, other.blocks * other.block_tokens)
    most = planner.group_max or config.group_max
    for model, each in slots.items():
        batch = sum(each) / len(each)
        planning.group_most[model] = max(1, min(most, round(config.group_batches * batch)))
        planning.slot_tokens[model] = min(rooms[model]) or 1.0


def _note(slots: dict[str, list[int]], rooms: dict[str, list[float]], model: str, count: int, kv_tokens: int) -> None:
    if count > 0:
        slots.setdefault(model, []).append(count)
        rooms.setdefault(model, []).append(kv_tokens / count)


def _serves(cell: Cell, worker: Worker, group: Group) -> bool:
    """Whether the group may stand in its virtual queue."""
    if not serves(cell, worker, group.model):
        return False
    owner = group.kind.key.owner
    return not owner or owner == worker.id or _may_move(cell, owner)


def _may_move(cell: Cell, owner: str) -> bool:
    """Whether its group may stand elsewhere. A worker that leaves hands over what it keeps, whatever the configuration
    says; one that only decodes has no virtual queue, and what it keeps stands in a prefill worker's."""
    keeper = cell.workers.get(owner)
    return cell.config.move or keeper is None or keeper.draining or not keeper.instance


# --- where new groups go ---


def place_groups(cell: Cell, virtual: VirtualQueues, now_s: float) -> None:
    for group in list(virtual.nowhere.values()):
        able = [worker_id for worker_id in virtual.queues if _serves(cell, cell.workers[worker_id], group)]
        if not able:
            continue
        if _place_at_once(cell, virtual, group, able, now_s):
            continue
        board = board_of(cell, virtual, now_s)
        place = planner_of(cell).insert(board, _spec(cell, _numbers(virtual), group, 0.0), now_s)
        if place is not None:
            virtual.place(group, board.instances[place.instance].id, place.position)
            cell.planning.wanted = True


def _place_at_once(cell: Cell, virtual: VirtualQueues, group: Group, able: list[str], now_s: float) -> bool:
    """Where there is nothing to plan: at an idle instance, or where one at risk is spared."""
    idle = _idle(cell, virtual, group, able)
    if idle is not None and not cell.workers[idle].risky:
        virtual.place(group, idle, 0)
        return True
    if cell.governing.risky and not group.begun and any(cell.workers[each].risky for each in able):
        safe = safe_place(cell, virtual, group, now_s)
        if safe is not None:
            virtual.place(group, *safe)
            return True
    if idle is not None:
        virtual.place(group, idle, 0)
    return idle is not None


def _idle(cell: Cell, virtual: VirtualQueues, group: Group, able: list[str]) -> str | None:
    """The emptiest instance that has its model, room and nobody in line: there is nothing to plan."""
    owner = group.kind.key.owner
    free = [
        worker
        for worker in map(cell.workers.__getitem__, able)
        if worker.model == group.model
        and not worker.loading
        and not worker.alone
        and not virtual.queues[worker.id].groups
        and worker.slots_used < worker.slots_usable
    ]
    best = min(
        free,
        key=lambda worker: (worker.id != owner, *prefill_load(worker)),
        default=None,
    )
    return best.id if best is not None else None


def board_of(cell: Cell, virtual: VirtualQueues, now_s: float) -> Board:
    """The virtual queues as planners see them, brought up to date: on the core's own clock."""
    planning = cell.planning
    board = planning.board
    if board is None or len(virtual.changed) > REBUILD_FROM:
        problem, queues = _problem(cell, virtual, now_s, 0.0)
        board = planning.board = Board.of(problem, queues)
        planning.readied_s = now_s
    else:
        _follow_groups(cell, virtual, board)
        if now_s - planning.readied_s > READY_S:
            planning.readied_s = now_s
            for number, worker_id in enumerate(virtual.queues):
                board.set_ready(number, *_ready(cell, cell.workers[worker_id], now_s, now_s))
    virtual.changed.clear()
    return board


def _follow_groups(cell: Cell, virtual: VirtualQueues, board: Board) -> None:
    """Those that changed are taken off and put where they stand now, the foremost first."""
    numbers = _numbers(virtual)
    stand: list[tuple[int, int, Group]] = []
    for group_id in sorted(virtual.changed):
        group = virtual.groups.get(group_id)
        before = board.place(group_id)
        place = None
        if group is not None and group.worker:
            place = Place(numbers[group.worker], virtual.queues[group.worker].groups.index(group))
        if group is not None and place is not None and place == before:
            board.change(_spec(cell, numbers, group, 0.0))
            continue
        if before is not None:
            board.remove(group_id)
        if group is not None and place is not None:
            stand.append((place.instance, place.position, group))
    for instance, position, group in sorted(stand, key=lambda each: each[:2]):
        board.put(Place(instance, position), _spec(cell, numbers, group, 0.0))


# --- the problem, as planners see it ---


def problem_of(cell: Cell, virtual: VirtualQueues, now_s: float) -> Problem:
    """Times count from now on."""
    return _problem(cell, virtual, now_s, now_s)[0]


def _problem(cell: Cell, virtual: VirtualQueues, now_s: float, zero_s: float) -> tuple[Problem, list[list[int]]]:
    """With the present order: the group ids of every instance. Times count from zero_s on."""
    instances = tuple([_instance_spec(cell, cell.workers[each], now_s, zero_s) for each in virtual.queues])
    queues = [[group.id for group in queue.groups] for queue in virtual.queues.values()]
    stand = {group_id: position for queue in queues for position, group_id in enumerate(queue)}
    numbers = _numbers(virtual)
    groups = tuple([_spec(cell, numbers, group, zero_s, stand.get(group.id, -1)) for group in virtual.groups.values()])
    drain_share = EVICTED_DRAIN if cell.config.evict else 1.0
    return Problem(cell.planning.version, groups, instances, cell.config.bound_z, drain_share), queues


def _numbers(virtual: VirtualQueues) -> dict[str, int]:
    """Of each worker: its index among the instances."""
    return {worker_id: number for number, worker_id in enumerate(virtual.queues)}


def _spec(cell: Cell, numbers: dict[str, int], group: Group, zero_s: float, position: int = -1) -> GroupSpec:
    """numbers: _numbers(), made once for all groups, since all are told anew for each plan."""
    key, work = group.kind.key, group.work
    bound = key.owner and not _may_move(cell, key.owner)
    return GroupSpec(
        id=group.id,
        model=key.model,
        count=len(group.jobs),
        due_s=group.due_s - zero_s,
        target_s=group.target_s,
        prompt_tokens=work.prompt_tokens,
        output_mean=work.output_mean,
        output_var=work.output_var,
        instance=numbers[group.worker] if group.worker else -1,
        only=numbers[key.owner] if bound else -1,
        position=position,
        due_spread_s=group.last_due_s - group.due_s,
    )


def _instance_spec(cell: Cell, worker: Worker, now_s: float, zero_s: float) -> InstanceSpec:
    instance, models = instance_of(cell, worker), []
    if not worker.loading:
        models.append(InstanceModel(worker.model, 0.0, max(1, int(instance.slots)), instance.pace))
    for other in worker.loadable.values() if cell.config.swap and worker.decodes else ():
        if other.model not in worker.unloadable and (worker.loading or other.model != worker.model):
            load_s = 0.0 if other.model == worker.loading else other.load_s
            slots, pace = worker.governance.usable(other.slots), worker.governance.speeds.slowed(other.pace)
            models.append(InstanceModel(other.model, load_s, max(1, slots), pace))
    ready_s, ready_var, idle_s = _ready(cell, worker, now_s, now_s - zero_s)
    return InstanceSpec(worker.id, worker.model_to_be, tuple(models), ready_s, ready_var, idle_s)


def _ready(cell: Cell, worker: Worker, now_s: float, offset_s: float) -> tuple[float, float, float]:
    """When there is room for the next request, how sure that is, and when the last that run will have ended."""
    if worker.loading:
        known = worker.loadable.get(worker.loading)
        left_s = max(0.0, (known.load_s if known is not None else 0.0) - (now_s - worker.load_sent_s))
        return offset_s + left_s, 0.0, offset_s + left_s
    instance, running = instance_of(cell, worker), running_at(cell, worker, now_s)
    wait = first_token(instance, running, NOTHING, 0)
    longest_s = 0.0
    if running.count:
        longest_s = STRAGGLE * running.output_mean / running.count * instance.step_s
    return offset_s + wait.mean_s, wait.var_s2, offset_s + max(wait.mean_s, longest_s)


# --- the solver ---


def ask_for_plan(cell: Cell, virtual: VirtualQueues, now_s: float) -> None:
    """When something has come that the order was not made for, or a while later, and somebody may be late."""
    planning, planner = cell.planning, planner_of(cell)
    if planning.asked_s is not None and now_s - planning.asked_s > SOLVE_WAIT_S:
        planning.asked_s = None
    wanted = planning.wanted or now_s >= planning.next_s + ANYWAY_S
    if not (wanted and cell.config.solve and planner.group_max != 1 and virtual.groups):
        return
    if planning.asked_s is not None or now_s < planning.next_s:
        return
    planning.wanted = False
    planning.next_s = now_s + cell.config.replan_s
    if not _at_stake(board_of(cell, virtual, now_s), now_s):
        return
    planning.asked_s = now_s
    config = cell.config
    cell.emit(SolvePlan(problem_of(cell, virtual, now_s), config.plan_nodes, config.plan_moves, planner.name))


def _at_stake(board: Board, now_s: float) -> bool:
    """Whether promises are expected to be broken, or model changes might be saved."""
    line = board.timeline(now_s)
    return bool((line.late_s > 0.0).any() or line.swap.any())


def plan_solved(cell: Cell, event: PlanSolved, now_s: float) -> None:
    planning, plan = cell.planning, event.plan
    if planning.asked_s is not None:
        planning.last_solve_s = now_s - planning.asked_s
        planning.solve_s += planning.last_solve_s
    planning.asked_s = None
    planning.solved += 1
    planning.last_cost, planning.last_solver, planning.last_optimal = plan.cost, plan.solver, plan.optimal
    virtual = cell.virtual
    if virtual is None or plan.version != planning.version or len(plan.queues) != len(virtual.queues):
        planning.stale += 1
        planning.wanted = True
        return
    planning.applied += 1
    _apply(cell, virtual, plan, now_s)
    cell.dirty = True


def _apply(cell: Cell, virtual: VirtualQueues, plan: Plan, now_s: float) -> None:
    """Groups that have come since keep their neighbours: each stands behind the one that it stood behind."""
    known = {group_id for queue in plan.queues for group_id in queue}
    late_comers = [
        (group, queue.groups[at - 1].id if at else 0)
        for queue in virtual.queues.values()
        for at, group in enumerate(queue.groups)
        if group.id not in known
    ]
    orders = {
        worker_id: [virtual.groups[group_id] for group_id in planned if group_id in virtual.groups]
        for worker_id, planned in zip(virtual.queues, plan.queues, strict=True)
    }
    moved = any(group.worker != worker_id for worker_id, groups in orders.items() for group in groups)
    virtual.arrange(orders)
    for group, behind in late_comers:
        _stand_behind(cell, virtual, group, behind)
    if moved:
        cell.count("group_moved")


def _stand_behind(cell: Cell, virtual: VirtualQueues, group: Group, behind: int) -> None:
    """At the head if nobody stood before it. If that one has gone where its model is not served, it is placed anew."""
    before = virtual.groups.get(behind)
    if before is None or not before.worker:
        virtual.place(group, group.worker, 0)
    elif not _serves(cell, cell.workers[before.worker], group):
        virtual.take_out(group)
    else:
        position = virtual.queues[before.worker].groups.index(before) + 1
        virtual.place(group, before.worker, position)
