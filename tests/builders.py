"""What several tests build: run folders as the engine leaves them, made without running anything."""

import pathlib
import shutil
import sqlite3
from collections.abc import Sequence

import numpy as np
import torch

import aal
from aal.app.data import Split, save_split
from aal.app.experiments.aal_2021.plans import Run
from aal.config.loading import dump
from aal.storage.model_files import save_model

SCHEMA = pathlib.Path(aal.__file__).parent / "storage" / "schema.sql"
META = {"wall_s": "9.5", "version_python": "3.11.9", "hardware": "a machine"}
VALIDATION = [{"epoch": epoch, "loss": 1.0, "val_accuracy": score} for epoch, score in ((1, None), (2, 0.5), (3, 0.5))]


def finished_run(
    run: Run,
    runs: pathlib.Path,
    accuracies: Sequence[float | None],
    *,
    ended: str = "finished",
    every_s: float = 1.0,
    first_s: float | None = None,
    offered: Sequence[int] = (),
    initial: int = 20,
    epoch: int = 3,
) -> pathlib.Path:
    """Makes the folder of a run.

    Args:
        run: what was planned; the labels are its own, the first `len(accuracies)` of its grid.
        runs: the folder that the run's folder goes to.
        accuracies: test accuracy of each model.
        ended: what the run notes of its end.
        every_s: seconds between two batches of a worker.
        first_s: seconds between the first two, where they differ.
        offered: ids that were offered besides those of the shards.
        initial: the first id of the initial set.
        epoch: that the models say they keep; 3 is right.
    """
    folder = runs / run.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "models").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(run.settings))
    s, grid = run.settings, run.grid[: len(accuracies)]
    start, bought = run.grid[0], grid[-1] - run.grid[0]
    if s.compute == "none":
        start = bought = 8  # what such a run looks at are times, not counts
    first = initial + start
    ids = np.arange(first, first + bought)
    parts = (np.arange(10), np.arange(10, 20), np.arange(initial, first), [ids])
    save_split(Split(*parts, np.zeros(1, np.float32), np.ones(1, np.float32)), folder / "split.npz")
    examples = [(int(item), "initial", None, 0) for item in parts[2]]
    items = [int(item) for item in (*ids, *offered)]
    versions = [min(number // s.server_train_threshold, len(grid) - 1) for number in range(len(items))]
    offers = [(item, 0, "margin", versions[number], 0, number) for number, item in enumerate(items)]
    answers = [(number, item, 0, 0, number + 0.5) for number, item in enumerate(items)]
    models = [
        (version, 0, labels, float(version), version + 0.5, 0.5, accuracy, f"models/{version}.pt", "cnn", 3, version)
        for version, (labels, accuracy) in enumerate(zip(grid, accuracies, strict=True))
    ]
    late = 0.0 if first_s is None else first_s - every_s
    times = [batch * every_s + (late if batch else 0.0) for batch in range(4)]
    selections = [(0, batch, "margin", 0, 1, at, at) for batch, at in enumerate(times)]
    tables: dict[str, list[tuple]] = {"examples": examples, "offers": offers, "models": models}
    tables |= {"selections": selections, "answers": answers}
    tables["waits"] = [(0, number - 0.5, number, item) for number, item in enumerate(items)]
    with sqlite3.connect(folder / "run.db") as db:
        db.executescript(SCHEMA.read_text())
        for table, rows in tables.items():
            for row in rows:
                db.execute(f"insert into {table} values({','.join('?' * len(row))})", row)
        db.executemany("insert into meta values(?,?)", [*META.items(), ("ended", ended)])
    db.close()
    if s.compute == "full":
        for version, labels in enumerate(grid):
            _save(folder / "models" / f"{version}.pt", labels, epoch)
    return folder


def _save(path: pathlib.Path, labels: int, epoch: int) -> None:
    architecture = {"name": "cnn", "classes": 10, "channels": 1, "image_size": 8, "width": 1.0}
    about = {"data_type": "digits", "image_size": None, "test_share": None, "seed": 0, "images": "digits"}
    payload = {
        **{"state_dict": {"weight": torch.zeros(1)}, "architecture": architecture, "data": about},
        **{"normalisation": {"mean": [0.0], "std": [1.0]}, "class_names": ["0"], "labels": labels},
        **{"epoch": epoch, "history": VALIDATION},
    }
    save_model(path, payload)
