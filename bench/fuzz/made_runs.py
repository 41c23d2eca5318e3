"""Small runs to be damaged, each made once when a case first asks for it."""

import contextlib
import functools
import pathlib
import shutil
import sqlite3
from dataclasses import dataclass

import psutil

from bench.run_process import running, survivors
from bench.settings import WORDS

KINDS = {  # of runs: the settings, and how many answers are on disk when it is killed
    "finished": (["annotators.seconds_per_label=0.01"], None),
    "killed": (["annotators.seconds_per_label=0.3", "max_staleness=null"], 12),
    "simulated": (["engine=simulated", "annotators.seconds_per_label=0.01"], None),
}
LIMIT_S = 200.0  # that a run may take
Answers = set[tuple[int, int, int]]  # item, annotator, label


@dataclass(frozen=True)
class Made:
    """A run.

    Attributes:
        folder: its directory.
        earlier: a copy of it from an earlier moment.
        answers: that were acknowledged.
    """

    folder: pathlib.Path
    earlier: pathlib.Path
    answers: Answers


@functools.cache
def made_run(kind: str, place: pathlib.Path) -> Made:
    """Makes a run of one of KINDS in a folder."""
    folder, earlier = place / kind, place / f"{kind}-earlier"
    words, until = KINDS[kind]
    place.mkdir(exist_ok=True)
    with running([*WORDS["fuzz"], *words, f"data_dir={place / 'images'}"], folder) as run:

        def has(answers: int) -> bool:
            return run.process.poll() == 0 or run.value("SELECT count(*) FROM answers") >= answers

        run.wait(lambda: has(3), LIMIT_S)
        copy_run(folder, earlier)
        run.wait(None if until is None else lambda: has(until), LIMIT_S)
        if run.process.poll() is None:
            everybody = psutil.Process(run.process.pid).children(recursive=True)
            run.process.kill()
            survivors(everybody, LIMIT_S)
    whole = place / f"{kind}-whole"
    copy_run(folder, whole)  # reading it takes in its write-ahead log
    return Made(folder, earlier, answers_of(whole))


def answers_of(run: pathlib.Path) -> Answers:
    """Returns the answers of a run, with its write-ahead log taken in; none where it cannot be read.

    It has SQL of its own, apart from the program's: what is found does not depend on the program's reader of run.db.
    """
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        return set(db.execute("SELECT item, annotator, label FROM answers"))
    return set()


def copy_run(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a run, without what is just being written."""
    shutil.copytree(source, target, ignore=lambda folder, names: [name for name in names if name.startswith(".tmp-")])
