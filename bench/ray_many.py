"""A run with many workers and annotators on a Ray cluster whose machines are all this one, and the same run locally.

A small network on the digits, so that what is measured is Ray and the hub: the workers share eight processes, and each
annotator takes 60 s a label, so that 1,000 of them could give 17 labels a second.
"""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from bench.machines import Machines
from bench.rows import Row
from bench.run_process import running

PROCESSES, BATCH, LABEL_S, MACHINES = 8, 15, 60.0, 4


def rows(workers: int, annotators: int) -> Iterator[Row]:
    """Gives labels a second and the share of their time that annotators wait; the limit is the local engine."""
    words = _words(workers, annotators)
    with _cluster() as chosen:
        ours = _summary([*words, *chosen])
    local = _summary(words)
    name = f"ray/{workers}-workers-{annotators}-annotators"
    yield Row(f"{name}/labels", "labels/s", [ours["labels_per_s"]], limit=[local["labels_per_s"]])
    waits = [[100 * summary["annotators_waited"]] for summary in (ours, local)]
    yield Row(f"{name}/waits", "% idle", waits[0], limit=waits[1])


def _summary(words: list[str]) -> dict[str, Any]:
    """Runs it; returns its summary."""
    with running(words) as run:
        run.wait()
        summary: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
        return summary


def _words(workers: int, annotators: int) -> list[str]:
    """Returns the settings: each worker offers one batch."""
    return [
        *("--config", "digits.yaml", "models=cnn", "width=0.25", "server_num=1", f"worker_num={workers}"),
        *("worker_query_num=1", f"query_batch={BATCH}", f"server_train_threshold={workers * BATCH // 4}"),
        *("initial_size=60", "val_size=20", "training.epochs=2", "max_staleness=null", "devices.server_threads=1"),
        *(f"annotators.number={annotators}", f"annotators.seconds_per_label={LABEL_S}"),
        f"devices.worker_processes={min(PROCESSES, workers)}",
    ]


@contextlib.contextmanager
def _cluster() -> Iterator[list[str]]:
    """Gives the settings of a run on machines that share no folder."""
    with tempfile.TemporaryDirectory(prefix="bench-many-", ignore_cleanup_errors=True) as folder:
        made = Machines(pathlib.Path(folder), {f"machine-{number}": 4 for number in range(MACHINES)})
        try:
            yield ["engine=ray", f"ray.address={made.address}", "ray.shared_folder=false"]
        finally:
            made.close()
