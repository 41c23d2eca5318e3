"""How annotator wait, staleness and labels per second move with servers, workers, annotators and training time.

Runs of the simulated engine that compute nothing, the last with 64 servers, 1,000 workers, 10,000 annotators and ten
million images. Writes scaling.csv, scaling.png and scaling.pdf into a folder.

Example:
  python -m bench.scaling --out docs
"""

import argparse
import csv
import itertools
import pathlib
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from aal.app.data import imagined_set, split
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.parts import Parts
from aal.engines.local.supervisor import Role
from aal.engines.simulated.engine import run_simulated
from aal.reporting import plots as figures
from aal.reporting.progress import Progress

SERVERS, WORKERS, ANNOTATORS, TRAINING_S = 4, 10, 100, 200.0
LABEL_S, SELECTION_S, BATCH = 5.0, 20.0, 100  # a worker chooses 5 images a second, 100 annotators label 20
ROUND = 1000  # new labels that start a training: 50 s of work for 100 annotators
ROUNDS = 40
BOUNDS: tuple[int | None, ...] = (1, 4, None)
SWEEPS: dict[str, tuple[str, tuple[float, ...]]] = {
    "servers": ("Servers m", (1, 2, 3, 4, 5, 8, 16, 64)),
    "workers": ("Workers k", (1, 2, 4, 10, 100, 1000)),
    "annotators": ("Annotators", (10, 30, 100, 300, 1000, 10_000)),
    "training_s": ("Seconds of a training", (10, 50, 100, 200, 400, 800)),
}
MEASURES = {
    "wait_s": "Mean wait (s)",
    "unseen_rounds": "Unseen labels (rounds)",
    "labels_per_s": "Labels per second",
}


@dataclass(frozen=True)
class Point:
    """A setting and what came of the second half of its labels.

    Attributes:
        sweep: which setting moves.
        bound: `max_staleness`; None for free workers.
        servers, workers, annotators, training_s, images: the setting.
        labels: bought in all.
        wait_s, wait_p99_s: of an annotator for a query.
        unseen_rounds: labels that were there when a query was drawn and that its model had not learned from.
        labels_per_s: answers.
        real_s: seconds that the simulation took.
    """

    sweep: str
    bound: int | None
    servers: int
    workers: int
    annotators: int
    training_s: float
    images: int
    labels: int
    wait_s: float
    wait_p99_s: float
    unseen_rounds: float
    labels_per_s: float
    real_s: float


def main(words: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(), help="where to write (default: here)")
    arguments = parser.parse_args(words)
    points = []
    for point in itertools.chain(sweep(), largest()):
        print(point, flush=True)
        points.append(point)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "scaling.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(vars(points[0])))
        writer.writeheader()
        writer.writerows({**vars(point), "real_s": f"{point.real_s:.1f}"} for point in points)
    figures.save(picture(points), arguments.out / "scaling")
    return 0


def sweep() -> Iterator[Point]:
    """One setting after another moves, each under three bounds of the staleness."""
    for name, (_, values) in SWEEPS.items():
        for value in values:
            for bound in BOUNDS:
                moved: dict[str, Any] = {name: value}
                yield simulate(name, bound, **moved)


def largest() -> Iterator[Point]:
    """The largest size: a round of 100,000 labels is 50 s of work for 10,000 annotators."""
    size: dict[str, Any] = {"servers": 64, "workers": 1000, "annotators": 10_000, "training_s": 1600.0}
    yield simulate("largest", None, **size, images=10_000_000, threshold=100_000, rounds=10)


def simulate(
    name: str,
    bound: int | None,
    *,
    servers: int = SERVERS,
    workers: int = WORKERS,
    annotators: int = ANNOTATORS,
    training_s: float = TRAINING_S,
    images: int = 100_000,
    threshold: int = ROUND,
    rounds: int = ROUNDS,
) -> Point:
    """Runs one setting; trainings cost the same whatever their labels, so that the rules are easy to see."""
    batch = min(BATCH, threshold // workers)  # a round of all workers is no more than a training waits for
    tree: dict[str, Any] = {
        **{"data_type": "cifar-10", "engine": "simulated", "compute": "none", "examples": images},
        **{"initial_size": 100, "val_size": 0, "server_num": servers, "worker_num": workers, "query_batch": batch},
        **{"worker_query_num": rounds * threshold // (workers * batch), "server_train_threshold": threshold},
        **{"max_staleness": bound, "assignment_type": "DA", "query_strategy": "random"},
        "costs": {"per_image_trained": 0.0, "per_selection": SELECTION_S, "per_model_published": training_s},
        "annotators": {"number": annotators, "seconds_per_label": LABEL_S},
    }
    settings = resolve(tree, "bench.scaling")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        run(settings, pathlib.Path(folder))
        measured = measure(pathlib.Path(folder) / "run.db", threshold)
    size: dict[str, Any] = {"servers": servers, "workers": workers, "annotators": annotators, "training_s": training_s}
    return Point(name, bound, **size, images=images, **measured, real_s=time.monotonic() - began)


def run(settings: Settings, folder: pathlib.Path) -> None:
    """Runs the roles without images."""
    images = imagined_set(settings, settings.examples or 0)
    begin = split(images, settings, 1 if settings.mode == "sync" else settings.worker_num)
    parts = Parts(len(images.classes), images.labels, begin.test, begin.validation, begin.initial, begin.shards)
    roles = [
        Role("server", "aal.app.server_train:start_costed", settings.server_num, (0, len(begin.test))),
        Role("worker", "aal.app.work_query:start_costed", settings.worker_num, (settings.worker_num,)),
        Role("annotators", "aal.annotators.simulated:start", 1, (images.labels, len(images.classes))),
    ]
    run_simulated(settings, folder, parts, roles, {}, Progress())


def measure(path: pathlib.Path, threshold: int) -> dict[str, Any]:
    """Returns the figures of a run; the first half of the labels, in which queues and models settle, does not count."""
    with closing(sqlite3.connect(path)) as db:
        answered = np.array(db.execute("select answered_at from queries order by answered_at").fetchall())[:, 0]
        half = answered[len(answered) // 2]
        asked, got = np.array(db.execute("select asked_at, got_at from waits where got_at >= ?", (half,)).fetchall()).T
        seen = "select drawn_at, labels from queries join models using (version) where drawn_at >= ?"
        drawn, labels = np.array(db.execute(seen, (half,)).fetchall()).T
        initial = db.execute("select min(labels) from models").fetchone()[0]
    unseen = initial + np.searchsorted(answered, drawn, "right") - labels
    return {
        "labels": len(answered),
        "wait_s": float((got - asked).mean()),
        "wait_p99_s": float(np.percentile(got - asked, 99)),
        "unseen_rounds": float(unseen.mean() / threshold),
        "labels_per_s": (len(answered) - len(answered) // 2) / float(answered[-1] - half),
    }


@mpl.rc_context(figures.STYLE)
def picture(points: list[Point]) -> Figure:
    """One column a sweep, one row a measure, one line a bound."""
    figure = Figure(figsize=(figures.PAGE, 5.6))
    panels = figure.subplots(len(MEASURES), len(SWEEPS), sharex="col", sharey="row", squeeze=False)
    for column, (name, (label, _)) in enumerate(SWEEPS.items()):
        for row, (measured, title) in enumerate(MEASURES.items()):
            axes = panels[row][column]
            for number, bound in enumerate(BOUNDS):
                mine = [point for point in points if point.sweep == name and point.bound == bound]
                axes.plot(
                    [getattr(point, name) for point in mine],
                    [getattr(point, measured) for point in mine],
                    color=figures.COLOURS[number],
                    marker=figures.MARKERS[number],
                    markersize=3.5,
                    linewidth=1,
                    label="free" if bound is None else f"max_staleness {bound}",
                )
            axes.set_xscale("log")
            if measured == "labels_per_s":
                axes.set_yscale("log")
                axes.set_yticks((2, 5, 10, 20, 50))
                axes.yaxis.set_minor_formatter(NullFormatter())
            else:
                axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.grid(True)
            if column == 0:
                axes.set_ylabel(title)
            if row == len(MEASURES) - 1:
                axes.set_xlabel(label)
    for row in range(2):
        panels[row][0].set_ylim(bottom=0)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc=figures.ABOVE, ncols=3)
    return figure


if __name__ == "__main__":
    sys.exit(main())
