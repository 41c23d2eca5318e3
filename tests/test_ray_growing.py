"""Which processes move to machines that join a Ray cluster."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aal.coordination.parts import PARTS, WORK, asks_for_work, methods_of
from aal.engines.base import Role
from aal.engines.processes import Slot
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


def test_numbers_and_pins_of_the_user_stand() -> None:
    server, *workers = slots_of(1, 4)
    placed = [*at([server], Ask(1.0)), *at(workers, Ask(0.5))]
    machines = {"old": {"CPU": 4.0, "here": 1.0}, "new": {"CPU": 16.0}}
    assert not found(placed, machines, ["new"], ray={"server_cpus": 1, "worker_cpus": 0.5})
    pinned = [*at([server], Ask(4.0, pins=("here",))), *at(workers, Ask(pins=("here",)))]
    assert not found(pinned, machines, ["new"], ray={"pins": {"server": "here", "worker": "here"}})


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
