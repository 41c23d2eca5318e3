"""How far a simulated run is from a real one: the same config on the local engine, and simulated with measured costs.

Example:
  python -m bench.fidelity --config digits.yaml --seeds 3
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIGURES = {
    "annotator wait, mean (s)": lambda s: s["annotator_wait_s"]["mean"],
    "annotator wait, p95 (s)": lambda s: s["annotator_wait_s"]["p95"],
    "query interval, mean (s)": lambda s: s["query_interval_s"]["mean"],
    "staleness, mean": lambda s: s["staleness"]["mean"],
    "labels per second": lambda s: s["labels_per_s"],
    "trainings": lambda s: s["trainings"],
    "wall or virtual time (s)": lambda s: s["wall_s"],
    "final test accuracy": lambda s: s["final_test_accuracy"],
}
ENGINES = {"local": [], "simulated": ["engine=simulated", "costs=measured"]}


def main(words: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fidelity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="digits.yaml", help="(default: digits.yaml)")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of runs (default: 3)")
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="changes any setting of both runs")
    arguments = parser.parse_intermixed_args(words)
    with tempfile.TemporaryDirectory(prefix="fidelity-") as folder:
        found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
        for seed in range(arguments.seeds):
            for engine, more in ENGINES.items():
                run = pathlib.Path(folder) / f"{engine}-{seed}"
                settings = [*arguments.assignments, *more]
                found[engine].append(_summary(arguments.config, seed, run, settings))
    print(table(found))
    return 0


def _summary(config: str, seed: int, run: pathlib.Path, settings: list[str]) -> dict[str, Any]:
    call = [sys.executable, "main.py", "--config", config, "--seed", str(seed), "--out", str(run), *settings]
    print(*call[1:], file=sys.stderr, flush=True)
    subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the figures of both engines, mean and range over the seeds, and the ratio of the means."""
    lines = ["| | local | simulated | simulated / local |", "|---|---|---|---|"]
    for name, figure in FIGURES.items():
        values = [[float(figure(summary)) for summary in found[engine]] for engine in ENGINES]
        means = [statistics.mean(column) for column in values]
        cells = [f"{mean:.3g} ({min(some):.3g} to {max(some):.3g})" for mean, some in zip(means, values, strict=True)]
        ratio = f"{means[1] / means[0]:.2f}" if means[0] else "-"
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
