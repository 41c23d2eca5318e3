"""How long annotators wait and how stale their queries are, under every rule for when workers may select.

Runs of the simulated engine that compute nothing, over a grid of times. Writes freshness.csv, freshness.png and
freshness.pdf into a folder.

Example:
  python -m bench.freshness --out docs
"""

import itertools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from aal.reporting import plots
from aal.reporting.freshness import when_answered
from aal.reporting.record import read
from aal.storage.run_directory import write_settings
from bench.rows import parser_of
from bench.scaling import simulated
from bench.settings import settings_of

GRID: dict[str, tuple[float, ...]] = {
    "training_s": (5, 50, 500),
    "selection_s": (0.5, 5, 20),
    "annotators": (10, 100),
    "seconds_per_label": (1, 5),
}
FIXED: dict[str, dict[str, Any]] = {"1": {"max_staleness": 1}, "null": {"max_staleness": None}}
RULES: dict[str, dict[str, Any]] = {
    **FIXED,
    "auto, nothing withdrawn": {"max_staleness": "auto", "withdraw_stale": False},
    "auto": {"max_staleness": "auto"},
}
LOOKS = {"1": ("o", 0), "null": ("s", 1), "auto, nothing withdrawn": ("D", 3), "auto": ("*", 2)}
LABELS, BATCH, THRESHOLD, WORKERS, SERVERS = 8000, 100, 500, 10, 2
NEGLIGIBLE = 0.001  # of the time: rules that differ by less do not differ in their waits

Point = dict[str, Any]  # a setting, a rule, and what came of it; a row of freshness.csv


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 where `auto` lies above the line of the fixed rules."""
    parser = parser_of("bench.freshness", __doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(), help="where to write (default: here)")
    out = parser.parse_args(words).out
    points = []
    for setting, rule in itertools.product(settings(), RULES):
        points.append(simulate(setting, rule))
        print(*(f"{key}={value}" for key, value in points[-1].items()), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(points).to_csv(out / "freshness.csv", index=False, float_format="%.6g")
    plots.save(picture(points), out / "freshness")
    above = [point for point in points if point["rule"].startswith("auto") and not is_on_or_below(point, points)]
    for point in above:
        print("above the line:", point)
    return 1 if above else 0


def settings() -> Iterator[dict[str, float]]:
    """Gives every setting of the grid."""
    for values in itertools.product(*GRID.values()):
        yield dict(zip(GRID, values, strict=True))


def simulate(setting: dict[str, float], rule: str, labels: int = LABELS) -> Point:
    """Runs a setting under a rule; returns both and the figures of the whole run, from the first second on."""
    chosen = settings_of(
        "scaling",
        **{"server_num": SERVERS, "worker_num": WORKERS, "query_batch": BATCH, "server_train_threshold": THRESHOLD},
        **{"worker_query_num": labels // (WORKERS * BATCH), "examples": 10 * labels},
        **{"costs__per_model_published": setting["training_s"], "costs__per_selection": setting["selection_s"]},
        **{"costs__relative_std": 0.3, "annotators__number": int(setting["annotators"])},
        **{"annotators__seconds_per_label": setting["seconds_per_label"], **RULES[rule]},
    )
    with simulated(chosen) as run:
        write_settings(run, chosen)
        record = read(run)
    versions, seconds = when_answered(record)
    figures = {"waited": record.waited, "stale_s": float(seconds.mean()), "stale_versions": float(versions.mean())}
    more = {"at_random": int(np.isnan(record.queries["version"]).sum()), "withdrawn": record.withdrawn["withdrawn"]}
    return {**setting, "rule": rule, **figures, **more, "selections": record.selections["batch"].size}


def is_on_or_below(point: Point, points: list[Point]) -> bool:
    """Whether a point is on or below the line of its setting: through the fixed rules, in waits and staleness.

    Where nobody waits under either rule, it is the staleness of the better one.
    """
    mine = {other["rule"]: other for other in points if all(other[key] == point[key] for key in GRID)}
    bound, free = mine["1"], mine["null"]
    longer = bound["waited"] - free["waited"]
    if longer < NEGLIGIBLE:
        return bool(point["stale_s"] <= min(bound["stale_s"], free["stale_s"]))
    slope = (bound["stale_s"] - free["stale_s"]) / longer
    return bool(point["stale_s"] <= free["stale_s"] + slope * (point["waited"] - free["waited"]) + 1e-9)


@mpl.rc_context(plots.STYLE)
def picture(points: list[Point]) -> Figure:
    """Draws wait against staleness, as a share of that of `null` in the same setting: one line a setting."""
    figure = Figure(figsize=(plots.PAGE, 3.6))
    axes = figure.subplots()
    by_setting: dict[tuple[float, ...], dict[str, Point]] = {}
    for point in points:
        by_setting.setdefault(tuple(point[key] for key in GRID), {})[point["rule"]] = point
    for rules in by_setting.values():
        unit = rules["null"]["stale_s"] or 1.0  # where the first model came after the last label, all are 0
        places = {rule: (100 * point["waited"], 100 * point["stale_s"] / unit) for rule, point in rules.items()}
        axes.plot(*zip(*(places[rule] for rule in FIXED), strict=True), color="0.85", linewidth=0.8, zorder=0)
        for rule, (marker, colour) in LOOKS.items():
            size = 9 if marker == "*" else 4
            axes.plot(*places[rule], marker, color=plots.COLOURS[colour], markersize=size, markeredgewidth=0, alpha=0.8)
    for rule, (marker, colour) in LOOKS.items():
        label = rule if rule.startswith("auto") else f"max_staleness {rule}"
        axes.plot([], [], marker, color=plots.COLOURS[colour], markersize=6, label=label)
    axes.set(xlabel="Annotators waited (% of their time)", ylabel="Staleness (% of that of max_staleness null)")
    axes.set(xlim=(-2, 100), ylim=(-4, None))
    axes.grid(True)
    figure.legend(loc=plots.ABOVE, ncols=len(LOOKS))
    return figure


if __name__ == "__main__":
    sys.exit(main())
