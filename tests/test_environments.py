"""A short part of what `python -m bench.fuzz environments` does at length: commands where something is taken away."""

import pathlib

import pytest

from bench.fuzz.environments import lacks, problems, start
from tests.builders import META, make_run, model

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("environment", "command", "code"),
    [
        ("no-errors", "mistake", 2),
        ("ascii", "export", 0),
        ("odd-name", "export", 0),
        ("long-name", "export", 2),
        ("folder-gone", "run", 2),
        ("little-memory", "eval", 1),
        ("folder-gone", "eval", 2),
        ("few-files", "export", 0),
        ("mount-folder-read-only", "export", 2),
        ("mount-folder-full", "export", 0),
        ("root-folder-not-allowed", "export", 2),
        ("root-run-not-allowed", "export", 2),
    ],
)
def test_a_command_ends_by_itself_and_says_why(
    environment: str, command: str, code: int, tmp_path: pathlib.Path
) -> None:
    if why := lacks(environment):
        pytest.skip(why)
    tables = {"examples": [(1, "initial", 0, 0)], "models": [model(0, 0, 1, 0.0, 1.0, 0.5)]}
    config = {"data_type": "digits", "models": "cnn", "initial_size": 1, "val_size": 0, "server_train_threshold": 1}
    finished = make_run(tmp_path / "finished", config, **tables, meta=[*META.items(), ("classes", '["0", "1"]')])
    ended = start(environment, command, finished, tmp_path / "environment")
    assert not list(problems(environment, ended)), ended
    assert ended.code == code, ended
