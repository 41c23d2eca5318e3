"""Kills processes of small runs at random moments, resumes, and checks what was promised from `run.db` alone.

Example:
  python -m bench.chaos --kills 200 --seed 0
"""

import collections
import contextlib
import json
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

import psutil
import yaml

from aal.config.errors import RunFailed
from aal.storage.model_files import load_model
from bench.rows import parser_of
from bench.run_process import Run, running, survivors
from bench.settings import FOLDER, WORDS

ROLES = ("server-0", "server-1", "worker-0", "worker-1", "annotators", "hub", "main")
LIMIT_S = 180.0
# The checks have SQL of their own, apart from the program's: what they find does not depend on its reader of run.db.
PROMISES = yaml.safe_load((FOLDER / "promises.yaml").read_text(encoding="utf-8"))

Answers = set[tuple[int, int, int]]  # item, annotator, label


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 when a promise was broken or a run failed."""
    parser = parser_of("bench.chaos", __doc__)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the roles (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    chance, kills = random.Random(arguments.seed), collections.Counter[str]()
    broken: list[str] = []
    runs = resumes = 0
    while kills.total() < arguments.kills and not broken:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            run, seen = pathlib.Path(folder) / "run", Answers()
            resumes += torment(run, chance, kills, arguments.kills, arguments.seed + runs, seen)
            broken = breaches(run, seen)
            runs += 1
            print(f"run {runs}: {kills.total()} kills, {resumes} resumes; {broken or 'whole'}", file=sys.stderr)
    if arguments.json:
        counts = {"total": kills.total(), "runs": runs, "resumes": resumes, "broken": broken}
        print(json.dumps({"kills": dict(sorted(kills.items())), **counts}))
    else:
        print("\n".join(f"{role:12} {count}" for role, count in sorted(kills.items())))
        print(f"{kills.total()} kills in {runs} runs with {resumes} resumes: {'; '.join(broken) or 'nothing was lost'}")
    return 1 if broken else 0


def torment(
    folder: pathlib.Path, chance: random.Random, kills: collections.Counter[str], most: int, seed: int, seen: Answers
) -> int:
    """Runs to the end, killing processes again and again; returns how often main had to be started again.

    `kills` counts them, `most` of all runs together; `seen` takes every answer that was on disk before a kill.
    """
    resumes = 0
    while True:
        with running([*WORDS["chaos"], "--seed", str(seed)], folder) as run:
            deadline = time.monotonic() + LIMIT_S
            while run.process.poll() is None:
                if time.monotonic() > deadline:
                    raise RunFailed(f"hung: a run took longer than {LIMIT_S:.0f} s")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(chance.uniform(0.1, 2.0))
                    break
                if kills.total() < most:
                    role = chance.choice(ROLES)
                    seen |= answers(folder)
                    kills[role] += kill(run, role)
            run.check(-signal.SIGKILL)
            if run.process.returncode == 0:
                return resumes
        resumes += 1


def kill(run: Run, role: str) -> int:
    """Kills the process of a role; returns 1, or 0 when there was none just now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(run.process.pid).children(recursive=True)
        if process := dict(run.processes()).get(role):
            process.kill()
            if role == "main" and (alive := survivors(family, seconds=5.0)):
                raise RunFailed(f"processes outlived main: {alive}")
            return 1
    return 0


def answers(run: pathlib.Path) -> Answers:
    """Returns the answers that are on disk; none while there is no table of them."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        return set(db.execute("select item, annotator, label from queries where answered_at is not null"))
    return set()


def breaches(run: pathlib.Path, seen: Answers) -> list[str]:
    """Checks the promises of the design from `run.db` and the model files; returns those that were broken."""
    with contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        broken = [promise for promise, (sql, value) in PROMISES.items() if db.execute(sql).fetchone() != (value,)]
        for (path,) in db.execute("select path from models"):
            load_model(run / path)
    return broken + (["an answer that was on disk is gone"] if seen - answers(run) else [])


if __name__ == "__main__":
    sys.exit(main())
