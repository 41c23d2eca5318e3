"""A run with many workers and annotators on a Ray cluster whose machines are all this one, and the same run locally.

A small network on the digits, so that what is measured is Ray and the hub: 64 workers in eight processes, 1,000
annotators who take 60 s a label, and so give about 17 labels a second.

Example:
  python -m bench.ray_many
"""

import contextlib
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

from bench.machines import Machines
from bench.rows import at_least_one, parser_of
from bench.run_process import running

PROCESSES, LABEL_S = 8, 60.0


def main(words: list[str] | None = None) -> int:
    """Runs the command."""
    parser = parser_of("bench.ray_many", __doc__)
    parser.add_argument("--workers", type=at_least_one, default=64, help="(default: 64)")
    parser.add_argument("--annotators", type=at_least_one, default=1000, help="(default: 1,000)")
    parser.add_argument("--machines", type=at_least_one, default=4, help="(default: 4)")
    given = parser.parse_args(words)
    for name, where in (("local", contextlib.nullcontext([])), ("ray", _cluster(given.machines))):
        with where as chosen, running([*_words(given.workers, given.annotators), *chosen]) as run:
            began = time.monotonic()
            run.wait()
            took = time.monotonic() - began
            summary = json.loads((run.folder / "summary.json").read_text())
        waited = summary["annotators_waited"]
        print(
            f"{name}: {summary['labels']['bought']} labels, {summary['labels_per_s']:.1f} a second, annotators waited "
            f"{100 * waited:.1f} %, {took:.0f} s from the command to the report",
            flush=True,
        )
    return 0


def _words(workers: int, annotators: int) -> list[str]:
    """Returns the settings: each worker offers one batch."""
    return [
        *("--config", "digits.yaml", "models=cnn", "width=0.25", "server_num=1", f"worker_num={workers}"),
        *("worker_query_num=1", "query_batch=15", "server_train_threshold=240", "initial_size=60", "val_size=20"),
        *("training.epochs=2", "max_staleness=null", f"annotators.number={annotators}", "devices.server_threads=1"),
        *(f"annotators.seconds_per_label={LABEL_S}", f"devices.worker_processes={PROCESSES}"),
    ]


@contextlib.contextmanager
def _cluster(machines: int) -> Iterator[list[str]]:
    """Gives the settings of a run on machines that share no folder."""
    with tempfile.TemporaryDirectory(prefix="bench-many-", ignore_cleanup_errors=True) as folder:
        made = Machines(pathlib.Path(folder), {f"machine-{number}": 4 for number in range(machines)})
        try:
            yield ["engine=ray", f"ray.address={made.address}", "ray.shared_folder=false"]
        finally:
            made.close()


if __name__ == "__main__":
    sys.exit(main())
