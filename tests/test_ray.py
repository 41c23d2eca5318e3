"""The engine ray on three machines of its own that share no folder: the same run, and what happens when parts die."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

import ray

from aal.app import main as program
from aal.app.data import load_split
from aal.config.errors import Refused
from aal.engines.base import RunResult, RunStatus
from aal.engines.local.engine import LocalEngine
from aal.engines.ray.engine import RayEngine
from aal.engines.ray.files import WATCHED, Files
from aal.engines.ray.files_actor import FilesWatch
from aal.storage.checksum import is_intact
from aal.storage.model_files import load_model
from aal.storage.resume_state import take_over
from bench.machines import Machines
from bench.promises import answers_of
from bench.rows import until
from bench.visitors import Visitors
from tests.builders import query, wait_for
from tests.ray_cluster import answered, imagined, is_exact, on, pid_of
from tests.test_data import needs_real_images, unpack
from tests.test_faults import Notes, meanwhile, plan_of
from tests.test_federated_runs import planned, weights

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.timeout(240)]
ROOT = pathlib.Path(__file__).resolve().parent.parent
REAL = [
    *("--config", "digits.yaml", "models=cnn", "width=0.25", "server_num=1", "worker_num=2", "worker_query_num=2"),
    *("query_batch=20", "server_train_threshold=40", "training.epochs=2", "training.validate_after=0"),
    *("annotators.seconds_per_label=0.05", "devices.server_threads=1"),
]
REAL_IMAGES = [
    *("--config", "cifar10-cpu.yaml", "initial_size=1000", "worker_num=4", "worker_query_num=2", "query_batch=50"),
    *("server_train_threshold=200", "server_num=1", "training.epochs=8", "val_size=500"),
]

ROUNDS = 3
FEDERATED = {
    **{"mode": "federated", "engine": "ray", "worker_num": 2, "width": 0.25, "devices": {"server_threads": 1}},
    "federated": {"rounds": ROUNDS, "keep_optimizer": True},
    "training": {"epochs": 60, "batch_size": 16, "validate_after": 0},
}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    made = Machines(tmp_path_factory.mktemp("machines"), {"head": 1, "a": 4, "b": 4})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No actor of a run outlasts it, however it ends."""
    yield
    if "machines" in request.fixturenames:
        machines = request.getfixturevalue("machines")
        until(lambda: not machines.actors(), 60.0)
        assert machines.actors() == []


def test_a_run_is_the_same_as_on_the_local_engine_and_images_reach_a_machine_once(
    machines: Machines, tmp_path: pathlib.Path
) -> None:
    spread = ["engine=ray", f"ray.address={machines.address}", "ray.shared_folder=false"]
    spread += ["ray.pins={server: a, worker: b}"]
    errs = ["annotators.number=1", "annotators.error_rate=0.3"]  # who errs depends on the annotator and the image
    for name, words in (("local", []), ("ray", spread)):
        assert program.main([*REAL, *errs, *words, "--out", str(tmp_path / name)]) == 0
    local, ray = tmp_path / "local", tmp_path / "ray"
    splits = [load_split(run / "split.npz") for run in (local, ray)]
    assert all(np.array_equal(*pair) for pair in zip(*(split.shards for split in splits), strict=True))
    first = [load_model(run / query(run, "select path from models where version = 0")[0][0]) for run in (local, ray)]
    assert all((first[0]["state_dict"][name] == value).all() for name, value in first[1]["state_dict"].items())
    labels = [dict(query(run, "select item, label from queries")) for run in (local, ray)]
    both = labels[0].keys() & labels[1].keys()
    assert both and all(labels[0][item] == labels[1][item] for item in both)
    truth = dict(query(ray, "select item, truth from examples"))
    assert any(labels[1][item] != truth[item] for item in both)
    assert is_exact(ray, 80)
    assert all(is_intact(ray / path) for (path,) in query(ray, "select path from models"))
    assert len(machines.images("a")) == len(machines.images("b")) == 3, "images, labels, meta"
    assert not list(machines.folder.glob("*/aal/ray/runs/*")), "what is of the run goes with it"
    log = (ray / "log.txt").read_text()
    assert " server-0 " in log and " worker-1 " in log and "published v0" in log


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("words", "labels", "accuracy"),
    [(["--config", "digits.yaml"], 600, 0.9), pytest.param(REAL_IMAGES, 400, 0.3, marks=needs_real_images)],
    ids=["the demo", "CIFAR-10"],
)
def test_whole_runs_on_machines_that_share_no_folder(
    machines: Machines, tmp_path: pathlib.Path, words: list[str], labels: int, accuracy: float
) -> None:
    if words is REAL_IMAGES:
        words = [*words, f"data_dir={unpack(tmp_path, 'cifar-10')}"]
    spread = ["engine=ray", f"ray.address={machines.address}", "ray.shared_folder=false"]
    spread += ["ray.pins={server: a, worker: b, annotators: b}"]
    assert program.main([*words, *spread, "--out", str(tmp_path / "run")]) == 0
    curve = json.loads((tmp_path / "run" / "summary.json").read_text())["curve"]
    assert curve[-1]["test_accuracy"] > accuracy
    assert is_exact(tmp_path / "run", labels)


def arrived(machines: Machines) -> dict[str, set[int]]:
    """Returns the images of a large set that each machine was sent."""
    return {
        path.relative_to(machines.folder).parts[0]: set(np.flatnonzero(np.fromfile(path, np.uint8)).tolist())
        for path in machines.folder.rglob("images/*.rows")
    }


def test_of_a_large_set_a_machine_gets_the_images_that_its_roles_read(
    machines: Machines, tmp_path: pathlib.Path
) -> None:
    words = [*REAL, "engine=ray", f"ray.address={machines.address}", "ray.shared_folder=false"]
    words += ["ray.whole_images_gib=0", "ray.pins={server: a, worker: b}"]
    # Coreset reads what is labelled, too; nothing is chosen before there is a model.
    words += ["assignment_type=DA", "query_strategy=coreset", "max_staleness=1"]
    assert program.main([*words, "--out", str(tmp_path / "run")]) == 0
    assert is_exact(tmp_path / "run", 80)
    there = arrived(machines)
    split = load_split(tmp_path / "run" / "split.npz")
    labelled = {item for (item,) in query(tmp_path / "run", "select item from labels")}.union(split.initial.tolist())
    held_out = {*split.validation.tolist(), *split.test.tolist()}
    assert there["a"] == labelled | held_out, "the server trains, validates and tests"
    assert there["b"] <= labelled.union(*(shard.tolist() for shard in split.shards)), "workers choose"
    assert not there["b"] & held_out and there["b"] - there["a"]


def test_of_a_large_set_a_workers_machine_gets_its_own_shard_alone(machines: Machines, tmp_path: pathlib.Path) -> None:
    for path in machines.folder.rglob("images/*"):  # of another test
        if path.is_file():
            path.unlink()
    words = [*REAL, "engine=ray", f"ray.address={machines.address}", "ray.shared_folder=false"]
    words += ["ray.whole_images_gib=0", "ray.pins={server: head, worker: more}"]
    words += ["devices.worker_processes=2", "ray.worker_cpus=3"]  # one process a machine
    words += ["assignment_type=DA", "query_strategy=entropy", "max_staleness=1"]
    assert program.main([*words, "--out", str(tmp_path / "run")]) == 0
    assert is_exact(tmp_path / "run", 80)
    there = arrived(machines)
    shards = [set(shard.tolist()) for shard in load_split(tmp_path / "run" / "split.npz").shards]
    chosen = {item for (item,) in query(tmp_path / "run", "select item from queries")}
    first = 0 if there["a"] & shards[0] - chosen else 1
    for name, own in (("a", first), ("b", 1 - first)):
        assert there[name] >= shards[own]
        assert there[name] <= shards[own] | chosen, "what others have chosen, of which it says how like its own it is"


def test_people_label_before_a_page_that_is_an_actor_and_goes_on_after_its_death(
    machines: Machines, tmp_path: pathlib.Path
) -> None:
    run = tmp_path / "run"
    people = Visitors(run, 3, seconds=0.1, gives_up=0.0)
    words = [*REAL, "engine=ray", f"ray.address={machines.address}", "ray.pins={server: a, worker: b}"]
    # What the page had drawn and not yet given when it died comes back with the end of the lease.
    words += ["annotators.number=0", "annotators.lease_s=20", *people.words]
    with meanwhile(run, lambda: os.kill(pid_of(run, "web"), signal.SIGKILL)), people.labelling():
        assert program.main([*words, "--out", str(run)]) == 0
    assert is_exact(run, 80)
    assert people.acknowledged() <= answers_of(run) and len({person for _, person, _ in people.acknowledged()}) == 3
    assert "web: its process was killed" in (run / "log.txt").read_text()


def test_the_run_goes_on_when_machines_are_lost_and_waits_for_new_ones(
    machines: Machines, tmp_path: pathlib.Path
) -> None:
    plan, notes = imagined(machines, tmp_path / "run", pins={"server": "a", "worker": "b"}), Notes()
    with ThreadPoolExecutor(1) as thread:  # what a machine is started from must last as long as the machine
        result = thread.submit(RayEngine().run, plan, notes)
        wait_for(lambda: answered(plan.run) > 5)
        machines.lose("a")
        wait_for(lambda: any(note.startswith("server-0: its machine") for note in notes.notes))
        machines.add("a")
        assert result.result() == RunResult(RunStatus.FINISHED)
    assert is_exact(plan.run, 60)


@pytest.mark.parametrize(("workers", "batches"), [(5, 8), (9, 5)])
def test_processes_move_to_a_machine_that_joins(
    machines: Machines, tmp_path: pathlib.Path, workers: int, batches: int
) -> None:
    """With no number in the settings: processes share five CPUs, and on nine have their own, or share less."""
    shape = {"worker_num": workers, "worker_query_num": batches, "seconds_per_label": 0.8}
    labels = workers * batches * 5
    plan, notes = imagined(machines, tmp_path / "run", labels=labels, on_failure="stop", **shape), Notes()

    def place_of(name: str) -> str:
        with contextlib.suppress(psutil.NoSuchProcess):  # which has left, and the next one has not begun
            return pathlib.Path(psutil.Process(pid_of(plan.run, name)).environ()["XDG_CACHE_HOME"]).name
        return ""

    def on_b() -> set[str]:
        return {name for name in map("worker-{}".format, range(workers)) if place_of(name) == "b"}

    def moved() -> set[str]:
        text = " ".join(note for note in notes.notes if note.startswith("a machine has joined, to which these move: "))
        return set(re.findall(r"worker-\d+", text))

    machines.lose("b")
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(RayEngine().run, plan, notes)
        wait_for(lambda: answered(plan.run) > 5, 120.0)
        assert not on_b()
        machines.add("b")
        wait_for(lambda: len(moved()) > 1 and moved() <= on_b())
        before = answered(plan.run)
        assert result.result() == RunResult(RunStatus.FINISHED)
    assert before < labels and is_exact(plan.run, labels)
    assert not any("restarting" in note for note in notes.notes), "it is no failure"


def test_a_federation_whose_clients_lose_their_machine_goes_on_and_is_the_same_as_on_the_local_engine(
    machines: Machines, tmp_path: pathlib.Path
) -> None:
    """Before labels are bought all weights follow from the seed, if clients go on with the momentum that they kept."""
    plan, notes = (
        on(machines, planned(tmp_path / "ray", **FEDERATED), {"client": "a", "server": "b", "evaluator": "b"}),
        Notes(),
    )
    machines.lose("b")  # with what it was sent in other tests
    machines.add("b")

    def versions() -> int:
        return len(list((plan.run / "models").glob("average*")))

    with ThreadPoolExecutor(1) as thread:  # what a machine is started from must last as long as the machine
        result = thread.submit(RayEngine().run, plan, notes)
        wait_for(lambda: versions() > 0, 120.0)
        machines.lose("a")
        lost_at = versions()
        machines.add("a")
        assert result.result() == RunResult(RunStatus.FINISHED)
    assert lost_at < ROUNDS
    assert any(note.startswith("client-0: its machine") for note in notes.notes)
    assert query(plan.run, "select version, count(*) from rounds where left_out is null group by version") == [
        (version, 2) for version in range(2 * ROUNDS)
    ]
    assert all(is_intact(plan.run / path) for (path,) in query(plan.run, "select path from models"))
    assert "begins anew" not in (plan.run / "log.txt").read_text()
    assert len(list((plan.run / "clients").iterdir())) == len(list((plan.run / "models").glob("local*"))) == 4

    def sent(name: str) -> list[list[int]]:
        arrays = [np.load(path) for path in (machines.folder / name).rglob("images/*[0-9a-f]")]
        return sorted(np.flatnonzero(rows.any(axis=(1, 2, 3))).tolist() for rows in arrays if rows.ndim == 4)

    assert sent("a") == sorted(plan.partition.owned(client).tolist() for client in range(2))
    assert sent("b") == [sorted(plan.partition.test.tolist())], "the evaluator tests, the server opens none"
    local = planned(tmp_path / "local", **FEDERATED)
    assert LocalEngine().run(local, Notes()) == RunResult(RunStatus.FINISHED)
    assert is_exact(plan.run, query(local.run, "select count(*) from answers")[0][0])
    for one, other in zip(weights(plan.run)[:ROUNDS], weights(local.run), strict=False):
        assert all(torch.equal(one[name], value) for name, value in other.items())


def test_a_server_that_was_silent_publishes_nothing_and_its_successors_models_are_taken(
    machines: Machines, tmp_path: pathlib.Path
) -> None:
    """Its machine is silent too, else Ray would end it."""
    plan, notes = imagined(machines, tmp_path / "run", labels=200, pins={"server": "more"}), Notes()

    def models() -> int:
        return int(query(plan.run, "select count(*) from models")[0][0])

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(RayEngine().run, plan, notes)
        wait_for(lambda: answered(plan.run) > 5)
        former = psutil.Process(pid_of(plan.run, "server-0"))
        machine, name = former.parent(), pathlib.Path(former.environ()["XDG_CACHE_HOME"]).name
        assert machine is not None and "raylet" in machine.name()
        for process in (machine, former):
            process.suspend()
        wait_for(lambda: pid_of(plan.run, "server-0") != former.pid)
        before = models()
        wait_for(lambda: models() > before)
        former.resume()
        refused = f"server-0 {former.pid} WARNING server-0: another process has taken the place of this one; it ends"
        wait_for(lambda: refused in (plan.run / "log.txt").read_text())
        assert result.result() == RunResult(RunStatus.FINISHED)
    machines.lose(name)
    machines.add(name)
    assert is_exact(plan.run, 200)
    assert query(plan.run, "select count(*) - count(distinct labels) from models") == [(0,)], "no job was done twice"


def test_a_hub_that_dies_is_replaced(machines: Machines, tmp_path: pathlib.Path) -> None:
    plan, notes = imagined(machines, tmp_path / "run"), Notes()
    with meanwhile(plan.run, lambda: os.kill(pid_of(plan.run, "hub"), signal.SIGKILL)):
        result = RayEngine().run(plan, notes)
    assert result == RunResult(RunStatus.FINISHED), result
    assert "hub: its process was killed; going on from run.db (1 of 3)" in notes.notes
    assert is_exact(plan.run, 60)


@pytest.mark.parametrize("name", ["hub", "server-0"])
def test_what_dies_more_often_than_allowed_ends_the_run(machines: Machines, tmp_path: pathlib.Path, name: str) -> None:
    """Its record stands, and the run goes on from it."""
    plan, notes = imagined(machines, tmp_path / "run", labels=200, restart_limit=1), Notes()

    def kill_twice() -> None:
        first = pid_of(plan.run, name)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: pid_of(plan.run, name) != first)
        os.kill(pid_of(plan.run, name), signal.SIGKILL)

    with meanwhile(plan.run, kill_twice):
        result = RayEngine().run(plan, notes)
    assert result == RunResult(RunStatus.FAILED, f"{name}: its process was killed; restart_limit=1 is reached", 1)
    assert sum("(1 of 1)" in note for note in notes.notes) == 1, notes.notes
    plan = dataclasses.replace(plan, resume=take_over(plan.run / "run.db"))
    assert RayEngine().run(plan, Notes()) == RunResult(RunStatus.FINISHED)
    assert is_exact(plan.run, 200)


def test_a_hub_whose_machine_is_lost_waits_for_a_new_one(machines: Machines, tmp_path: pathlib.Path) -> None:
    plan, notes = imagined(machines, tmp_path / "run", pins={"hub": "b", "server": "a"}), Notes()
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(RayEngine().run, plan, notes)
        wait_for(lambda: answered(plan.run) > 5)
        assert query(plan.run, "pragma journal_mode") == [("delete",)], "another machine reads it"
        machines.lose("b")
        wait_for(lambda: any(note.startswith("hub: its machine was lost; going on") for note in notes.notes))
        wait_for(lambda: "hub: not started yet; it needs a machine with b free" in notes.notes, 60.0)
        machines.add("b")
        assert result.result() == RunResult(RunStatus.FINISHED)
    assert is_exact(plan.run, 60)


def test_what_no_machine_has_is_named(machines: Machines, tmp_path: pathlib.Path) -> None:
    plan = on(machines, plan_of(tmp_path / "run"), {"server": "quantum", "hub": "vault"})
    ray = plan.settings.ray.model_copy(update={"wait_s": 0.0, "worker_cpus": 64.0})
    object.__setattr__(plan, "settings", plan.settings.model_copy(update={"ray": ray}))
    with pytest.raises(Refused) as found:
        RayEngine().run(plan, Notes())
    assert "server: asks for quantum (ray.pins.server), and no machine has it" in str(found.value)
    assert "hub: asks for vault (ray.pins.hub), and no machine has it" in str(found.value)
    assert "worker: asks for 64 CPU, and no machine has it" in str(found.value)
    assert "there are 3 machines with 9 CPU" in str(found.value)


def test_ctrl_c_ends_a_run(machines: Machines, tmp_path: pathlib.Path) -> None:
    plan = imagined(machines, tmp_path / "run", labels=1000)
    with meanwhile(plan.run, lambda: os.kill(os.getpid(), signal.SIGINT)):
        result = RayEngine().run(plan, Notes())
    assert (result.status, result.cause) == (RunStatus.INTERRUPTED, "SIGINT")
    assert query(plan.run, "select value from meta where key = 'ended'") == [("interrupted",)]


def test_a_killed_main_leaves_nothing_and_its_run_goes_on_elsewhere(machines: Machines, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = [*REAL, "annotators.seconds_per_label=0.5", "engine=ray", f"ray.address={machines.address}"]
    main = subprocess.Popen([sys.executable, "main.py", *words, "--out", str(run)], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: answered(run) > 5, 120.0)
        roles = [pid_of(run, name) for name in ("hub", "server-0", "worker-0", "annotators")]
    finally:
        main.kill()
        main.communicate()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in roles))
    before = {path.name for path in (run / "models").iterdir()}
    assert program.main(["--resume", str(run), "engine=local", "annotators.seconds_per_label=0.5"]) == 0
    assert is_exact(run, 80)
    later = query(run, "select path from models, breaks where published_at > resumed_at")
    assert later and not before & {pathlib.Path(path).name for (path,) in later}, "no actor of before could write there"


def test_files_that_hang_begin_again(machines: Machines, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = [*REAL, "engine=ray", f"ray.address={machines.address}", "ray.shared_folder=false", "hung_after_s=8"]

    def stop() -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if (process.cmdline() or [""])[0].startswith("ray::Files"):
                    process.suspend()

    with meanwhile(run, stop):
        assert program.main([*words, "annotators.seconds_per_label=0.3", "--out", str(run)]) == 0
    assert is_exact(run, 80)
    assert "files: made no progress for 8 s; the process is restarted" in (run / "log.txt").read_text()


def test_files_whose_work_hangs_begin_again(machines: Machines, tmp_path: pathlib.Path) -> None:
    class Stuck(Files):
        """Hangs in the first call of its first process, whose other thread still answers."""

        def listed(self, path: pathlib.Path) -> list[pathlib.Path]:
            if not (begun := tmp_path / "begun").exists():
                begun.touch()
                time.sleep(1000)
            return super().listed(path)

    ray.init(machines.address, log_to_driver=False)
    try:
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        files = ray.remote(concurrency_groups={WATCHED: 1})(Stuck).options(**options).remote(tmp_path, [])
        watch, number = FilesWatch(files, 2.0), ray.get(files.progress.remote())[0]
        found = files.listed.remote(tmp_path / "split.npz")

        def is_found() -> bool:
            watch.look()
            return bool(ray.wait([found], timeout=0.1)[0])

        wait_for(is_found)
        assert ray.get(found) == [tmp_path / "split.npz"]
        assert ray.get(files.progress.remote())[0] != number
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("how", "what"),
    [("lose", "Ray has ended on this machine"), ("stop", "Ray has ended on this machine"), ("behead", "the head of")],
)
def test_a_run_whose_head_is_lost_ends_and_goes_on_on_another_cluster(
    machines: Machines, tmp_path: pathlib.Path, how: str, what: str
) -> None:
    run, there = tmp_path / "run", Machines(tmp_path / "machines", {"head": 1, "a": 4})
    words = [*REAL, "annotators.seconds_per_label=2", "engine=ray", f"ray.address={there.address}"]
    main = subprocess.Popen([sys.executable, "main.py", *words, "--out", str(run)], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: answered(run) > 5, 120.0)
        getattr(there, how)("head")
        _, errors = main.communicate(timeout=100)
    finally:
        main.kill()
        there.close()
    assert main.returncode == 1 and what.encode() in errors and b"Traceback" not in errors
    before = answers_of(run)
    words = [sys.executable, "main.py", "--resume", str(run), f"ray.address={machines.address}"]
    assert subprocess.run(words, cwd=ROOT, timeout=120).returncode == 0
    assert is_exact(run, 80) and before <= answers_of(run)


def test_a_cluster_is_started_where_no_address_is_given(tmp_path: pathlib.Path) -> None:
    plan = plan_of(tmp_path / "run", labels=20)
    assert RayEngine().run(plan, Notes()) == RunResult(RunStatus.FINISHED)
    assert is_exact(plan.run, 20)


@pytest.mark.parametrize("moment", ["ray starts", "answers come"])
def test_a_signal_at_any_moment_ends_the_run_as_any_other(tmp_path: pathlib.Path, moment: str) -> None:
    words = [sys.executable, "main.py", *REAL, "engine=ray", "--out", str(tmp_path / "run")]
    main = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def has_come() -> bool:
        if moment == "answers come":
            return answered(tmp_path / "run") > 0
        return any("gcs_server" in one.name() for one in psutil.Process(main.pid).children(recursive=True))

    wait_for(has_come, 60.0)
    main.terminate()
    text, _ = main.communicate(timeout=120)
    assert main.returncode == 143 and "to go on: python main.py --resume" in text, text
    assert "SIGTERM received" not in text, "as Ray's own handler has it, which ends the program"


def test_a_run_that_no_cluster_takes_leaves_nothing(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "main.py", *REAL, "engine=ray", "ray.address=127.0.0.1:1", "--out", str(tmp_path / "run")]
    for seeds in ([], [], ["--seed", "0", "1"], []):  # the same folder is free again
        done = subprocess.run([*words, *seeds], cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert done.returncode == 2 and "to go on" not in done.stdout and not (tmp_path / "run").exists()
        assert "error: ray.address: 127.0.0.1:1: nothing answers there; give the host:port" in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_servers_and_workers_share_a_gpu_that_ray_gives_out(tmp_path: pathlib.Path) -> None:
    words = ["engine=ray", "devices.servers=auto", "devices.workers=auto"]  # the config keeps the digits off a GPU
    assert program.main([*REAL, *words, "--out", str(tmp_path / "run")]) == 0
    on_gpu = re.findall(r"(server-0|worker-\d) \d+ INFO computes on cuda:0", (tmp_path / "run" / "log.txt").read_text())
    assert sorted(on_gpu) == ["server-0", "worker-0", "worker-1"]
    assert is_exact(tmp_path / "run", 80)
