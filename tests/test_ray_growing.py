"""Which processes move to machines that join a Ray cluster."""

import functools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

from ray.exceptions import RayError

from aal.coordination.fence import Incarnations
from aal.coordination.parts import PARTS, WORK, asks_for_work, methods_of
from aal.engines.base import Role
from aal.engines.processes import Slot
from aal.engines.ray import growing
from aal.engines.ray.asks import asks_of, names_cpus, next_ask
from aal.engines.ray.moves import Move, Placed, moves, remaining
from aal.engines.ray.room import Ask
from tests.builders import make_settings

pytestmark = pytest.mark.unit


def slots_of(servers: int, workers: int) -> list[Slot]:
    roles = [Role("server", "", "", servers), Role("worker", "", "", workers)]
    return [Slot(role, index) for role in roles for index in range(role.slots)]


def found(
    placed: Sequence[Placed],
    machines: Mapping[str, Mapping[str, float]],
    joined: Sequence[str],
    others: Mapping[str, float] | None = None,
    most: int = 1,
    **changes: Any,
) -> list[Move]:
    """The moves, where other programs have something of each machine."""
    settings = make_settings(engine="ray", **changes)
    roles = list({one.slot.role.name: one.slot.role for one in placed}.values())
    first = asks_of(settings, roles, [has for name, has in machines.items() if name not in joined])
    asks = asks_of(settings, roles, list(machines.values()))
    targets = {}
    for name in joined:
        free = {one: amount - (others or {}).get(one, 0.0) for one, amount in machines[name].items()}
        targets[name] = remaining(machines[name], free, [one.ask for one in placed if one.machine == name])
    ask_now = functools.partial(next_ask, settings, asks, list(machines.values()), first)
    fixed = [role.name for role in roles if names_cpus(settings, role)]
    return list(moves(placed, [], machines, targets, ask_now, fixed, {role.name: most for role in roles}))


def at(placed: Sequence[Slot], ask: Ask, machine: str = "old") -> list[Placed]:
    return [Placed(slot, ask, machine, True) for slot in placed]


def test_who_has_no_cpu_of_its_own_gets_one_where_machines_join() -> None:
    server, *workers = slots_of(1, 6)
    placed = [*at([server], Ask(4.0)), *at(workers, Ask())]
    machines = {"old": {"CPU": 4.0}, "new": {"CPU": 4.0}}
    assert not found(placed, {"old": {"CPU": 4.0}}, [])
    (move,) = found(placed, machines, ["new"])  # the next one when this one is there: annotators are to be served
    assert move == Move(workers[0], Ask(1.0), "new") and str(move) == "worker-0 (1 CPU)"
    assert not found(placed, machines, ["new"], others={"CPU": 4.0}), "another program has all of it"
    machines["new"] = {"CPU": 1.0}  # with which there are still too few for all
    (move,) = found(placed, machines, ["new"])
    assert move == Move(workers[0], Ask(), "new") and str(move) == "worker-0"


def test_a_server_gets_twice_the_cpus_or_a_gpu_and_does_not_move_for_less() -> None:
    server, worker = slots_of(1, 1)
    placed = [*at([server], Ask(3.0)), *at([worker], Ask(1.0))]
    assert not found(placed, {"old": {"CPU": 4.0}, "new": {"CPU": 5.0}}, ["new"])
    assert found(placed, {"old": {"CPU": 4.0}, "new": {"CPU": 8.0}}, ["new"]) == [Move(server, Ask(7.0), "new")]
    gpus = found(placed, {"old": {"CPU": 4.0}, "new": {"CPU": 4.0, "GPU": 2.0}}, ["new"])
    assert gpus == [Move(server, Ask(3.0, 1.0), "new"), Move(worker, Ask(1.0, 1.0), "new")]
    on_cpu = {"servers": "cpu", "workers": "cpu"}
    assert not found(placed, {"old": {"CPU": 4.0}, "new": {"CPU": 4.0, "GPU": 2.0}}, ["new"], devices=on_cpu)


def test_the_last_part_of_a_gpu_is_given_too_though_parts_do_not_add_up_to_the_last_digit() -> None:
    server, *workers = slots_of(1, 4)
    placed = [*at([server, *workers[:3]], Ask(1.0, 0.2), "new"), *at(workers[3:], Ask(1.0))]
    machines = {"old": {"CPU": 3.0}, "new": {"CPU": 8.0, "GPU": 1.0}}
    assert found(placed, machines, ["new"], others={"CPU": 4.0, "GPU": 0.8}) == [Move(workers[3], Ask(1.0, 0.2), "new")]


def test_numbers_and_pins_of_the_user_stand() -> None:
    server, *workers = slots_of(1, 4)
    placed = [*at([server], Ask(1.0)), *at(workers, Ask(0.5))]
    machines = {"old": {"CPU": 4.0, "here": 1.0}, "new": {"CPU": 16.0}}
    numbers = {"server_cpus": 1, "worker_cpus": 0.5}
    assert not found(placed, machines, ["new"], ray=numbers)
    part = {**numbers, "worker_gpus": 0.25, "server_gpus": 0}
    (move,) = found(placed, {**machines, "new": {"CPU": 16.0, "GPU": 1.0}}, ["new"], ray=part)
    assert move == Move(workers[0], Ask(0.5, 0.25), "new")
    assert not found(placed, {**machines, "new": {"CPU": 0.4, "GPU": 1.0}}, ["new"], ray=part)
    pinned = [*at([server], Ask(4.0, pins=("here",))), *at(workers, Ask(pins=("here",)))]
    assert not found(pinned, machines, ["new"], ray={"pins": {"server": "here", "worker": "here"}})


def test_what_was_to_be_kept_and_others_have_is_not_counted_as_cpus() -> None:
    """Ray has put a process there meanwhile: one more asks for none, and not for fewer."""
    server, *workers = slots_of(1, 6)
    placed, machines = at(workers, Ask(1.0)), {"old": {"CPU": 7.0}, "new": {"CPU": 4.0, "GPU": 2.0}}
    kept = [Move(server, Ask(4.0, 1.0), "new")]
    left = remaining(machines["new"], machines["new"], [Ask(1.0), kept[0].ask])
    assert left == {"CPU": -1.0, "GPU": 1.0}
    (move,) = moves(placed, kept, machines, {"new": left}, lambda *_: Ask(1.0, 1.0), [], {"worker": 1})
    assert move == Move(workers[0], Ask(0.0, 1.0), "new")


@given(
    cpus=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    more=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    servers=st.integers(1, 3),
    workers=st.integers(1, 12),
    order=st.lists(st.integers(0, 3), min_size=16, max_size=16),
)
def test_no_machine_that_joins_stays_idle_while_others_are_crowded(
    cpus: list[int], more: list[int], servers: int, workers: int, order: list[int]
) -> None:
    slots, settings = slots_of(servers, workers), make_settings(engine="ray")
    old = {f"old-{index}": {"CPU": float(number)} for index, number in enumerate(cpus)}
    new = {f"new-{index}": {"CPU": float(number)} for index, number in enumerate(more)}
    asks = asks_of(settings, list({slot.role.name: slot.role for slot in slots}.values()), list(old.values()))
    placed: list[Placed] = []
    for slot, place in zip(slots, order, strict=False):
        ask = asks[slot.role.name]
        room = [name for name, has in old.items() if has["CPU"] - of(placed, name) >= ask.cpus]
        placed.append(Placed(slot, ask, room[place % len(room)], True))
    for _ in range(4 * len(slots) + 1):
        if not (steps := found(placed, old | new, list(new))):
            break
        for move in steps:
            placed = [one for one in placed if one.slot is not move.slot]
            placed.append(Placed(move.slot, move.ask, move.machine, True))
    else:
        raise AssertionError("they move for ever")
    machines = old | new
    assert all(of(placed, name) <= has["CPU"] for name, has in machines.items()), "nobody waits for room"
    load = {name: of(placed, name, 1.0) / has["CPU"] for name, has in machines.items()}
    with_shares = [load[one.machine] for one in placed if not one.ask.cpus]
    for name in new:
        with_one_more = load[name] + 1 / new[name]["CPU"]
        assert with_one_more > max([1.0, *with_shares]) - 1e-9 or max([0.0, *with_shares]) <= 1
    assert len({one.slot for one in placed}) == len(slots)


def of(placed: Sequence[Placed], machine: str, at_least: float = 0.0) -> float:
    return sum(one.ask.cpus or at_least for one in placed if one.machine == machine)


def test_every_role_that_computes_has_one_call_for_what_to_do_next() -> None:
    """By which its process ends when it is to go on elsewhere; annotators and the page have none, and stay."""
    calls = {part: WORK.intersection(methods_of(kind)) for part, kind in PARTS.items()}
    assert {part for part, names in calls.items() if len(names) == 1} == PARTS.keys() - {"annotators", "web"}
    assert {part for part in PARTS if asks_for_work(part)} == PARTS.keys() - {"annotators", "web"}


class Fake:
    """A process on a cluster, as far as moves are concerned."""

    def __init__(self, slot: Slot, machine: str, has_begun: bool = True, moves: bool = False) -> None:
        self.slot, self.machine, self.has_begun, self.moves = slot, machine, has_begun, moves
        self.is_leaving = self.is_withdrawn = False
        self.since = 0.0

    def withdraw(self) -> None:
        self.is_withdrawn = True


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cluster of one machine that another one joins; says what that lacks, and which processes are to leave."""
    found = SimpleNamespace(machines={"old": {"CPU": 4.0}}, lacks="", left=[], notes=[])
    found.free = found.machines
    task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: "check"))

    def got(_: Any) -> Any:
        if isinstance(found.lacks, Exception):
            raise found.lacks
        return found.lacks

    monkeypatch.setattr(growing, "ray", SimpleNamespace(remote=lambda _: task, get=got))
    monkeypatch.setattr(growing, "ended", lambda calls, _: set(calls))
    monkeypatch.setattr(growing, "LOOK_S", 0.0)
    cluster: Any = SimpleNamespace(machines=lambda: found.machines, joined=False, on_machine=str, wait_for_head=list)
    leave = SimpleNamespace(remote=found.left.extend)
    hub: Any = SimpleNamespace(asked=lambda _: None, host=SimpleNamespace(leave=leave))
    display: Any = SimpleNamespace(note=found.notes.append)
    settings, roles = make_settings(engine="ray"), [slot.role for slot in slots_of(1, 6)[:2]]
    first = asks_of(settings, roles, list(found.machines.values()))

    def asks_on(machines: Sequence[Mapping[str, float]]) -> Any:
        return functools.partial(next_ask, settings, asks_of(settings, roles, machines), machines, first)

    found.growing = growing.Growing(cluster, hub, Incarnations(0), asks_on, [], [], display)

    def joins(free: float) -> None:
        has = {"old": {"CPU": 4.0}, "new": {"CPU": 4.0}}
        found.growing._watch.found = has, has | {"new": {"CPU": free}}

    found.joins = joins
    return found


def living() -> list[tuple[Any, Ask]]:
    server, *workers = slots_of(1, 6)
    return [(Fake(server, "old"), Ask(4.0)), *((Fake(worker, "old"), Ask()) for worker in workers)]


def test_processes_are_asked_to_leave_and_begin_where_there_is_still_room(cluster: Any) -> None:
    processes = living()
    cluster.growing.look(lambda: processes)
    assert not cluster.left, "no machine has joined"
    cluster.joins(4.0)
    cluster.growing.look(lambda: processes)
    assert cluster.left == [("worker-0", 0 - 1)] and processes[1][0].is_leaving
    cluster.growing.look(lambda: processes)
    assert len(cluster.left) == 1, "the next one when this one has begun"
    others = [processes[0], *processes[2:]]
    assert cluster.growing.kept() == [Ask(1.0)]
    move = cluster.growing.move_of(processes[1][0].slot, others)
    assert move == Move(processes[1][0].slot, Ask(1.0), "new") and not cluster.growing.kept()
    assert cluster.growing.move_of(processes[1][0].slot, others) is None


def test_who_finds_no_room_any_more_begins_elsewhere(cluster: Any) -> None:
    processes = living()
    cluster.joins(4.0)
    cluster.growing.look(lambda: processes)
    cluster.joins(0.0)  # another program has taken it
    others = [processes[0], *processes[2:]]
    assert cluster.growing.move_of(processes[1][0].slot, others) is None
    role, machines = processes[1][0].slot.role, {"old": {"CPU": 4.0}, "new": {"CPU": 4.0}}
    assert cluster.growing.ask_now(machines, others)(role, [ask for _, ask in others]) == Ask(), "as it began"
    cluster.joins(3.0)
    assert cluster.growing.ask_now(machines, others)(role, [ask for _, ask in others]) == Ask(1.0)
    stuck = Fake(processes[1][0].slot, "new", has_begun=False, moves=True)
    begun = Fake(processes[2][0].slot, "new", moves=True)
    cluster.growing.look(lambda: [(stuck, Ask(1.0)), (begun, Ask(1.0))])
    assert stuck.is_withdrawn and not begun.is_withdrawn


@pytest.mark.parametrize("lacks", ["it has version 0 of this program", RayError("\nModuleNotFoundError: torch")])
def test_a_machine_that_cannot_run_the_program_is_named_and_not_used(cluster: Any, lacks: Any) -> None:
    cluster.lacks = lacks
    cluster.joins(4.0)
    for _ in range(2):
        cluster.growing.look(living)
    assert not cluster.left
    machines = {"old": {"CPU": 4.0}, "new": {"CPU": 64.0}}
    processes = living()
    asked = cluster.growing.ask_now(machines, processes)(processes[1][0].slot.role, [ask for _, ask in processes])
    assert asked == Ask(), "nobody counts on it"
    assert cluster.notes == [f"a machine has joined that is not used: {str(lacks).strip()}"]
