"""The Python API: settings from names, dicts and objects; what a run left behind as data frames."""

import asyncio
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import aal
from aal.api import settings_from
from aal.reporting.record import column
from aal.storage.acknowledged import NAME, TEXT
from tests.builders import make_run, model

pytestmark = pytest.mark.unit
ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICK: dict[str, Any] = {
    **{"engine": "simulated", "worker_query_num": 1, "annotators": {"number": 30, "seconds_per_label": 0.05}},
    "training": {"epochs": 1, "validate_after": 0},
}


class Disagreement:
    """A label source of one's own."""

    def __init__(self, task: object) -> None:
        self.task = task

    async def annotate(self, client: object, clock: object) -> None:
        """Labels nothing."""


def test_importing_aal_is_light() -> None:
    code = (
        "import sys, aal\n"
        "assert aal.UserError.__name__ == 'UserError' and not hasattr(aal, 'nothing')\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)


def test_changes_reach_into_groups() -> None:
    changes: dict[str, Any] = {
        "training": {"epochs": 3},
        "annotators.number": np.int64(4),
        "seed": 5,
        "name": "déjà-vu",
    }
    settings = settings_from("digits.yaml", changes)
    assert (settings.training.epochs, settings.training.batch_size) == (3, 32)  # the others are the config's
    assert (settings.annotators.number, settings.seed, settings.name) == (4, 5, "déjà-vu")


def test_dicts_and_paths_are_settings_too(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("data_type: digits\nmodels: cnn\n")
    by_path = settings_from(config, {})
    assert by_path.name == "mine"
    tree = {"data_type": "digits", "models": ["cnn"], "data_dir": tmp_path, "name": "mine"}
    assert settings_from(tree, {"data_dir": by_path.data_dir}) == by_path


def test_all_mistakes_are_reported_with_their_origin() -> None:
    with pytest.raises(aal.UserError) as error:
        settings_from({"data_type": "digits", "models": "cnn", "sed": 1}, {"training.epochs": "many"})
    assert [problem.partition(": ")[0] for problem in sorted(error.value.problems)] == ["argument", "settings"]


def test_objects_stand_for_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"data_type": "digits", "models": "cnn", "name": "mine"}
    settings = settings_from(tree, {"annotators": {"source": Disagreement}})
    assert settings.annotators.source == "tests.test_api:Disagreement"

    class Local:
        """Cannot be named."""

    with pytest.raises(aal.UserError, match="at the top of a module"):
        settings_from(tree, {"annotators": {"source": Local}})
    monkeypatch.setattr(Disagreement, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Disagreement", Disagreement, raising=False)
    with pytest.raises(aal.UserError, match=r"annotators\.source: .* cannot import"):
        settings_from(tree, {"annotators": {"source": Disagreement}})
    simulated = settings_from(tree, {"annotators": {"source": Disagreement}, "engine": "simulated"})
    assert simulated.annotators.source == "__main__:Disagreement"


def test_a_run_is_a_set_of_data_frames(tmp_path: pathlib.Path) -> None:
    path = make_run(
        tmp_path / "run",
        {**aal_config(), "worker_num": 2, "query_batch": 1, "server_train_threshold": 1},
        examples=[(1, "initial", None, 4), (2, "shard", 0, 5), (3, "shard", 1, 6)],
        models=[model(0, 0, 1, 0.0, 1.0, 0.25)],
        offers=[(2, 0, "margin", 0, 0, 1.5), (3, 1, "margin", 0, 0, 1.5)],
        waits=[(0, 0.0, 1.5, 2)],
        answers=[(0, 2, 0, 5, 2.5)],
    )
    run = aal.load_run(path)
    assert run.curve["test_accuracy"].tolist() == [0.25] == column([run.summary["curve"][0]], "test_accuracy").tolist()
    assert run.labels[["id", "label", "class", "source"]].to_dict("list") == {
        "id": [1, 2],
        "label": [4, 5],
        "class": ["4", "5"],
        "source": ["initial", "annotator"],
    }
    assert run.labels["annotator"].isna().tolist() == [True, False]
    assert run.queries["label"].isna().tolist() == [False, True]  # of ids 2 and 3
    assert (run.waits["got_at"] - run.waits["asked_at"]).tolist() == [1.5]
    assert run.models[["version", "model"]].to_dict("list") == {"version": [0], "model": ["cnn"]}
    assert run.report() == path / "report" / "report.md"
    with pytest.raises(aal.UserError, match="it has no run"):
        aal.load_run(tmp_path)
    with pytest.raises(aal.UserError, match="no model 3"):
        run.load_model(3)


def test_a_record_that_has_lost_answers_is_not_loaded(tmp_path: pathlib.Path) -> None:
    path = make_run(tmp_path / "run", aal_config())
    run = aal.load_run(path)
    (path / NAME).write_text(TEXT.format(count=3, checksum=1))
    reads = (lambda: aal.load_run(path), lambda: run.queries, lambda: run.waits, lambda: run.models, run.load_model)
    for read in reads:
        with pytest.raises(aal.UserError, match="holds 0 of the 3 answers that were acknowledged"):
            read()


def test_a_record_without_tables_is_named_as_such(tmp_path: pathlib.Path) -> None:
    path = make_run(tmp_path / "run", aal_config())
    (path / "run.db").write_bytes(b"")
    with pytest.raises(aal.UserError, match=r"has not begun yet, or its run\.db-wal is missing"):
        aal.load_run(path)
    (path / "run.db").unlink()
    with pytest.raises(aal.UserError, match=r"has not begun yet; .* --resume .*run goes on with it"):
        aal.load_run(path)


def aal_config() -> dict[str, Any]:
    return {"data_type": "digits", "mode": "async", "engine": "local", "seed": 7}


@pytest.mark.process
def test_a_run_inside_an_event_loop_as_in_a_notebook(tmp_path: pathlib.Path) -> None:
    async def cell() -> aal.Run:
        await asyncio.sleep(0)
        run = aal.run("digits.yaml", out=tmp_path / "run", progress=False, compute="none", **QUICK)
        await asyncio.sleep(0)  # the loop goes on
        return run

    assert len(asyncio.run(cell()).labels) == 120


@pytest.mark.process
def test_a_run_from_python(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = aal.run("digits.yaml", out=tmp_path / "run", seed=3, progress=False, **QUICK)
    assert "labels," not in capfd.readouterr().err
    assert run.settings.seed == run.summary["seed"] == 3
    assert len(run.labels) == run.summary["labels"]["total"] == 120
    assert run.labels["id"].is_unique
    network, payload = run.load_model()
    assert not network.training and payload["labels"] == 120
    with pytest.raises(aal.UserError, match="not an empty"):
        aal.run("digits.yaml", out=tmp_path / "run")
