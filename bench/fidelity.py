"""How far a simulated run is from a real one: the same config on the local engine, and simulated with measured costs.

Example:
  python -m bench.fidelity --config digits.yaml --seeds 3
"""

import itertools
import json
import sys
from typing import Any

import pandas as pd

from aal.reporting.tables import markdown_table
from bench.rows import parser_of
from bench.run_process import running

FIGURES = {  # of summary.json
    "annotator_wait_s.mean": "annotator wait, mean (s)",
    "annotator_wait_s.p95": "annotator wait, p95 (s)",
    "query_interval_s.mean": "query interval, mean (s)",
    "staleness.mean": "staleness, mean",
    "labels_per_s": "labels per second",
    "trainings": "trainings",
    "wall_s": "wall or virtual time (s)",
    "final_test_accuracy": "final test accuracy",
}
ENGINES = {"local": [], "simulated": ["engine=simulated", "costs=measured"]}


def main(words: list[str] | None = None) -> int:
    """Runs the pairs; prints both engines' figures, mean and range over the seeds, and the ratio of the means."""
    parser = parser_of("bench.fidelity", __doc__)
    parser.add_argument("--config", default="digits.yaml", help="(default: digits.yaml)")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of runs (default: 3)")
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="changes any setting of both runs")
    arguments = parser.parse_intermixed_args(words)
    found: list[dict[str, Any]] = []
    for seed, more in itertools.product(range(arguments.seeds), ENGINES.values()):
        call = ["--config", arguments.config, "--seed", str(seed), *arguments.assignments, *more]
        print("main.py", *call, file=sys.stderr, flush=True)
        with running(call) as run:
            run.wait()
            found.append(json.loads((run.folder / "summary.json").read_text(encoding="utf-8")))
    summaries, rows = pd.json_normalize(found), []
    for key, name in FIGURES.items():
        columns = [summaries[key][summaries["engine"] == engine].astype(float) for engine in ENGINES]
        local, simulated = (column.mean() for column in columns)
        cells = [f"{column.mean():.3g} ({column.min():.3g} to {column.max():.3g})" for column in columns]
        rows.append([name, *cells, f"{simulated / local:.2f}" if local else "-"])
    print(markdown_table(("", "local", "simulated", "simulated / local"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
