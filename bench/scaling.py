"""How annotator wait, staleness and labels per second move with servers, workers, annotators and training time.

Runs of the simulated engine that compute nothing, the last with 64 servers, 1,000 workers, 10,000 annotators and ten
million images. Writes scaling.csv, scaling.png and scaling.pdf into a folder.

Example:
  python -m bench.scaling --out docs
"""

import contextlib
import itertools
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from aal.app.data import imagined_set, split
from aal.app.main import wire
from aal.config.settings import Settings
from aal.coordination.schedules import schedule_of
from aal.engines import engine_named
from aal.engines.base import RunStatus
from aal.reporting import plots
from aal.reporting.progress import Progress
from aal.storage.run_reader import RunReader
from bench.rows import parser_of
from bench.settings import settings_of

MIDDLE = {"servers": 4, "workers": 10, "annotators": 100, "training_s": 200.0}
BATCH = 100  # in 20 s a worker chooses 5 images a second, and 100 annotators label 20
ROUND = 1000  # new labels that start a training: 50 s of work for 100 annotators
BELOW_ZERO = -0.12  # where the axis begins, so that markers of no wait are whole
BOUNDS: tuple[int | None, ...] = (1, 4, None)
SWEEPS: dict[str, tuple[str, tuple[float, ...]]] = {
    "servers": ("Servers m", (1, 2, 3, 4, 5, 8, 16, 64)),
    "workers": ("Workers k", (1, 2, 4, 10, 100, 1000)),
    "annotators": ("Annotators", (10, 30, 100, 300, 1000, 10_000)),
    "training_s": ("A training (virtual s)", (10, 50, 100, 200, 400, 800)),
}
MEASURES = {
    "wait_s": "Mean wait (virtual s)",
    "unseen_rounds": "Unseen labels (rounds)",
    "labels_per_s": "Labels per virtual second",
}

Point = dict[str, Any]  # a setting, and what came of the second half of its labels; a row of scaling.csv


def main(words: list[str] | None = None) -> int:
    """Runs the command."""
    parser = parser_of("bench.scaling", __doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(), help="where to write (default: here)")
    out = parser.parse_args(words).out
    points = []
    for setting in settings():
        points.append(simulate(*setting))
        show(points[-1])
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(points, dtype=object).to_csv(out / "scaling.csv", index=False)
    plots.save(picture(points), out / "scaling")
    return 0


def show(point: Point) -> None:
    """Prints a row."""
    print(*(f"{key}={value}" for key, value in point.items()), flush=True)


def settings() -> Iterator[tuple[Any, ...]]:
    """Gives what `simulate` is to run: one number after another moves, each under three bounds of the staleness."""
    for name, (_, values) in SWEEPS.items():
        for value, bound in itertools.product(values, BOUNDS):
            yield name, bound, {**MIDDLE, name: value}
    # The last is the largest size: a round of 100,000 labels is 50 s of work for 10,000 annotators.
    size = {"servers": 64, "workers": 1000, "annotators": 10_000, "training_s": 1600.0}
    yield "largest", None, size, 10_000_000, 100_000, 10


def simulate(
    name: str,
    bound: int | None,
    size: Point,
    images: int = 100_000,
    threshold: int = ROUND,
    rounds: int = 40,
    **changes: object,
) -> Point:
    """Runs one setting, with `changes`, for some rounds of `threshold` labels; returns it and its figures."""
    workers = size["workers"]
    batch = min(BATCH, threshold // workers)  # a round of all workers is no more than a training waits for
    chosen = settings_of(
        "scaling",
        **{"server_num": size["servers"], "worker_num": workers, "query_batch": batch, "examples": images},
        **{"worker_query_num": rounds * threshold // (workers * batch), "server_train_threshold": threshold},
        **{"costs__per_model_published": size["training_s"], "annotators__number": size["annotators"]} | changes,
        max_staleness=bound,
    )
    began = time.monotonic()
    with simulated(chosen) as run:
        figures = {**measure(run, threshold), "real_s": f"{time.monotonic() - began:.1f}"}
    return {"sweep": name, "bound": bound, **size, "images": images, **figures}


@contextlib.contextmanager
def simulated(chosen: Settings) -> Iterator[pathlib.Path]:
    """Simulates a run of imagined images; gives its directory, which is then removed."""
    image_set = imagined_set(chosen, chosen.examples or 0)
    with tempfile.TemporaryDirectory(prefix="bench-simulated-") as folder:
        run = pathlib.Path(folder)
        parts = split(image_set, chosen, schedule_of(chosen).shard_num(chosen))
        result = engine_named("simulated").run(wire(chosen, run, image_set, parts, resume=None), Progress(None))
        if result.exit_code:
            raise SystemExit(result.exit_code if result.status is RunStatus.INTERRUPTED else result.cause)
        yield run


def measure(run: pathlib.Path, threshold: int) -> dict[str, Any]:
    """Returns the figures of a run; the first half of the labels, in which queues and models settle, does not count.

    `unseen_rounds` are labels that were there when a query was drawn and that its model had not learned from.
    """
    with RunReader(run) as record:
        answered = record.columns("SELECT answered_at FROM queries ORDER BY answered_at")["answered_at"]
        half = float(answered[len(answered) // 2])
        waits = record.columns("SELECT got_at - asked_at AS s FROM waits WHERE got_at >= ?", half)["s"]
        seen = "SELECT drawn_at, labels FROM queries JOIN models USING (version) WHERE drawn_at >= ?"
        drawn, labels = record.columns(seen, half).values()
        initial = record.value("SELECT min(labels) FROM models")
    unseen = initial + np.searchsorted(answered, drawn, "right") - labels
    return {
        "labels": len(answered),
        "wait_s": float(waits.mean()),
        "wait_p99_s": float(np.percentile(waits, 99)),
        "unseen_rounds": float(unseen.mean() / threshold),
        "labels_per_s": (len(answered) - len(answered) // 2) / float(answered[-1] - half),
    }


@mpl.rc_context(plots.STYLE)
def picture(points: list[Point]) -> Figure:
    """Draws one column a sweep, one row a measure, one line a bound."""
    figure = Figure(figsize=(plots.PAGE, 5.6))
    panels = figure.subplots(len(MEASURES), len(SWEEPS), sharex="col", sharey="row")
    for (row, measured), (column, name) in itertools.product(enumerate(MEASURES), enumerate(SWEEPS)):
        axes = panels[row, column]
        for bound, colour, marker in zip(BOUNDS, plots.COLOURS, plots.MARKERS, strict=False):
            mine = [point for point in points if point["sweep"] == name and point["bound"] == bound]
            line = [point[name] for point in mine], [point[measured] for point in mine]
            text = f"max_staleness {'null' if bound is None else bound}"
            axes.plot(*line, color=colour, marker=marker, markersize=3.5, linewidth=1, clip_on=False, label=text)
        axes.set_xscale("log")
        if measured == "labels_per_s":
            axes.set(yscale="log", yticks=(2, 5, 10, 20, 50))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_yscale("symlog", linthresh=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.grid(True)
        panels[-1, column].set_xlabel(SWEEPS[name][0])
        panels[row, 0].set_ylabel(MEASURES[measured])
    for axes in panels[:2, 0]:  # when all is drawn, for that ends the automatic limits
        axes.set_ylim(bottom=BELOW_ZERO)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc=plots.ABOVE, ncols=3)
    return figure


if __name__ == "__main__":
    sys.exit(main())
