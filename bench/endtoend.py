"""Whole runs of `cifar10-cpu.yaml`: wall-clock, who works and who waits, and what the threads of a process do to it."""

import json
import pathlib
import tempfile
from collections.abc import Iterator

from aal.loading import load
from bench.images import Source
from bench.options import Options
from bench.table import Row
from bench.whole import running, value, wait_for

CONFIG = "cifar10-cpu.yaml"
# A smaller run, in which labelling and training are in the same proportion: a round of labels takes about a training.
SMALLER = (
    *("initial_size=1000", "val_size=500", "query_batch=40", "server_train_threshold=400", "worker_query_num=3"),
    "annotators.seconds_per_label=1.0",
)
TOO_LONG = 2  # times as long as the run with our threads: then the run with PyTorch's is ended


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of whole runs, one of each kind: they take minutes."""
    words = [] if options.full else list(SMALLER)
    options.notes.append(f"endtoend: {CONFIG} {' '.join(words)}".strip() + "; instead is mode=sync, one run of each")
    settings = load(CONFIG, words)
    ours, instead = (_run(source, [*words, f"mode={mode}"]) for mode in ("async", "sync"))
    labelling = settings.budget * settings.annotators.seconds_per_label / settings.annotators.number
    yield Row("endtoend/wall", "s", [ours["wall_s"]], [instead["wall_s"]], [labelling])
    options.notes.append("endtoend/wall: the limit is the people's own time, if they never waited")
    yield Row("endtoend/annotator-wait", "s", [ours["wait_s"]], [instead["wait_s"]])
    yield Row("endtoend/annotators-waiting", "% idle", [ours["waiting"]], [instead["waiting"]])
    yield Row("endtoend/servers-training", "%", [ours["training"]], [instead["training"]], [100.0])
    yield Row("endtoend/accuracy", "%", [ours["accuracy"]], [instead["accuracy"]])
    threads = [f"devices.server_threads={options.cores}", f"devices.worker_threads={options.cores}"]
    try:
        default = _run(source, [*words, *threads], TOO_LONG * ours["wall_s"])["wall_s"]
    except TimeoutError:
        default = TOO_LONG * ours["wall_s"]
        options.notes.append(
            f"endtoend/threads: the run with {options.cores} threads a process was ended after that time"
        )
    options.notes.append(f"endtoend/threads: instead is PyTorch's default, {options.cores} threads in every process")
    yield Row("endtoend/threads", "s", [ours["wall_s"]], [default])


def _run(source: Source, words: list[str], limit_s: float = 3600.0) -> dict[str, float]:
    """Runs once and returns seconds and shares, in percent.

    Raises:
        TimeoutError: it took longer than `limit_s`.
    """
    with tempfile.TemporaryDirectory(prefix="bench-endtoend-") as folder:
        run = pathlib.Path(folder) / "run"
        with running(run, ["--config", CONFIG, *words], source.images.folder) as process:
            wait_for(process, lambda: process.poll() == 0, limit_s, poll_s=0.5)
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        settings = load(str(run / "config.yaml"))
        wall_s, servers = summary["wall_s"], 1 if settings.mode == "sync" else settings.server_num
        trained = value(run, "select sum(published_at - started_at) from models")
        waited = value(run, "select sum(got_at - asked_at) from waits")
        return {
            "wall_s": wall_s,
            "wait_s": summary["annotator_wait_s"]["mean"],
            "waiting": 100 * waited / (wall_s * settings.annotators.number),
            "training": 100 * trained / (wall_s * servers),
            "accuracy": 100 * summary["final_test_accuracy"],
        }
