"""The directory of a run that a user or a disk has changed: what `--resume` then says and does."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sqlite3

import numpy as np
import pytest

from aal.app import main as program
from aal.app.data import load_split, save_split
from aal.config.errors import UserError
from aal.config.loading import load
from aal.coordination.messages import ModelRef, TrainedModel, TrainingJob
from aal.reporting import pages
from aal.storage.checksum import checksum_of
from aal.storage.earlier_record import EARLIER
from aal.storage.journal import RESCUED
from aal.storage.model_files import save_model
from aal.storage.resume_state import resume_state_of, take_over
from aal.storage.run_directory import new_run, tidy
from tests.builders import MemoryRecorder, make_hub, make_run, make_settings, model, query
from tests.test_hub import three_trainings
from tests.test_model_files import payload
from tests.test_record import written

pytestmark = pytest.mark.unit
SMALL = [
    *("--config", "digits.yaml", "engine=simulated", "compute=none", "worker_num=2", "worker_query_num=2"),
    *("query_batch=5", "server_train_threshold=10", "val_size=20", "initial_size=20"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert program.main([*SMALL, "--out", str(run)]) == 0
    return run


@pytest.fixture
def run(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A finished run that a test may damage."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def resume(run: pathlib.Path, *words: str) -> int:
    return program.main(["--resume", str(run), *words])


def edit(run: pathlib.Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(run / "run.db")) as db, db:
        db.execute(sql)


# ---------------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("engine: simulated", "engine: local", "engine: cannot be changed from 'simulated' to 'local'"),
        ("seed: 0", "seed: 1", "seed: cannot be changed from 0 to 1"),
        ("mode: async", "mode: sync", "mode: cannot be changed from 'async' to 'sync'"),
        ("worker_num: 2", "worker_num: 3", "worker_num: cannot be changed from 2 to 3"),
        ("val_size: 20", "val_size: 10", "val_size: cannot be changed from 20 to 10"),
        ("- cnn", "- resnet18", "models: cannot be changed"),
        ("query_batch: 5", "query_batch: 6", "query_batch: cannot be changed from 5 to 6"),
        ("epochs: 60", "epochs: 61", "training.epochs: cannot be changed from 60 to 61 in a run that has begun;"),
        ("worker_query_num: 2", "worker_query_num: 1", "worker_query_num: can only grow, from 2"),
    ],
)
def test_an_edited_config_is_compared_with_the_record(
    run: pathlib.Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(old, new).replace("compute: none", f"compute: {_compute(new)}"))
    before = (run / "run.db").read_bytes()
    assert resume(run) == 2
    assert f"error: {run}: config.yaml is not that of run.db: {message}" in capsys.readouterr().err
    assert (run / "run.db").read_bytes() == before


def _compute(new: str) -> str:
    return "full" if new == "engine: local" else "none"  # which alone fits


def test_what_may_change_may_be_edited(run: pathlib.Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("hung_after_s: ", "hung_after_s: 1"))
    assert resume(run, "worker_query_num=3") == 0
    assert query(run, "select count(*) from answers") == [(30,)]


def test_folders_of_a_resumed_run_mean_the_same_everywhere(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert resume(run, "worker_query_num=3", "prepared_dir=../prepared", "data_dir=images") == 0
    settings = load(str(run / "config.yaml"))
    assert settings.prepared_dir == str(run.parent / "prepared")
    assert settings.data_dir == str(run / "images")
    assert f"data_dir: {run / 'images'}" in (run / "config.yaml").read_text()


# ---------------------------------------------------------------------- what is in the directory


@pytest.mark.parametrize(
    "name", [".lock", "log.txt", "run.db", "split.npz", "config.yaml", "acknowledged.txt", EARLIER]
)
@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_a_part_of_the_wrong_kind_is_named(
    run: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name) if kind == "pipe" else (run / name).mkdir()
    assert resume(run) == 2
    assert capsys.readouterr().err.strip() == f"error: {run / name}: is no file"


def test_every_part_of_the_wrong_kind_is_named_at_once(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "models")
    shutil.rmtree(run / "report")
    names = ("models", "clients", "report")
    for name in names:
        (run / name).write_text("")
    assert resume(run) == 2
    lines = [f"error: {run / name}: is no directory" for name in names]
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("emptied", [True, False])
def test_a_record_that_is_missing_or_empty_is_not_begun_again(
    run: pathlib.Path, capsys: pytest.CaptureFixture[str], emptied: bool
) -> None:
    (run / "run.db").write_bytes(b"") if emptied else (run / "run.db").unlink()
    assert resume(run) == 2
    assert "20 answers that were acknowledged" in capsys.readouterr().err
    (run / "acknowledged.txt").unlink()
    assert resume(run) == 2
    assert "is missing or empty, but log.txt shows that the run had begun" in capsys.readouterr().err


@pytest.mark.parametrize("act", ["delete", "truncate", "foreign", "twice", "negative"])
def test_a_lost_split_is_made_again_from_the_seed(run: pathlib.Path, act: str) -> None:
    path, before = run / "split.npz", (run / "split.npz").read_bytes()
    if act == "delete":
        path.unlink()
    elif act == "truncate":
        os.truncate(path, 100)
    elif act in ("twice", "negative"):
        split = load_split(path)
        wrong = split.shards[0][0] if act == "twice" else -1
        damaged = dataclasses.replace(split, initial=np.sort(np.append(split.initial, wrong)))
        save_split(damaged, path)
    else:
        other = run.parent / "other"
        assert program.main([*SMALL, "--seed", "7", "--out", str(other)]) == 0
        shutil.copyfile(other / "split.npz", path)
    assert resume(run, "worker_query_num=3") == 0
    assert path.read_bytes() == before


def test_a_record_of_another_seed_is_refused(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run, "UPDATE examples SET truth = 1 - truth WHERE truth < 2")
    assert resume(run, "worker_query_num=3") == 2
    assert "its table examples is not what the seed stands for" in capsys.readouterr().err


def test_leftovers_of_killed_writers_are_removed_and_are_no_run(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (".tmp-config.yaml-77", ".lock"):
        (run / name).write_text("half")
    assert program.main([*SMALL, "--out", str(run)]) == 0, "a directory in which nothing had begun"
    (run / "models" / ".tmp-training-0000-server-0.pt-77").write_text("half")
    assert resume(run, "worker_query_num=3") == 0
    assert not list(run.rglob(".tmp-*"))


def test_whole_files_that_no_record_names_are_removed_and_no_others(tmp_path: pathlib.Path) -> None:
    """A process was killed between writing and announcing; under the next hub its files have other names."""
    of_record = [(*model(0, 0, 4, 0.0, 1.0, 0.5)[:7], "models/average-00002-server-0.pt", "cnn", 1, 2)]
    local: list[tuple[object, ...]] = [(1, 0, 0, 4, None, 0.0, 1.0, 0.5, "models/local-00001-client-0.pt", "x", 0)]
    local += [(0, 1, 0, 4, None, 0.0, 1.0, None, "", None, 1)]
    meta = [("seed", "0"), ("config", "{data_type: digits, models: cnn}")]
    run = make_run(tmp_path / "run", {}, models=of_record, local_models=local, meta=meta)
    kept = ["models/average-00002-server-0.pt", "models/local-00001-client-0.pt", "clients/kept-00001-client-0.pt"]
    kept += ["models/mine.pt", "models/average-best.pt", "run.db"]
    gone = ["models/average-00002-server-0-1000000.pt", "models/local-00003-client-0.pt"]
    gone += ["clients/kept-00003-client-0.pt", "clients/kept-00001-client-0-7.pt", "models/training-0001-server-0.pt"]
    for name in (*kept, *gone):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).touch()
    state = take_over(run / "run.db")
    assert state is not None
    tidy(run)
    (run / RESCUED).touch()
    tidy(run, state.files)
    assert all((run / name).exists() for name in (*kept, *gone)), "another record may name them"
    (run / RESCUED).unlink()
    tidy(run, state.files)
    assert all((run / name).exists() for name in kept) and not any((run / name).exists() for name in gone)


@pytest.mark.parametrize(("number", "code"), [(28, 1), (30, 2)], ids=["full", "read-only"])
@pytest.mark.parametrize("part", ["config.yaml", "split.npz"])
def test_a_disk_that_takes_nothing_is_reported_in_one_line(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
    number: int,
    code: int,
) -> None:
    replace = os.replace

    def fail(source: pathlib.Path, target: pathlib.Path) -> None:
        if pathlib.Path(target).name == part:
            raise OSError(number, os.strerror(number), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    assert program.main([*SMALL, "--out", str(tmp_path / "run")]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line == f"error: {tmp_path / 'run' / part}: cannot be written: {os.strerror(number)}"
    monkeypatch.undo()
    words = [*SMALL, "--out", str(tmp_path / "run")] if part == "config.yaml" else ["--resume", str(tmp_path / "run")]
    assert program.main(words) == 0, "what a start leaves that failed is accepted when there is room again"


def test_what_was_fitted_to_the_images_is_shown_when_nothing_stops_the_start(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    words = [*SMALL, "initial_size=null"]
    assert program.main([*words, "--out", str(tmp_path)]) == 2
    assert "fitted" not in capsys.readouterr().out
    assert program.main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "fitted to the images: initial_size=" in capsys.readouterr().out


def test_a_directory_that_two_programs_begin_in_has_the_config_of_the_first(tmp_path: pathlib.Path) -> None:
    first, second = make_settings(seed=1), make_settings(seed=2)
    taken = pytest.raises(UserError, match="another program runs in this directory")
    with new_run(first, tmp_path), taken, new_run(second, tmp_path):
        pass
    assert "seed: 1" in (tmp_path / "config.yaml").read_text()
    with pytest.raises(UserError, match="is not an empty directory"), new_run(second, tmp_path):
        pass
    assert "seed: 1" in (tmp_path / "config.yaml").read_text()


# ---------------------------------------------------------------------- the report


def test_a_report_that_was_not_drawn_is_drawn_and_only_then(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = run / "report" / "report.md"
    for harm in (page.unlink, (run / "summary.json").unlink, lambda: shutil.rmtree(run / "report")):
        harm()
        assert resume(run) == 0
        assert page.read_text().startswith("# Run") and json.loads((run / "summary.json").read_text())
    stale = (run / "summary.json").read_text().replace('"bought": 20', '"bought": 19')
    (run / "summary.json").write_text(stale)
    assert resume(run) == 0 and (run / "summary.json").read_text() != stale
    capsys.readouterr()
    monkeypatch.setattr(pages, "write_report", lambda run: pytest.fail("drawn in vain"))
    assert resume(run) == 0
    assert f"{run} is finished" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (UserError("report: no"), 1)])
def test_a_run_whose_report_is_not_drawn_has_not_ended_well(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    def fail(run: pathlib.Path) -> pathlib.Path:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(pages, "write_report", fail)
        assert program.main([*SMALL, "--out", str(tmp_path / "run")]) == code
    assert resume(tmp_path / "run") == 0
    assert (tmp_path / "run" / "report" / "report.md").exists()


# ---------------------------------------------------------------------- models


def test_a_lost_model_is_trained_again_as_the_same_version_while_workers_use_the_one_before() -> None:
    record = MemoryRecorder()
    hub, _ = make_hub(make_settings(), record=record)
    three_trainings(hub)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        record.journal.left_behind(0, database)
        state = resume_state_of(database)
    newest = state.models[-1][0].version
    again = MemoryRecorder()
    hub, clock = make_hub(make_settings(), record=again, state=dataclasses.replace(state, lost=frozenset({newest})))
    job = hub.job(0)
    assert isinstance(job, TrainingJob) and job.number == state.models[-1][1] and job in state.jobs
    assert hub.status().version == newest - 1
    assert hub.publish(TrainedModel(job.number, 0, "cnn", "models/again.pt", 1, clock.now(), None, 0.75)) == newest
    assert (hub.status().version, hub.status().test_accuracy) == (newest, 0.75)
    following = hub.job(0)
    if isinstance(following, TrainingJob):
        assert following.number == job.number + 1


def written_with_model(run: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The record of a local run that computes, and the file of its model."""
    path, model = written(run), run / "models" / "0.pt"
    model.parent.mkdir()
    save_model(model, payload())
    edit(run, "UPDATE meta SET value = replace(value, 'compute: none', 'compute: full')")
    edit(run, "UPDATE meta SET value = replace(value, 'engine: simulated', 'engine: local')")
    return path, model


@pytest.mark.parametrize("harm", ["delete", "flip", "other"])
def test_a_newest_model_that_is_not_the_published_one_is_found(tmp_path: pathlib.Path, harm: str) -> None:
    path, model = written_with_model(tmp_path / "run")
    edit(path.parent, f"UPDATE models SET checksum = '{checksum_of(model)}'")
    state = take_over(path)
    assert state is not None and state.lost == frozenset()
    if harm == "delete":
        model.unlink()
    elif harm == "flip":
        content = bytearray(model.read_bytes())
        content[len(content) // 2] ^= 4
        model.write_bytes(content)
    else:
        save_model(model, payload(labels=6))
    state = take_over(path)
    assert state is not None and state.lost == {0} and state.models[0][0] == ModelRef(0, "models/0.pt", 1)


def test_the_accuracy_of_a_resumed_run_is_that_of_the_newest_sound_model(tmp_path: pathlib.Path) -> None:
    path, model = written_with_model(tmp_path / "run")
    edit(path.parent, f"UPDATE models SET checksum = '{checksum_of(model)}', test_accuracy = 0.5")
    edit(
        path.parent,
        "INSERT INTO models(version, server, labels, started_at, published_at, test_accuracy, path, model, ticket) "
        "SELECT 1, server, labels, started_at, published_at, 0.75, 'models/1.pt', model, 1 FROM models",
    )
    state = take_over(path)
    assert state is not None and state.lost == {1} and state.test_accuracy == 0.5
