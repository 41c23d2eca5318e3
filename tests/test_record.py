"""The record of a run, when a user, a disk or another program does something to it."""

import contextlib
import pathlib
import shutil
import sqlite3

import pytest

from aal.config.errors import RecordFailed, UserError
from aal.reporting.labels import read_labels
from aal.storage.acknowledged import NAME, acknowledged
from aal.storage.earlier_record import EARLIER, compare, set_aside
from aal.storage.journal import RESCUED, Journal
from aal.storage.resume_state import read_resume_state, take_over
from aal.storage.run_reader import RunReader
from aal.storage.run_recorder import ANSWERED, LABELLED
from aal.storage.statements import Statement
from tests.builders import make_run

pytestmark = pytest.mark.unit


def answer(number: int, item: int, annotator: int, label: int, at: float) -> tuple[Statement, Statement]:
    """What is written for an answer that an image needs no other of."""
    row = (number, item, annotator, label, at, "label")
    return (ANSWERED, [row]), (LABELLED, [(number, item, label, 1.0, annotator, at, None)])


ANSWER = answer(0, 7, 1, 2, 3.0)


def answers(path: pathlib.Path) -> list[tuple[int, int]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT item, label FROM answers ORDER BY arrival").fetchall()


def written(folder: pathlib.Path, number: int = 10) -> pathlib.Path:
    """A sound record of a run that was killed, in one file; returns its path."""
    make_run(
        folder,
        {
            **{"data_type": "digits", "models": "cnn", "worker_num": 1, "worker_query_num": 1, "query_batch": 10},
            **{"server_train_threshold": 10, "compute": "none", "engine": "simulated", "mode": "async"},
        },
        examples=[(-1, "initial", None, 0, None), *((item, "shard", 0, 1, None) for item in range(number))],
        meta=[("seed", "0"), ("classes", '["0", "1", "2"]')],
        offers=[(item, 0, "entropy", 0, 0, 1.0) for item in range(number)],
        selections=[(0, 0, "entropy", 0, number, 0.5, 1.0, "0")],
        waits=[(1, 0.0, 1.0, item) for item in range(number)],
        jobs=[(0, 0, 1, 0.0, "fit", 0, None, None, 0)],
        models=[(0, 0, 1, 0.0, 0.5, None, 0.5, "models/0.pt", "cnn", 1, 0, 0)],
    )
    path = folder / "run.db"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO meta VALUES('config', ?)", ((folder / "config.yaml").read_text(),))
    journal = Journal(path)
    for item in range(number):
        journal.write(*answer(item, item, 1, item % 3, 2.0 + item))
        journal.flush()
    journal.close()
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return written(tmp_path_factory.mktemp("record") / "run").parent


@pytest.fixture
def path(sound: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A record of ten answers that a test may damage."""
    shutil.copytree(sound, tmp_path / "run")
    return tmp_path / "run" / "run.db"


# ---------------------------------------------------------------------- while it is written


@pytest.mark.parametrize("act", ["delete", "move", "replace", "delete the log"])
def test_a_record_that_is_no_longer_where_it_was_ends_the_run_and_no_answer_is_lost(
    tmp_path: pathlib.Path, act: str
) -> None:
    path = tmp_path / "run.db"
    journal = Journal(path)
    journal.write(*ANSWER)
    journal.flush()
    if act == "delete":
        path.unlink()
    elif act == "move":
        path.rename(tmp_path / "elsewhere.db")
    elif act == "replace":
        (tmp_path / "other").write_bytes(path.read_bytes())
        (tmp_path / "other").replace(path)
    else:
        path.with_name("run.db-wal").unlink()
    journal.write(*answer(1, 8, 1, 0, 4.0))
    with pytest.raises(RecordFailed, match=r"run\.db(-wal)?: was moved, deleted or replaced while the run went on"):
        journal.flush()
    journal.close()
    whole = path.with_name(RESCUED) if act == "replace" else path
    assert answers(whole)[0] == (7, 2), "what was acknowledged"


def test_a_writer_from_before_a_resume_changes_nothing_more(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    stopped = Journal(path)
    stopped.write(*ANSWER, ("INSERT INTO meta VALUES(?,?)", [("seed", "0"), ("config", "compute: none")]))
    stopped.flush()
    state = take_over(path)
    assert state is not None and state.labels == [(7, 2)]
    stopped.write(*answer(1, 8, 1, 0, 4.0))
    with pytest.raises(RecordFailed, match="another program has gone on with this run; this one changes nothing more"):
        stopped.flush()
    goes_on = Journal(path, epoch=state.epoch)
    goes_on.write(*answer(1, 9, 1, 1, 5.0))
    goes_on.flush()
    stopped.close()
    goes_on.close()
    assert answers(path) == [(7, 2), (9, 1)]
    with pytest.raises(RecordFailed, match="another program has gone on"):
        Journal(path, epoch=state.epoch - 1)


def test_a_record_never_lacks_the_count_of_its_answers_whenever_it_is_killed(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "run.db")
    assert acknowledged(tmp_path / "run.db") == (0, 0)
    journal.close()


# ---------------------------------------------------------------------- when the run goes on


def test_a_sound_record_is_taken_up(path: pathlib.Path) -> None:
    state = read_resume_state(path)
    assert state is not None and state.labels == [(item, item % 3) for item in range(10)]
    assert len(read_labels(path.parent)) == 11


def test_a_record_without_its_write_ahead_log_is_refused(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "run", number=2)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM answers")
        db.execute("DELETE FROM labels")
    path.with_name(NAME).unlink()
    journal = Journal(path)
    for number in range(2):
        journal.write(*answer(number, number, 1, 2, 3.0))
        journal.flush()
    copy = tmp_path / "copy"  # as it is after a kill
    shutil.copytree(path.parent, copy)
    journal.close()
    (copy / "run.db-wal").unlink()
    for read in (read_resume_state, lambda record: read_labels(record.parent)):
        with pytest.raises(UserError, match=r"holds 0 of the 2 answers that were acknowledged .* run\.db-wal, which"):
            read(copy / "run.db")
    (copy / NAME).unlink()
    with pytest.raises(UserError, match=r"acknowledged\.txt: is missing, so nothing says whether run\.db holds every"):
        read_resume_state(copy / "run.db")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DELETE FROM answers WHERE arrival = 9", "holds 9 of the 10 answers"),
        ("UPDATE answers SET label = 0 WHERE arrival = 4", "its answers are not those that were acknowledged"),
        ("UPDATE offers SET worker = 1 WHERE item = 3", "not in the shard of its worker"),
        ("UPDATE examples SET part = 'test' WHERE item = 3", "not in the shard of its worker"),
        ("DELETE FROM offers WHERE item = 3", "an answer is for an image that was not offered"),
        ("INSERT INTO offers SELECT * FROM offers LIMIT 1", "an image was offered twice"),
        ("UPDATE models SET path = '/etc/passwd'", "a model's file is not in the run directory"),
        ("UPDATE models SET version = 4", "the models are not numbered in order"),
        ("UPDATE models SET ticket = 4", "a model is of no job"),
        ("UPDATE jobs SET labels = 400; UPDATE models SET labels = 400", "a job is of labels that are not there"),
        ("UPDATE waits SET got_at = 'late'", "a value of the column waits.got_at is no real"),
        ("UPDATE jobs SET kind = NULL", "a value of the column jobs.kind is no text"),
        ("UPDATE meta SET value = 'a: [' WHERE key = 'config'", "cannot be read"),
        ("DELETE FROM meta WHERE key = 'config'", "cannot be read"),
        ("UPDATE meta SET value = 'later' WHERE key = 'epoch'", "cannot be read"),
        ("INSERT INTO meta VALUES('wall_s', 'long')", "cannot be read"),
        ("DROP TABLE selections", "the batches do not hold as many queries as were offered"),
    ],
)
def test_a_record_whose_rows_do_not_fit_is_refused(path: pathlib.Path, sql: str, message: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(sql)
    with pytest.raises(UserError) as caught:
        read_resume_state(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_page_is_noticed(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'waits'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    start = (root - 1) * size
    content[start + 3 : start + 8] = b"\xff" * 5
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"run\.db: (is damaged|cannot be read)"):
        read_resume_state(path)


@pytest.mark.parametrize("fills_with", [b"", b"\0"])
def test_a_record_that_was_cut_off_is_noticed_by_readers_too(path: pathlib.Path, fills_with: bytes) -> None:
    """SQLite reads what is missing of a page as zeros, so that a row is left out without a word."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        last = "redundancy"  # the table that the last page of the file belongs to, which must hold something
        db.executemany(f"INSERT INTO {last} VALUES(0, ?, 1, 0.5, 0.5)", [(batch,) for batch in range(30)])
        db.commit()
    path.write_bytes(path.read_bytes()[:-400] + 400 * fills_with)
    with RunReader(path.parent) as reader, pytest.raises(UserError, match=r"run\.db: is damaged: "):
        reader.check()


@pytest.mark.parametrize("text", ["", "run.db holds many answers", "\0" * 66])
def test_a_damaged_count_of_answers_is_named(path: pathlib.Path, text: str) -> None:
    path.with_name(NAME).write_text(text)
    with pytest.raises(UserError, match=r"acknowledged\.txt: is damaged"):
        read_resume_state(path)


def test_a_record_that_is_gone_with_answers_is_named(path: pathlib.Path) -> None:
    path.unlink()
    with pytest.raises(UserError, match=r"run\.db: is missing, and with it the 10 answers that were acknowledged"):
        read_resume_state(path)
    assert not path.exists()


@pytest.mark.parametrize("act", ["delete", "earlier copy"])
def test_a_hub_that_is_lost_with_its_record_is_not_replaced_by_one_that_begins_again(
    path: pathlib.Path, act: str
) -> None:
    if act == "delete":
        path.unlink()
    else:
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("DELETE FROM answers WHERE arrival > 3")
    with pytest.raises(UserError, match=r"the 10 answers that were acknowledged"):
        take_over(path)


def test_a_hub_that_is_lost_before_its_record_has_tables_is_replaced(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
    assert take_over(path) is None
    assert read_resume_state(path) is None


# ---------------------------------------------------------------------- a simulated run, which is repeated


def test_a_run_killed_while_its_earlier_record_is_set_aside_goes_on(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = answers(path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathlib.Path, "unlink", _killed)
        set_aside(path)
    assert read_resume_state(path) is None and take_over(path) is None
    set_aside(path)
    assert answers(path.with_name(EARLIER)) == known and not path.with_name(NAME).exists()


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_earlier_record_of_a_repeated_run_is_kept_until_the_new_one_holds_as_much(path: pathlib.Path) -> None:
    earlier = path.with_name(EARLIER)
    known = answers(path)
    set_aside(path)
    assert not path.exists() and answers(earlier) == known
    for number in (3, 5):  # killed twice, the second time before it has come as far
        written(path.parent / "again", number).replace(path)
        shutil.rmtree(path.parent / "again")
        if number == 3:
            set_aside(path)
            assert answers(earlier) == known and not path.exists()
    assert compare(path) is None
    assert answers(path) == known and not earlier.exists(), "the longer one is the record again"


def test_another_run_than_the_earlier_one_deletes_neither(path: pathlib.Path) -> None:
    set_aside(path)
    shutil.copyfile(path.with_name(EARLIER), path)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE answers SET label = 0")
    assert "has not repeated the earlier one" in (compare(path) or "")
    with pytest.raises(UserError, match=r"holds other answers than run\.db\.earlier"):
        set_aside(path)
    assert len(answers(path)) == len(answers(path.with_name(EARLIER))) == 10
