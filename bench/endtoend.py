"""End-to-end runs of `cifar10-cpu.yaml`: wall-clock, who works and who waits, and what threads do to it."""

import json
import pathlib
import tempfile
from collections.abc import Iterator
from functools import partial

from aal.config.loading import load
from aal.training.devices import core_count
from bench.images import Source
from bench.rows import Options, Row, alternate
from bench.run_process import running, value, wait_for

CONFIG = "cifar10-cpu.yaml"
# A smaller run, in which labelling and training are in the same proportion: a round of labels takes about a training.
SMALLER = (
    *("initial_size=1000", "val_size=500", "query_batch=40", "server_train_threshold=400", "worker_query_num=2"),
    "annotators.seconds_per_label=1.0",
)


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of whole runs: asynchronous, synchronous, and asynchronous with PyTorch's own threads."""
    words = [] if options.full else list(SMALLER)
    options.note("endtoend", config=" ".join([CONFIG, *words]))
    settings = load(CONFIG, words)
    labelling = settings.budget * settings.annotators.seconds_per_label / settings.annotators.number
    threads = [f"devices.{role}_threads={core_count()}" for role in ("server", "worker")]
    kinds = {"ours": ["mode=async"], "instead": ["mode=sync"]}
    runs = alternate(options.rounds, {kind: partial(_run, source, [*words, *more]) for kind, more in kinds.items()})

    def row(name: str, unit: str, limit: list[float] | None = None) -> Row:
        ours, instead = ([run[name] for run in runs[kind]] for kind in kinds)
        return Row(f"endtoend/{name}", unit, ours, instead, limit)

    yield row("wall", "s", limit=[labelling])
    options.note("endtoend/wall")
    yield row("annotator-wait", "s")
    yield row("annotators-waiting", "% idle")
    yield row("servers-training", "%", limit=[100.0])
    yield row("accuracy", "%")
    options.note("endtoend/threads", cores=core_count())
    default = [_run(source, [*words, *threads])["wall"] for _ in range(options.rounds)]
    yield Row("endtoend/threads", "s", [run["wall"] for run in runs["ours"]], default)


def _run(source: Source, words: list[str]) -> dict[str, float]:
    """Runs once; returns seconds and shares in percent by the name of their row."""
    with tempfile.TemporaryDirectory(prefix="bench-endtoend-") as folder:
        run = pathlib.Path(folder) / "run"
        with running(run, ["--config", CONFIG, *words], source.images.folder) as process:
            wait_for(process, lambda: process.poll() == 0)
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        settings = load(str(run / "config.yaml"))
        wall_s, servers = summary["wall_s"], 1 if settings.mode == "sync" else settings.server_num
        trained = value(run, "select sum(published_at - started_at) from models")
        waited = value(run, "select sum(got_at - asked_at) from waits")
        return {
            "wall": wall_s,
            "annotator-wait": summary["annotator_wait_s"]["mean"],
            "annotators-waiting": 100 * waited / (wall_s * settings.annotators.number),
            "servers-training": 100 * trained / (wall_s * servers),
            "accuracy": 100 * summary["final_test_accuracy"],
        }
