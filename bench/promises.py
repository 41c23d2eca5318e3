"""What must hold of the record of a run that bench.chaos has finished.

The checks have SQL of their own, apart from the program's: what they find does not depend on its reader of run.db.
"""

import contextlib
import pathlib
import sqlite3
from collections.abc import Sequence

import yaml

from aal.storage.model_files import load_model
from bench.settings import FOLDER

PROMISES = yaml.safe_load((FOLDER / "promises.yaml").read_text(encoding="utf-8"))

PROGRESS = {
    "answers": "select item from answers",
    "models": "select path from models",
    "offers": "select item from offers",
}
Answers = set[tuple[int, int, int]]  # item, annotator, label


def breaches(run: pathlib.Path, seen: Answers) -> list[str]:
    """Checks the promises of the design from `run.db` and the model files; returns those that were broken.

    Args:
        run: the run directory.
        seen: answers that were on disk before a fault.
    """
    with contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        broken = [promise for promise, (sql, value) in PROMISES.items() if db.execute(sql).fetchone() != (value,)]
        for (path,) in db.execute("select path from models"):
            load_model(run / path)
    return broken + (["an answer that was on disk is gone"] if seen - answers_of(run) else [])


def answers_of(run: pathlib.Path) -> Answers:
    """Returns the answers that are on disk."""
    return set(_rows(run, "select item, annotator, label from answers"))


def progress_of(run: pathlib.Path, tables: Sequence[str] = ("answers", "models")) -> int:
    """Returns how many rows of some tables are on disk."""
    return sum(len(_rows(run, PROGRESS[table])) for table in tables)


def _rows(run: pathlib.Path, sql: str) -> list[tuple]:
    """Returns the rows of a query; none while there are no tables."""
    path = f"{(run / 'run.db').resolve().as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path, uri=True)) as db:
        return db.execute(sql).fetchall()
    return []
