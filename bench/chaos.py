"""Kills processes of small runs at random moments, resumes, and checks what was promised from `run.db` alone.

Example:
  python -m bench.chaos --kills 200 --seed 0
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import psutil

from aal.storage.model_files import load_model

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROLES = ("server-0", "server-1", "worker-0", "worker-1", "annotators", "hub", "main")
SETTINGS = (
    *("server_num=2", "worker_num=2", "worker_query_num=20", "query_batch=10", "server_train_threshold=20"),
    *("training.epochs=6", "training.validate_after=4", "max_staleness=null", "restart_limit=1000"),
    *("annotators.number=30", "annotators.seconds_per_label=1.0", "annotators.lease_s=5"),
)
BUDGET = 400
LIMIT_S = 180.0


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the roles (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    chance = random.Random(arguments.seed)
    kills: collections.Counter[str] = collections.Counter()
    broken: list[str] = []
    runs = resumes = 0
    while kills.total() < arguments.kills and not broken:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            run = pathlib.Path(folder) / "run"
            seen: set[tuple[int, int, int]] = set()
            resumes += torment(run, chance, kills, arguments.kills, arguments.seed + runs, seen)
            broken = breaches(run, seen)
            runs += 1
            print(f"run {runs}: {kills.total()} kills, {resumes} resumes; {broken or 'whole'}", file=sys.stderr)
    found = {"kills": dict(sorted(kills.items())), "total": kills.total(), "runs": runs, "resumes": resumes}
    if arguments.json:
        print(json.dumps({**found, "broken": broken}))
    else:
        print("\n".join(f"{role:12} {count}" for role, count in sorted(kills.items())))
        print(f"{kills.total()} kills in {runs} runs with {resumes} resumes: {'; '.join(broken) or 'nothing was lost'}")
    return 1 if broken else 0


def torment(
    run: pathlib.Path,
    chance: random.Random,
    kills: collections.Counter[str],
    most: int,
    seed: int,
    seen: set[tuple[int, int, int]],
) -> int:
    """Runs to the end, killing somebody again and again; returns how often main had to be started again.

    Args:
        run: the folder of the run, not there yet.
        chance: draws the moments and the roles.
        kills: counts the kills, all runs together.
        most: how many there may be.
        seed: of the run.
        seen: takes every answer that was on disk before a kill.
    """
    starts = 0
    while True:
        first = not (run / "config.yaml").exists()
        command = ["--config", "digits.yaml", *SETTINGS, "--seed", str(seed), "--out", str(run)]
        with (run.parent / "output.txt").open("a") as output:
            main_process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "main.py", *(command if first else ["--resume", str(run)])],
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        starts += 1
        deadline = time.monotonic() + LIMIT_S
        while main_process.poll() is None:
            if time.monotonic() > deadline:
                kill_all(main_process)
                raise SystemExit(f"hung: see {run}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                main_process.wait(chance.uniform(0.1, 2.0))
                break
            if kills.total() < most:
                role = chance.choice(ROLES)
                seen |= answers(run)
                kills[role] += kill(main_process, run, role)
        if main_process.returncode == 0:
            return starts - 1
        if main_process.returncode != -signal.SIGKILL:
            raise SystemExit((run.parent / "output.txt").read_text()[-2000:])


def kill(main_process: subprocess.Popen[bytes], run: pathlib.Path, role: str) -> int:
    """Kills the process of a role; returns 1, or 0 when there was none just now."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if role == "main":
            family = psutil.Process(main_process.pid).children(recursive=True)
            main_process.kill()
            if alive := survivors(family, seconds=5.0):
                raise SystemExit(f"processes outlived main: {alive}")
            return 1
        for pid, name in named(main_process, run):
            if name == role:
                os.kill(pid, signal.SIGKILL)
                return 1
    return 0


def survivors(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits so long for processes to end; returns those that live on. A zombie is dead: it only was not reaped yet."""
    deadline = time.monotonic() + seconds
    while True:
        alive = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def named(main_process: subprocess.Popen[bytes], run: pathlib.Path) -> Iterator[tuple[int, str]]:
    """The living processes of a run and their roles: the log names all but the hub's, which holds `run.db`."""
    log = run / "log.txt"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    names = {int(words[3]): words[2] for words in lines if words[-1:] == ["started"] and words[3].isdigit()}
    for process in psutil.Process(main_process.pid).children(recursive=True):
        name = names.get(process.pid)
        if name is None and any(file.path == str(run / "run.db") for file in process.open_files()):
            name = "hub"
        if name is not None:
            yield process.pid, name


def kill_all(main_process: subprocess.Popen[bytes]) -> None:
    """Leaves nothing behind."""
    for process in psutil.Process(main_process.pid).children(recursive=True):
        process.kill()
    main_process.kill()


def answers(run: pathlib.Path) -> set[tuple[int, int, int]]:
    """Item, annotator and label of the answers that are on disk; none while there is no table of them."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        return set(db.execute("select item, annotator, label from queries where answered_at is not null"))
    return set()


JOINED = "select count(*) from queries join examples using (item)"
TICKETED = "select count(*) from models join tickets on ticket = number"
PROMISES = {  # what must hold at the end: SQL and its one value
    "every id is in one part": ("select count(*), count(distinct item) from examples", (1797, 1797)),
    "every offered id has its answer, once": (
        "select count(*), count(label), count(distinct arrival), max(arrival) from queries",
        (BUDGET, BUDGET, BUDGET, BUDGET - 1),
    ),
    "ids come from the worker's own shard": (
        f"{JOINED} where part = 'shard' and queries.worker = examples.worker",
        (BUDGET,),
    ),
    "labels are those that were given": (f"{JOINED} where label = truth", (BUDGET,)),
    "batches add up to the budget": (
        "select sum(items), count(distinct worker || ' ' || batch) from selections",
        (BUDGET, 40),
    ),
    "the last model has every label": ("select max(labels) from models", (60 + BUDGET,)),
    "no ticket was published twice": ("select count(*) - count(distinct ticket) from models", (0,)),
    "a model learned what its ticket says": (f"{TICKETED} where models.labels <> tickets.labels", (0,)),
    "time never ran backwards": (
        "select count(*) from queries where answered_at < drawn_at or drawn_at < offered_at",
        (0,),
    ),
    "the file is whole": ("pragma integrity_check", ("ok",)),
}


def breaches(run: pathlib.Path, seen: set[tuple[int, int, int]]) -> list[str]:
    """Checks the promises of the design from `run.db` and the model files; returns those that were broken."""
    with contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        broken = [promise for promise, (sql, value) in PROMISES.items() if db.execute(sql).fetchone() != value]
        for (path,) in db.execute("select path from models"):
            load_model(run / path)
    return broken + (["an answer that was on disk is gone"] if seen - answers(run) else [])


if __name__ == "__main__":
    sys.exit(main())
