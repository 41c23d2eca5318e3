"""The durable record when the disk is full, the file is locked, or the folder is foreign."""

import contextlib
import os
import pathlib
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from aal.config.errors import RecordFailed, UserError
from aal.coordination.hub import Hub
from aal.coordination.messages import QueryBatch, SelectionGrant, TrainedModel, TrainingJob
from aal.engines.local.hub_process import HubManager
from aal.storage import journal
from aal.storage.journal import Journal
from aal.storage.resume_state import read_resume_state
from aal.storage.run_recorder import RunRecorder
from aal.storage.schema import SCHEMA
from aal.storage.statements import execute
from tests.builders import imagined_plan, make_hub, make_settings

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROW = ("INSERT INTO waits VALUES(?,?,?,?)", [(1, 2.0, 3.0, 4)])


@pytest.mark.unit
def test_a_locked_file_makes_the_run_wait_then_is_reported(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    journal = Journal(path, lock_timeout_s=20)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    journal.write(ROW)
    threading.Timer(0.5, lambda: other.execute("COMMIT")).start()
    journal.flush()  # as soon as the other program lets go
    journal.close()
    impatient = Journal(path, lock_timeout_s=0.1)
    other.execute("BEGIN IMMEDIATE")
    impatient.write(ROW)
    with pytest.raises(RecordFailed, match="cannot be written: database is locked; another program holds it"):
        impatient.flush()
    other.execute("ROLLBACK")
    assert other.execute("SELECT count(*) FROM waits").fetchone() == (1,)
    impatient.close()
    other.close()


@pytest.mark.unit
def test_a_record_that_machines_share_is_not_written_ahead(tmp_path: pathlib.Path) -> None:
    """SQLite's write-ahead log needs memory that writers and readers share."""
    for wal, mode in ((True, "wal"), (False, "delete")):
        journal = Journal(tmp_path / f"{mode}.db", wal=wal)
        journal.write(ROW)
        journal.flush()
        with contextlib.closing(sqlite3.connect(tmp_path / f"{mode}.db")) as reader:
            assert reader.execute("PRAGMA journal_mode").fetchone() == (mode,)
            assert reader.execute("SELECT count(*) FROM waits").fetchone() == (1,)
        journal.close()


@pytest.mark.unit
def test_who_waits_for_a_slow_disk_lets_others_draw(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aal.storage.journal.BACKLOG", 3)
    record = RunRecorder(tmp_path / "run.db")
    hub, _ = make_hub(make_settings(), record=record)
    hub.publish(TrainedModel(job_of(hub).number, 0, "cnn", "models/x.pt", 1, 0.0, None, None))
    grant = hub.grant(0)
    assert isinstance(grant, SelectionGrant)
    hub.offer(QueryBatch(0, grant.batch, hub.remaining(0)[:5].tolist(), "margin", (0,), 0.0))
    record.flush()
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the disk takes nothing meanwhile
        drawing = [threading.Thread(target=hub.draw, args=([number], [0.0], 1)) for number in range(5)]
        for thread in drawing:
            thread.start()
            time.sleep(0.2)  # the first change is on its way to the disk when the others come
        assert drawing[-1].is_alive(), "the last one waits until memory is free again"
        seen: list[int] = []
        asking = threading.Thread(target=lambda: seen.append(hub.status().waiting))
        asking.start()
        asking.join(30)
        assert seen == [0], "and no call waits for it"
        other.execute("COMMIT")
    for thread in drawing:
        thread.join(60)
    hub.close("finished")
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as reader:
        assert reader.execute("SELECT count(*) FROM waits").fetchone() == (5,)


def job_of(hub: Hub) -> TrainingJob:
    job = hub.job(0)
    assert isinstance(job, TrainingJob)
    return job


@pytest.mark.unit
def test_a_change_is_on_disk_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "run.db")
    journal.write(ROW)
    journal.flush()
    journal.write(ROW, ("INSERT INTO nowhere VALUES(1)", [()]))
    with pytest.raises(RecordFailed):
        journal.flush()
    journal.close()
    with pytest.raises(RecordFailed, match="closed"):
        journal.flush()
    reader = sqlite3.connect(tmp_path / "run.db")
    assert reader.execute("SELECT count(*) FROM waits").fetchone() == (1,)
    reader.close()


@pytest.mark.process
def test_a_transaction_that_goes_on_is_waited_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of a hundred million images takes minutes to begin."""
    monkeypatch.setattr(journal, "STEPS", 10_000)
    written = Journal(tmp_path / "run.db", lock_timeout_s=0.1)

    def examples() -> Iterator[tuple[int, int]]:
        for item in range(60_000):
            if item % 2_000 == 0:
                time.sleep(0.02)
            yield item, 0

    written.write(("INSERT INTO examples(item, worker) VALUES(?,?)", examples()))
    written.flush()

    def stuck() -> Iterator[tuple[int, int]]:
        time.sleep(1.0)
        yield 60_000, 0

    written.write(("INSERT INTO examples(item, worker) VALUES(?,?)", stuck()))
    with pytest.raises(RecordFailed, match="the disk does not respond"):
        written.flush()
    time.sleep(1.0)
    written.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as database:
        assert database.execute("SELECT count(*) FROM examples").fetchone() == (60_001,)


@pytest.mark.unit
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 300])
def test_many_rows_to_a_statement_leave_what_one_at_a_time_leaves(count: int) -> None:
    statements: list[tuple[str, str, list[tuple[float, ...]]]] = [
        (
            "INSERT INTO examples(item, worker) VALUES(?,?)",
            "INSERT INTO examples(item, worker) VALUES(?,?)",
            [(item, item % 3) for item in range(count)],
        ),
        (
            "INSERT INTO examples(truth, item) VALUES(?,?) ON CONFLICT(item) DO UPDATE SET truth=excluded.truth",
            "UPDATE examples SET truth=? WHERE item=?",
            [(turn, item) for turn in range(2) for item in range(0, count, 2)],
        ),
        (
            "DELETE FROM examples WHERE item IN (VALUES(?))",
            "DELETE FROM examples WHERE item=?",
            [(item,) for item in range(0, count, 5)],
        ),
    ]
    left = []
    for plainly in (False, True):
        database = sqlite3.connect(":memory:")
        database.executescript(SCHEMA.read_text(encoding="utf-8"))
        for fast, plain, rows in statements:
            if plainly:
                database.executemany(plain, rows)
            else:
                execute(database, fast, iter(rows))
        left.append(database.execute("SELECT * FROM examples").fetchall())
        database.close()
    assert left[0] == left[1]
    assert len(left[0]) == count - len(range(0, count, 5))


@pytest.mark.unit
def test_a_file_that_is_no_database_is_reported(tmp_path: pathlib.Path) -> None:
    (tmp_path / "run.db").write_text("these are not the rows you are looking for" * 100)
    with pytest.raises(RecordFailed, match=r"run\.db: cannot be written: file is not a database"):
        Journal(tmp_path / "run.db")


@pytest.mark.unit
def test_a_run_killed_before_it_had_begun_has_no_state(tmp_path: pathlib.Path) -> None:
    assert read_resume_state(tmp_path / "run.db") is None
    Journal(tmp_path / "run.db").close()
    assert read_resume_state(tmp_path / "run.db") is None


@pytest.mark.unit
def test_a_record_of_an_earlier_version_is_refused_and_left_as_it_is(tmp_path: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as database:
        database.execute("CREATE TABLE queries(item INTEGER PRIMARY KEY, label INTEGER)")
    before = (tmp_path / "run.db").read_bytes()
    with pytest.raises(UserError, match=r"run\.db: was written by an earlier version of this program; start a new run"):
        read_resume_state(tmp_path / "run.db")
    assert (tmp_path / "run.db").read_bytes() == before


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 40 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place]).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.process
def test_a_full_disk_ends_the_run_in_one_line_and_resume_goes_on(small_disk: pathlib.Path) -> None:
    run = small_disk / "run"
    words = ["worker_num=3", "worker_query_num=8", "query_batch=10", "server_train_threshold=30", "training.epochs=2"]
    command = [sys.executable, "main.py", "--config", "digits.yaml", *words, "annotators.seconds_per_label=0.4"]
    with subprocess.Popen(
        [*command, "--out", str(run)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not any(run.glob("models/*.pt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "cannot be written" in line
    before = sqlite3.connect(run / "run.db").execute("select item, label from queries where label is not null")
    answered = set(before.fetchall())
    filler.unlink()
    done = subprocess.run([sys.executable, "main.py", "--resume", str(run)], cwd=ROOT, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = set(sqlite3.connect(run / "run.db").execute("select item, label from queries").fetchall())
    assert answered <= rows and len(rows) == 240


@pytest.mark.process
def test_the_hub_is_reached_by_its_own_account_alone(tmp_path: pathlib.Path) -> None:
    with HubManager() as manager:
        manager.open(imagined_plan(tmp_path / "run"), 0.0)  # type: ignore[attr-defined]
        address = manager.address
        assert isinstance(address, str), "a unix socket, not a network address"
        assert stat.S_ISSOCK(os.stat(address).st_mode)
        assert stat.S_IMODE(os.stat(os.path.dirname(address)).st_mode) == 0o700
        stranger = HubManager(address, authkey=b"guess")
        with pytest.raises(Exception, match=r"digest|authentication"):
            stranger.connect()
