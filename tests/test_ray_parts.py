"""Parts of the engine ray without a cluster: what is asked for, the hub's time, files that travel in chunks."""

import pathlib
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

from aal.config.errors import RunFailed, UserError
from aal.config.loading import resolve
from aal.coordination.federation import AggregationJob, Contribution, LocalJob, LocalModel
from aal.coordination.fence import Incarnations
from aal.coordination.messages import ModelRef, TrainedModel
from aal.engines.base import Role
from aal.engines.processes import Slot
from aal.engines.ray import files as files_module
from aal.engines.ray import hub_client, launcher, node_store
from aal.engines.ray.asks import asks_of
from aal.engines.ray.files import Files
from aal.engines.ray.hub_client import HubTime
from aal.engines.ray.identity import Identity
from aal.engines.ray.node_store import NodeStore
from aal.engines.ray.room import Ask, missing
from aal.engines.ray.run_files import RunFiles
from aal.storage.checksum import with_checksum
from tests.builders import make_settings
from tests.test_federated_runs import planned

pytestmark = pytest.mark.unit


def asked(machines: list[dict[str, float]], servers: int = 2, workers: int = 4, **settings: Any) -> dict[str, Ask]:
    s = make_settings(engine="ray", **settings)
    return asks_of(s, [Role("server", "", "", servers), Role("worker", "", "", workers)], machines)


@pytest.mark.parametrize(
    ("machines", "settings", "server", "worker"),
    [
        ([{"CPU": 2.0}], {}, Ask(), Ask()),  # a laptop: too few for all, so none are kept
        ([{"CPU": 6.0}], {}, Ask(1.0), Ask(1.0)),
        ([{"CPU": 16.0}], {}, Ask(6.0), Ask(1.0)),  # servers have what workers leave
        ([{"CPU": 4.0}, {"CPU": 8.0}], {}, Ask(3.0), Ask(1.0)),  # all fit, wherever workers are put
        ([{"CPU": 2.0}], {"ray": {"server_cpus": 3, "worker_cpus": 0.5}}, Ask(3.0), Ask(0.5)),
        ([{"CPU": 8.0, "GPU": 2.0}], {}, Ask(2.0, 1 / 3), Ask(1.0, 1 / 3)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"devices": {"workers": "cpu"}}, Ask(2.0, 1.0), Ask(1.0)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"ray": {"server_gpus": 0.5, "worker_gpus": 0}}, Ask(2.0, 0.5), Ask(1.0)),
        ([{"CPU": 6.0, "big": 1.0}], {"ray": {"pins": {"server": "big"}}}, Ask(1.0, pins=("big",)), Ask(1.0)),
    ],
)
def test_what_processes_ask(machines: Any, settings: dict[str, Any], server: Ask, worker: Ask) -> None:
    assert asked(machines, **settings) == {"server": server, "worker": worker}


FEDERATION = [Role("client", "", "", 2), Role("server", "", "", 1, part="aggregator"), Role("evaluator", "", "", 1)]


@pytest.mark.parametrize(
    ("machines", "settings", "client", "server", "evaluator"),
    [
        ([{"CPU": 3.0}], {}, Ask(), Ask(), Ask()),
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
    s = make_settings(engine="ray", **settings)
    assert asks_of(s, FEDERATION, machines) == {"client": client, "server": server, "evaluator": evaluator}


SITES = [{"CPU": 64.0}, {"CPU": 4.0, "site": 1.0}, {"CPU": 4.0, "site": 1.0}]


def of_sites(clients: int, machines: Sequence[Any] = SITES, **ray: Any) -> tuple[dict[str, Ask], list[str]]:
    """What processes of a federation ask whose clients are pinned, and what a start lacks."""
    s = make_settings(engine="ray", ray={"pins": {"client": "site"}, **ray})
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
    assert line.startswith("client: 10 processes ask for 1 CPU, site each, and there is room for 8 of them")
    gpus = [{**one, "GPU": number} for one, number in zip(SITES, (8.0, 1.0, 1.0), strict=True)]
    asks, lacks = of_sites(10, gpus)
    assert asks["client"].gpus == asks["evaluator"].gpus == 1 / 6 and not lacks
    assert of_sites(10, gpus, worker_gpus=0.5)[1][0].startswith("client: 10 processes ask for 0.5 GPU, site each")


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
    cluster: Any = SimpleNamespace(on_this_machine=lambda: "here")
    none: Any = None
    asks = asks_of(plan.settings, plan.roles, [{"CPU": 64.0, "site": 1.0}])
    starts = launcher.RayLauncher(cluster, none, Incarnations(0), lambda: asks, lambda *_: none, none)
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


class Direct:
    """An actor that is called at once, and may damage what it gives."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.calls: list[str] = []
        self.damages = False

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            self.calls.append(name)
            found = getattr(self.target, name)(*args)
            return found ^ 1 if name == "chunk" and self.damages else found

        return SimpleNamespace(remote=call)


@pytest.fixture
def served(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Direct, NodeStore]:
    for module in (files_module, node_store):
        monkeypatch.setattr(module, "CHUNK", 1000)
    monkeypatch.setattr(node_store, "ray", SimpleNamespace(get=lambda value: value))
    (tmp_path / "run" / "models").mkdir(parents=True)
    (tmp_path / "set").mkdir()
    source = Direct(Files(tmp_path / "run", [tmp_path / "set"]))
    return source, NodeStore(tmp_path / "here", "0a", source)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5500])
def test_images_come_over_once_a_machine(tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], size: int) -> None:
    source, store = served
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "set" / "images.npy").write_bytes(content)
    for name in ("first", "second"):
        store.image_file(tmp_path / "set" / "images.npy", tmp_path / name / "images.npy")
        assert (tmp_path / name / "images.npy").read_bytes() == content
    assert source.calls.count("chunk") == -(-size // 1000)
    places = [(tmp_path / name / "images.npy").stat().st_ino for name in ("first", "second")]
    assert places[0] == places[1], "processes map one file"


@pytest.mark.parametrize("ids", [[], [0], [3, 4, 11], range(40)])
def test_of_images_only_the_rows_that_a_client_reads_come_over(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], ids: Sequence[int]
) -> None:
    """A row has 300 bytes, and a chunk 1000."""
    source, store = served
    images, rows = np.random.default_rng(0).integers(1, 256, (40, 10, 10, 3), np.uint8), np.array(ids, np.int64)
    np.save(tmp_path / "set" / "images.npy", images)
    for name in ("first", "second"):
        store.image_file(tmp_path / "set" / "images.npy", tmp_path / name / "images.npy", rows)
    assert source.calls.count("chunk") == -(-len(rows) // 3)
    here = np.load(tmp_path / "first" / "images.npy", mmap_mode="r")
    assert np.array_equal(here[rows], images[rows]) and here.shape == images.shape
    assert not np.delete(here, rows, axis=0).any(), "nothing of others is on this machine"
    store.image_file(tmp_path / "set" / "images.npy", tmp_path / "third" / "images.npy", np.array([39]))
    assert np.array_equal(np.load(tmp_path / "third" / "images.npy")[39], images[39])


def test_damaged_bytes_are_not_taken(tmp_path: pathlib.Path, served: tuple[Direct, NodeStore]) -> None:
    source, store = served
    (tmp_path / "set" / "images.npy").write_bytes(bytes(3000))
    source.damages = True
    with pytest.raises(RunFailed, match=r"images\.npy: came over with other bytes than it has"):
        store.image_file(tmp_path / "set" / "images.npy", tmp_path / "first" / "images.npy")
    source.damages = False
    store.image_file(tmp_path / "set" / "images.npy", tmp_path / "first" / "images.npy")


def test_models_reach_the_runs_folder_whole_and_a_machine_keeps_the_newest(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore]
) -> None:
    _, store = served
    run, made = tmp_path / "run", tmp_path / "made.pt"
    for number in range(8):
        content = with_checksum(np.random.default_rng(number).bytes(2500) + b"\0\0")
        made.write_bytes(content)
        store.send(made, f"models/{number}.pt", "server-0-0")
        assert (run / f"models/{number}.pt").read_bytes() == content
        store.run_file(run / f"models/{number}.pt", tmp_path / "worker" / f"{number}.pt")
    assert len(list((tmp_path / "here" / "runs" / "0a" / "files").glob("*[0-9a-f]"))) == node_store.KEPT
    assert (tmp_path / "worker" / "0.pt").stat().st_size == len(content), "who reads it keeps it"
    made.write_bytes(content[:-1])
    with pytest.raises(RunFailed, match="did not reach the run's folder whole"):
        store.send(made, "models/half.pt", "server-0-0")
    assert not list((run / "models").glob("*half*"))


def put(path: pathlib.Path, seed: int) -> pathlib.Path:
    """Writes a whole file of random content."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(with_checksum(np.random.default_rng(seed).bytes(2500) + b"\0\0"))
    return path


def test_what_clients_write_and_keep_reaches_the_runs_folder_and_comes_to_the_next_machine(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore]
) -> None:
    source, store = served
    run = tmp_path / "run"
    (run / "split.npz").write_bytes(b"split")
    first, second = (RunFiles(tmp_path / name, run, store, name) for name in ("first", "second"))
    local, kept = "models/local-00003-client-1.pt", "clients/kept-00003-client-1.pt"
    for number, name in enumerate((local, kept)):
        put(first.here / name, number)
    model = LocalModel(3, 1, 0, 10, None, local, 0.0, checksum="x")
    first.send([model])
    assert all((run / name).read_bytes() == (first.here / name).read_bytes() for name in (local, kept))
    put(run / "models/average-00004-server-0.pt", 4)
    start = ModelRef(0, "models/average-00004-server-0.pt", 10)
    chunks = source.calls.count("chunk")
    job = LocalJob(5, 10, owner=1, start=start, previous=local)
    for files in (first, second):
        files.bring(job)
        assert sorted(job.reads) == sorted([start.path, kept])
        assert all((files.here / name).read_bytes() == (run / name).read_bytes() for name in job.reads)
        assert not (files.here / local).exists(), "it is in nobody's way"
    assert source.calls.count("chunk") == chunks + 3 + 3, "each once a machine, and none that is there already"
    server = RunFiles(tmp_path / "server", run, store, "server-0-0")
    gone = LocalModel(4, 0, 0, 10, None, "models/local-00004-client-0.pt", 0.0)
    contributions = (Contribution(model, 0, start.path), Contribution(gone, 0, ""))
    server.bring(AggregationJob(6, 10, contributions=contributions, obsolete=(local, kept)))
    assert (server.here / local).exists() and not (server.here / gone.path).exists(), "who misses it says so"
    server.announced([5])
    assert (run / local).exists()
    server.announced([TrainedModel(6, 0, "cnn", "models/average-00006-server-0.pt", 1, 0.0, None, None, checksum="y")])
    assert not (run / local).exists() and not (run / kept).exists()


@pytest.mark.parametrize("name", ["../x.pt", "models/../x.pt", "models/.x", "other/x.pt", "clients/../run.db"])
def test_only_models_are_taken_and_only_what_roles_read_is_given(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], name: str
) -> None:
    files: Files = served[0].target
    with pytest.raises(ValueError, match="is no file that a role of the run writes"):
        files.take(name, "server-0-0", 0, np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="is no file that a role of the run writes"):
        files.remove([name])
    (tmp_path / "run" / "people.json").write_text("secret")
    with pytest.raises(ValueError, match="is no file that a role of the run reads"):
        files.contents(tmp_path / "run" / "people.json")


def test_settings_that_do_not_go_with_ray_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"data_type": "digits", "models": "cnn", "engine": "ray", "ray": {"address": "ray://head:10001"}}
    with pytest.raises(UserError, match=r"ray\.address: ray://head:10001 is for Ray Client"):
        resolve(tree, "test")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine: ray needs ray: pip install"):
        resolve({**tree, "ray": {}}, "test")
