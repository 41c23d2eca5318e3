"""How soon a run begins: seconds from the command to the first query and to the first annotator served."""

import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from bench.images import Source
from bench.rows import Options, Row, alternate
from bench.run_process import ROOT, running, value, wait_for

# A server and ten workers on the digits, so that a training takes next to no time; annotators who take some.
WORDS = [
    *("--config", "digits.yaml", "server_num=1", "worker_num=10", "worker_query_num=2", "server_train_threshold=100"),
    *("training.epochs=1", "annotators.seconds_per_label=1"),
]
MOMENTS = {"first-query": "select count(*) from queries", "first-annotator": "select count(*) from waits"}
FIRST_TRAINING = "select published_at - started_at from models where version = 0"
MISTAKE = ["main.py", "--config", "digits.yaml", "worker_nun=3"]


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of the start, in seconds."""
    starts = alternate(options.rounds, {"ours": start, "instead": lambda: start(spawn=True)})
    least = [_import_torch() + found["training"] for found in starts["ours"]]
    for moment in MOMENTS:
        ours, instead = ([found[moment] for found in starts[key]] for key in ("ours", "instead"))
        yield Row(f"startup/{moment}", "s", ours, instead, least)
    options.note("startup")
    mistakes = alternate(options.rounds, {"ours": lambda: _seconds_of(MISTAKE, 2), "instead": _import_torch})
    yield Row("startup/config-error", "s", **mistakes)
    options.note("startup/config-error")


def start(spawn: bool = False) -> dict[str, float]:
    """Returns the seconds to each moment, and those of the first training; the journal may be 0.05 s late."""
    with tempfile.TemporaryDirectory(prefix="bench-startup-") as folder:
        run, found, started_at = pathlib.Path(folder) / "run", {}, time.monotonic()
        with running(run, WORDS, spawn=spawn) as process:
            for moment, query in MOMENTS.items():
                wait_for(process, lambda query=query: value(run, query) > 0)  # type: ignore[misc]
                found[moment] = time.monotonic() - started_at
            found["training"] = value(run, FIRST_TRAINING)
    return found


def _import_torch() -> float:
    return _seconds_of(["-c", "import torch"], 0)


def _seconds_of(words: list[str], code: int) -> float:
    started_at = time.monotonic()
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)  # noqa: S603 - our own
    assert ended.returncode == code, ended.stderr.decode()
    return time.monotonic() - started_at
