"""How far a simulated run is from a real one: the same config on the local engine, and simulated with measured costs.

Example:
  python -m bench.fidelity --config digits.yaml --seeds 3
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from aal.reporting.tables import markdown_table
from bench.rows import parser_of
from bench.run_process import ROOT

FIGURES = {  # of summary.json
    "annotator wait, mean (s)": ("annotator_wait_s", "mean"),
    "annotator wait, p95 (s)": ("annotator_wait_s", "p95"),
    "query interval, mean (s)": ("query_interval_s", "mean"),
    "staleness, mean": ("staleness", "mean"),
    "labels per second": ("labels_per_s",),
    "trainings": ("trainings",),
    "wall or virtual time (s)": ("wall_s",),
    "final test accuracy": ("final_test_accuracy",),
}
ENGINES = {"local": [], "simulated": ["engine=simulated", "costs=measured"]}


def main(words: list[str] | None = None) -> int:
    """Runs the command."""
    parser = parser_of("bench.fidelity", __doc__)
    parser.add_argument("--config", default="digits.yaml", help="(default: digits.yaml)")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of runs (default: 3)")
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="changes any setting of both runs")
    arguments = parser.parse_intermixed_args(words)
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="fidelity-") as folder:
        for seed in range(arguments.seeds):
            for engine, more in ENGINES.items():
                run = pathlib.Path(folder) / f"{engine}-{seed}"
                call = ["main.py", "--config", arguments.config, "--seed", str(seed), "--out", str(run)]
                call += [*arguments.assignments, *more]
                print(*call, file=sys.stderr, flush=True)
                subprocess.run([sys.executable, *call], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
                found[engine].append(json.loads((run / "summary.json").read_text(encoding="utf-8")))
    print(table(found))
    return 0


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the figures of both engines, mean and range over the seeds, and the ratio of the means."""
    rows = []
    for name, (key, *inner) in FIGURES.items():
        values = [[float(one[key][inner[0]] if inner else one[key]) for one in runs] for runs in found.values()]
        local, simulated = map(statistics.mean, values)
        cells = [f"{statistics.mean(some):.3g} ({min(some):.3g} to {max(some):.3g})" for some in values]
        rows.append([name, *cells, f"{simulated / local:.2f}" if local else "-"])
    return markdown_table(("", "local", "simulated", "simulated / local"), rows)


if __name__ == "__main__":
    sys.exit(main())
