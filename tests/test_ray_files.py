"""Files of the engine ray without a cluster: they travel in chunks, once a machine, and only those of the run."""

import errno
import os
import pathlib
import shutil
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import filelock
import numpy as np
import pytest

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

from ray.exceptions import GetTimeoutError, RayTaskError

from aal.config.errors import RunFailed
from aal.coordination.federation import AggregationJob, Contribution, LocalJob, LocalModel
from aal.coordination.messages import ModelRef, TrainedModel
from aal.engines.ray import contents as contents_module
from aal.engines.ray import files as files_module
from aal.engines.ray import hub_client, node_store
from aal.engines.ray.files import Files
from aal.engines.ray.hub_client import HubClient, HubTime
from aal.engines.ray.node_store import SHARED, NodeStore
from aal.engines.ray.run_files import RunFiles
from aal.engines.ray.store_folder import ABANDONED_S, ALIVE, remove_abandoned
from aal.engines.ray.workplace import Workplace
from aal.storage import retry
from aal.storage.checksum import with_checksum

pytestmark = pytest.mark.unit


class Direct:
    """An actor that is called at once, and may damage what it gives."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.calls: list[str] = []
        self.damages = False

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            self.calls.append(name)
            try:
                found = getattr(self.target, name)(*args)
            except OSError as error:  # as Ray gives it
                return RayTaskError(name, "", error).as_instanceof_cause()
            if name == "rows_of" and self.damages:
                return found[0] ^ 1, found[1]
            return found ^ 1 if name == "chunk" and self.damages else found

        return SimpleNamespace(remote=call)


def got(value: Any, timeout: float | None = None) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@pytest.fixture
def served(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Direct, NodeStore]:
    for module in (contents_module, files_module, node_store):
        monkeypatch.setattr(module, "CHUNK", 1000)
    monkeypatch.setattr(node_store, "ray", SimpleNamespace(get=got))
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


@pytest.mark.parametrize("damage", [b"another", b"", b"\x93NUMPY"])
@pytest.mark.parametrize("rows", [None, np.array([1, 3])])
def test_a_copy_that_was_damaged_since_comes_over_again(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], damage: bytes, rows: np.ndarray | None
) -> None:
    source, store = served
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), np.uint8)
    np.save(tmp_path / "set" / "images.npy", images)
    store.image_file(tmp_path / "set" / "images.npy", tmp_path / "first" / "images.npy", rows)
    (kept,) = (path for path in (tmp_path / "here" / "images").iterdir() if path.suffix != ".lock")
    content = kept.read_bytes()
    kept.write_bytes(content[:2000] + damage + content[2000 + len(damage) :] if damage[:1] == b"a" else damage)
    store = NodeStore(tmp_path / "here", "0b", source)  # of the next run
    store.image_file(tmp_path / "set" / "images.npy", tmp_path / "second" / "images.npy", rows)
    here, wanted = np.load(tmp_path / "second" / "images.npy"), slice(None) if rows is None else rows
    assert np.array_equal(here[wanted], images[wanted])
    calls, beats = source.calls.count("chunk"), list[int]()
    third = NodeStore(tmp_path / "here", "0c", source, lambda: beats.append(1))
    third.image_file(tmp_path / "set" / "images.npy", tmp_path / "third" / "images.npy", rows)
    assert source.calls.count("chunk") == calls
    assert len(beats) > (2 if rows is not None else 6), "one for each chunk that is looked at"


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
    kept = tmp_path / "here" / "runs" / "0a" / "files"
    assert len(list(kept.glob("*[0-9a-f]"))) == 8, "as many as a process reads"
    for number in range(7):
        (tmp_path / "worker" / f"{number}.pt").unlink()
    store.run_file(run / "models/7.pt", tmp_path / "other" / "7.pt")
    assert len(list(kept.glob("*[0-9a-f]"))) == node_store.KEPT + 1, "the newest ones and what is read"
    made.write_bytes(content[:-1])
    with pytest.raises(RunFailed, match="did not reach the run's folder whole"):
        store.send(made, "models/half.pt", "server-0-0")
    assert not list((run / "models").glob("*half*"))


def test_what_a_killed_process_left_is_removed_by_a_later_run(tmp_path: pathlib.Path) -> None:
    """Not that of a process which holds its lock, nor what is of today."""
    for run in ("0a", "0b", "0c"):
        (tmp_path / "runs" / run / "server-0-0" / "models").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    held = filelock.FileLock(tmp_path / "runs" / "0b" / "server-0-0" / ALIVE)
    held.acquire()
    long_ago = time.time() - 2 * ABANDONED_S
    for run in ("0a", "0b"):
        for path in ((tmp_path / "runs" / run).rglob("*"), [tmp_path / "runs" / run]):
            for one in path:
                os.utime(one, (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"0b", "0c"} and (tmp_path / "images").exists()
    held.release()
    remove_abandoned(tmp_path)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"0c"}


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
    with pytest.raises(ValueError, match="is no file that a role of the run reads"):
        files.listed(tmp_path / "run" / "models" / "..")


def test_a_disk_that_does_not_take_a_model_is_named_and_is_not_a_hub_that_is_gone(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = served
    heard: list[float] = []
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: 50.0 * len(heard), sleep=heard.append))

    take, full_for = source.target.take, 9

    def taken(*args: Any) -> None:
        if len(heard) < full_for:
            raise OSError(errno.ENOSPC, "No space left on device")
        take(*args)

    monkeypatch.setattr(source.target, "take", taken)
    (tmp_path / "run" / "split.npz").write_bytes(b"split")
    files = RunFiles(tmp_path / "here", tmp_path / "run", store, "server-0-0")
    hub = HubClient(Direct(SimpleNamespace(call=lambda *_: (0.0, "heard", None))), "server-0", 0, 9.0, HubTime())
    hub.files = files
    monkeypatch.setattr(hub_client, "ray", SimpleNamespace(get=got))
    put(files.here / "models/new.pt", 0)
    message = TrainedModel(6, 0, "cnn", "models/new.pt", 1, 0.0, None, None, checksum="y")
    with pytest.raises(RunFailed, match=r"models/new\.pt: in the run's folder, it cannot be written: No space left on"):
        hub.publish(message)
    heard.clear()
    full_for = 1
    assert hub.publish(message) == "heard" and (tmp_path / "run/models/new.pt").exists(), "room was made"
    (tmp_path / "run/models/old").mkdir()
    put(tmp_path / "run/models/older.pt", 1)
    store.remove(["models/old", "models/older.pt", "models/none"])
    left = sorted(path.name for path in (tmp_path / "run/models").iterdir())
    assert left == ["new.pt", "old"], "what cannot be removed stays, and the others go"


def test_what_begins_while_the_last_process_of_a_machine_ends_keeps_its_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    some: list[Any] = [SimpleNamespace(run_id="ab", name=f"worker-{number}-0") for number in range(2)]
    hub: Any = None
    first, second = (Workplace(one, hub) for one in some)
    of_run = tmp_path / "aal" / "ray" / "runs" / "ab"
    for name in ("worker-0-0", SHARED):
        (of_run / name).mkdir(parents=True)
    remove = shutil.rmtree

    def meanwhile(path: pathlib.Path, **more: Any) -> None:
        remove(path, **more)
        if path.name == SHARED:
            (of_run / "worker-1-0").mkdir()

    monkeypatch.setattr("aal.engines.ray.workplace.shutil.rmtree", meanwhile)
    first.remove()
    assert [path.name for path in of_run.iterdir()] == ["worker-1-0"]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    second.remove()
    assert not of_run.exists()


def test_a_process_that_waits_for_the_files_is_heard_and_none_is_read_twice(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = served
    path, rows = tmp_path / "set" / "images.npy", np.array([1, 3])
    beats: list[int] = []
    np.save(path, np.ones((5, 300), np.uint8))

    def slow(value: Any, timeout: float) -> Any:
        if len(beats) < 3:
            raise GetTimeoutError
        return got(value)

    monkeypatch.setattr(node_store, "ray", SimpleNamespace(get=slow))
    read, contents_of = [], files_module.contents_of

    def counted(*args: Any) -> Any:
        read.append(args)
        return contents_of(*args)

    monkeypatch.setattr(files_module, "contents_of", counted)
    for name in ("first", "second"):
        store = NodeStore(tmp_path / name, "0a", source, lambda: beats.append(1))
        store.image_file(path, tmp_path / name / "images.npy", rows)
    assert len(beats) >= 3 and len(read) == 1
    assert source.target.contents(path, np.array([1, 2])) != source.target.contents(path, rows)
