"""Parts of the engine ray without a cluster: what is asked for, the hub's time."""

import pathlib
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

from ray.exceptions import RayError

from aal import __version__
from aal.config.errors import Refused, UserError
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.fence import Incarnations
from aal.engines.base import Role
from aal.engines.processes import Slot
from aal.engines.ray import hub_client, launcher
from aal.engines.ray.asks import asks_of, next_ask
from aal.engines.ray.hub_client import HubTime
from aal.engines.ray.hub_host import HubHost
from aal.engines.ray.identity import Identity
from aal.engines.ray.room import Ask, missing
from tests.builders import imagined_plan, make_settings
from tests.test_federated_runs import planned

pytestmark = pytest.mark.unit


def next_of(
    settings: Settings,
    roles: Sequence[Role],
    role: Role,
    machines: Sequence[dict[str, float]],
    held: Sequence[Ask],
    first: dict[str, Ask],
) -> Ask:
    return next_ask(settings, asks_of(settings, roles, machines), machines, first, role, held)


def asked(machines: list[dict[str, float]], servers: int = 2, workers: int = 4, **settings: Any) -> dict[str, Ask]:
    s = make_settings(engine="ray", **settings)
    return asks_of(s, [Role("server", "", "", servers), Role("worker", "", "", workers)], machines)


@pytest.mark.parametrize(
    ("machines", "settings", "server", "worker"),
    [
        ([{"CPU": 1.0}], {}, Ask(), Ask()),  # too few for all, so none are kept
        ([{"CPU": 4.0}], {}, Ask(2.0), Ask()),  # a laptop: trainings have all, and selections come in between
        ([{"CPU": 6.0}], {}, Ask(1.0), Ask(1.0)),
        ([{"CPU": 16.0}], {}, Ask(6.0), Ask(1.0)),  # servers have what workers leave
        ([{"CPU": 4.0}, {"CPU": 8.0}], {}, Ask(3.0), Ask(1.0)),  # all fit, wherever workers are put
        ([{"CPU": 2.0}], {"ray": {"server_cpus": 3, "worker_cpus": 0.5}}, Ask(3.0), Ask(0.5)),
        ([{"CPU": 8.0, "GPU": 2.0}], {}, Ask(2.0, 1 / 3), Ask(1.0, 1 / 3)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"devices": {"workers": "cpu"}}, Ask(2.0, 1.0), Ask(1.0)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"ray": {"server_gpus": 0.5, "worker_gpus": 0}}, Ask(2.0, 0.5), Ask(1.0)),
        ([{"CPU": 8.0}], {"devices": {"servers": "cuda:0"}}, Ask(2.0, 1.0), Ask(1.0)),  # which no machine has
        ([{"CPU": 6.0, "big": 1.0}], {"ray": {"pins": {"server": "big"}}}, Ask(1.0, pins=("big",)), Ask(1.0)),
    ],
)
def test_what_processes_ask(machines: Any, settings: dict[str, Any], server: Ask, worker: Ask) -> None:
    assert asked(machines, **settings) == {"server": server, "worker": worker}


def test_what_starts_again_asks_for_no_more_than_is_left() -> None:
    """Of two machines one is lost: a server that has all CPUs of the other keeps them, and the worker has a turn."""
    server, worker = roles = [Role("server", "", "", 1), Role("worker", "", "", 1)]
    s, left = make_settings(engine="ray"), [{"CPU": 4.0}]
    first = asks_of(s, roles, [*left, *left])
    assert first == {"server": Ask(4.0), "worker": Ask(1.0)}
    assert next_of(s, roles, worker, left, [], first) == Ask(1.0), "if the server began again, too"
    assert next_of(s, roles, worker, left, [first["server"]], first) == Ask()
    assert next_of(s, roles, server, left, [first["worker"]], first) == Ask(3.0)
    own = make_settings(engine="ray", ray={"worker_cpus": 1})
    assert next_of(own, roles, worker, left, [first["server"]], first) == Ask(1.0), "it waits, as the settings have it"


@given(
    cpus=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    servers=st.integers(1, 3),
    workers=st.integers(1, 5),
    lost=st.integers(0, 3),
    order=st.lists(st.integers(0, 3), min_size=16, max_size=16),
)
def test_whoever_begins_again_has_room_on_the_machines_that_are_left(
    cpus: list[int], servers: int, workers: int, lost: int, order: list[int]
) -> None:
    roles, s = [Role("server", "", "", servers), Role("worker", "", "", workers)], make_settings(engine="ray")
    machines, places = [{"CPU": float(one)} for one in cpus], iter(order)
    free, held, again = list(cpus), list[tuple[int, Ask]](), list[Role]()

    def put(ask: Ask) -> int:
        room = [number for number, left in enumerate(free) if left >= ask.cpus and number < len(machines)]
        chosen = room[next(places) % len(room)]  # there is room, wherever Ray puts it
        free[chosen] -= int(ask.cpus)
        return chosen

    first = asks_of(s, roles, machines)
    for role in roles:
        for _ in range(role.slots):
            ask = next_of(s, roles, role, machines, [one for _, one in held], first)
            assert ask == first[role.name], "as the start had it"
            held.append((put(ask), ask))
    if len(cpus) > 1:
        gone = lost % len(cpus)
        kinds = [role for role in roles for _ in range(role.slots)]
        again = [role for role, (place, _) in zip(kinds, held, strict=True) if place == gone]
        held = [(place, ask) for place, ask in held if place != gone]
        free[gone] = -1
        left = [one for number, one in enumerate(machines) if number != gone]
        for role in again:
            ask = next_of(s, roles, role, left, [one for _, one in held], first)
            held.append((put(ask), ask))


def test_what_began_on_cpus_asks_for_a_gpu_only_where_there_is_one_with_room() -> None:
    """A machine with a GPU has joined; it has fewer CPUs than a server has elsewhere, and workers have moved there."""
    server, worker = roles = [Role("server", "", "", 1), Role("worker", "", "", 10)]
    s, machines = make_settings(engine="ray"), [{"CPU": 32.0}, {"CPU": 8.0, "GPU": 1.0}]
    first = asks_of(s, roles, machines[:1])
    assert first == {"server": Ask(22.0), "worker": Ask(1.0)}
    part = asks_of(s, roles, machines)["worker"].gpus
    again = next_of(s, roles, server, machines, [], first)
    assert again == Ask(8.0, part), "no more CPUs than the machine of the GPU has"
    assert next_of(s, roles, server, machines, [Ask(1.0)] * 10, first) == Ask(0.0, part), "Ray may put them there first"
    moved = [Ask(1.0, part)] * 8
    assert next_of(s, roles, worker, machines, [first["server"], *moved], first) == Ask(0.0, part)
    assert next_of(s, roles, worker, machines, [first["server"], *[Ask(0.0, 0.1)] * 10], first) == Ask(1.0)


def test_what_began_on_a_gpu_waits_for_another_one() -> None:
    server, worker = roles = [Role("server", "", "", 2), Role("worker", "", "", 4)]
    s = make_settings(engine="ray", devices={"workers": "cpu"})
    first = asks_of(s, roles, [{"CPU": 8.0, "GPU": 6.0}])
    assert [next_of(s, roles, role, [{"CPU": 8.0}], [], first).gpus for role in (server, worker)] == [1.0, 0.0]


FEDERATED: dict[str, Any] = {"engine": "ray", "mode": "federated", "val_size": 0}
FEDERATION = [Role("client", "", "", 2), Role("server", "", "", 1, part="aggregator"), Role("evaluator", "", "", 1)]


@pytest.mark.parametrize(
    ("machines", "settings", "client", "server", "evaluator"),
    [
        ([{"CPU": 1.0}], {}, Ask(), Ask(), Ask()),
        ([{"CPU": 3.0}], {}, Ask(1.0), Ask(), Ask()),
        ([{"CPU": 8.0}], {}, Ask(3.0), Ask(1.0), Ask(1.0)),  # clients train: they have what the others leave
        ([{"CPU": 8.0, "GPU": 2.0}], {}, Ask(3.0, 0.5), Ask(1.0), Ask(1.0, 0.5)),  # averages need no GPU
        (
            [{"CPU": 8.0, "site": 1.0}],
            {"ray": {"worker_cpus": 2, "pins": {"client": "site"}}},
            Ask(2.0, pins=("site",)),
            Ask(1.0),
            Ask(1.0),
        ),
    ],
)
def test_what_processes_of_a_federation_ask(
    machines: Any, settings: dict[str, Any], client: Ask, server: Ask, evaluator: Ask
) -> None:
    s = make_settings(**FEDERATED, **settings)
    assert asks_of(s, FEDERATION, machines) == {"client": client, "server": server, "evaluator": evaluator}


SITES = [{"CPU": 64.0}, {"CPU": 4.0, "site": 1.0}, {"CPU": 4.0, "site": 1.0}]


def of_sites(clients: int, machines: Sequence[Any] = SITES, **ray: Any) -> tuple[dict[str, Ask], list[str]]:
    """What processes of a federation ask whose clients are pinned, and what a start lacks."""
    s = make_settings(**FEDERATED, ray={"pins": {"client": "site"}, **ray})
    roles = [Role("client", "", "", clients, needs_all=True), *FEDERATION[1:]]
    return (asks := asks_of(s, roles, machines)), missing(asks, machines, roles)


def test_no_client_of_a_federation_is_left_without_room() -> None:
    """Its rounds wait for all of them. The server and the evaluator may take two of the eight CPUs of the sites."""
    for clients, cpus in ((10, 0.0), (8, 0.0), (6, 1.0), (3, 1.0), (2, 2.0)):
        asks, lacks = of_sites(clients)
        assert asks["client"] == Ask(cpus, pins=("site",)) and asks["server"] == Ask(1.0) and not lacks
    asks, lacks = of_sites(8, worker_cpus=1)
    assert not lacks and asks["server"] == Ask(), "what was chosen for others is in nobody's way"
    (line,) = of_sites(10, worker_cpus=1)[1]
    assert line.startswith("client: 10 processes ask each for 1 CPU, site, and there is room for 8 of them")
    gpus = [{**one, "GPU": number} for one, number in zip(SITES, (8.0, 1.0, 1.0), strict=True)]
    asks, lacks = of_sites(10, gpus)
    assert asks["client"].gpus == asks["evaluator"].gpus == 1 / 6 and not lacks
    assert of_sites(10, gpus, worker_gpus=0.5)[1][0].startswith("client: 10 processes ask each for 0.5 GPU, site")


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 9),
    st.lists(st.integers(0, 3), max_size=12),
)
def test_what_is_asked_for_fits_wherever_ray_puts_the_others(cpus: list[int], clients: int, order: list[int]) -> None:
    machines = [{"CPU": float(one), **({"site": 1.0} if number % 2 == 0 else {})} for number, one in enumerate(cpus)]
    asks, lacks = of_sites(clients, machines)
    assert not lacks
    free = list(cpus)
    for role, place in zip(("server", "evaluator"), [*order, 0, 0], strict=False):
        chosen = place % len(cpus)
        free[chosen] -= int(asks[role].cpus) if free[chosen] else 0
    size = int(asks["client"].cpus)
    assert not size or sum(one // size for one in free[::2]) >= clients


def test_what_is_missing_is_named() -> None:
    asks = {"server": Ask(2.0, 1.0), "worker": Ask(1.0), "annotators": Ask()}
    assert missing(asks, [{"CPU": 3.0, "GPU": 1.0}]) == missing(asks, [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 1.0}]) == []
    assert missing(asks, [{"CPU": 2.0, "GPU": 1.0}]) == [
        "worker: asks for 1 CPU, and no machine has it beside the others"
    ]
    pinned = {"client": Ask(1.0, pins=("more",)), "evaluator": Ask(1.0, pins=("c",))}
    assert not missing(pinned, [{"CPU": 1.0, "more": 1.0, "c": 1.0}, {"CPU": 1.0, "more": 1.0}]), "who has less choice"
    assert missing(asks, [{"CPU": 9.0}]) == ["server: asks for 2 CPU, 1 GPU, and no machine has it beside the others"]


@pytest.mark.parametrize("pins", [{}, {"annotators": "site"}])
def test_what_is_given_the_labels_of_all_clients_stays_where_they_are(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pins: dict[str, str]
) -> None:
    plan = planned(tmp_path / "run", engine="ray", mode="federated", worker_num=2, ray={"pins": pins})
    assert [role.name for role in plan.roles if role.needs_all] == ["client"]
    given: list[dict[str, Any]] = []
    made = SimpleNamespace(remote=lambda *_: None)
    actor = SimpleNamespace(remote=lambda *_: SimpleNamespace(begun=made, run=made))

    def options(**how: Any) -> SimpleNamespace:
        given.append(how)
        return actor

    monkeypatch.setattr(launcher, "ray", SimpleNamespace(remote=lambda _: SimpleNamespace(options=options)))
    cluster: Any = SimpleNamespace(machines=dict, on_this_machine=lambda: "here")
    none: Any = None
    asks = asks_of(plan.settings, plan.roles, [{"CPU": 64.0, "site": 1.0}])
    monkeypatch.setattr(launcher, "ended", lambda *_: set())  # they all go on

    def ask_now(role: Role, held: Sequence[Ask]) -> Ask:
        return asks[role.name]

    growing: Any = SimpleNamespace(move_of=lambda *_: None, kept=list, ask_now=lambda *_: ask_now)
    starts = launcher.RayLauncher(cluster, none, Incarnations(0), growing, lambda *_: none, none, none)
    for role in plan.roles:
        starts.start(Slot(role, 0))
    places = {role.name: how["scheduling_strategy"] for role, how in zip(plan.roles, given, strict=True)}
    others = dict.fromkeys(("client", "server", "evaluator"), "SPREAD")
    assert places == {**others, "annotators": "SPREAD" if pins else "here"}


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 200.0)), min_size=1, max_size=30), st.floats(-1e6, 1e6))
def test_the_time_here_is_never_ahead_of_the_hubs_and_never_runs_backwards(
    replies: list[tuple[float, float]], offset: float
) -> None:
    """Replies that take so long, after so many seconds each; the clocks of the machines differ by the offset."""
    now, hub, before = 1000.0, HubTime.__new__(HubTime), 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_client, "time", SimpleNamespace(monotonic=lambda: now + offset))
        hub.__init__()  # type: ignore[misc]
        for took_s, after_s in replies:
            now += after_s + took_s
            hub.note(now - took_s)
            assert before <= hub.now() <= now + 1e-6
            before = hub.now()
        assert now - hub.now() <= replies[-1][0] + 1e-6


def test_files_are_the_same_where_both_see_them(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "images.npy"
    path.write_bytes(b"one")
    identity = Identity.of(path)
    assert identity.is_seen() and not Identity(tmp_path / "none", identity.facts).is_seen()
    time.sleep(0.01)
    path.write_bytes(b"two")
    assert not identity.is_seen()


@pytest.mark.parametrize(
    ("version", "text"),
    [("another", "has version .* of this program, and the command's has another"), (__version__, "does not see the")],
)
def test_a_hub_opens_only_where_it_can_run(tmp_path: pathlib.Path, version: str, text: str) -> None:
    plan = imagined_plan(tmp_path)
    _, _, error = HubHost().open(plan, tmp_path / "of-another-machine", version)
    assert isinstance(error, Refused), "of a run that has not begun nothing is left"
    assert re.match(f"ray.pins.hub: the machine that it names {text}", str(error))
    _, _, error = HubHost().open(replace(plan, resume=Mock()), tmp_path / "of-another-machine", version)
    assert isinstance(error, UserError) and not isinstance(error, Refused)


def test_settings_that_do_not_go_with_ray_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"data_type": "digits", "models": "cnn", "engine": "ray", "ray": {"address": "ray://head:10001"}}
    with pytest.raises(UserError, match=r"ray\.address: ray://head:10001 is for Ray Client"):
        resolve(tree, "test")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine: ray needs ray: pip install"):
        resolve({**tree, "ray": {}}, "test")


def test_what_names_no_machine_is_refused_before_ray_is_asked() -> None:
    wrong = {"address": "foo", "pins": {"server": ""}}
    with pytest.raises(UserError) as found:
        resolve({"data_type": "cifar-10", "engine": "ray", "ray": wrong}, "test")
    assert "ray.address: must be auto, or host:port as `ray start` prints it, not foo" in str(found.value)
    assert "ray.pins.server: must not be empty" in str(found.value)
    for right in (None, "auto", "10.0.0.1:6379", "[::1]:6379", "head.local:6379"):
        assert resolve({"data_type": "cifar-10", "ray": {"address": right}}, "test").ray.address == right


def test_an_actor_that_was_cancelled_before_it_began_is_not_said_to_have_been_killed() -> None:
    never = RayError("The actor is dead because all references were removed.\nThe actor never ran - it was cancelled.")
    assert hub_client.why_lost(never).startswith("was cancelled before it began; RAY_AUTH_MODE must be here")
    assert hub_client.why_lost(RayError("The worker died.")) == "its process was killed"
