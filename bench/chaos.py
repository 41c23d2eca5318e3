"""Kills and stops processes of small runs at random moments, resumes, and checks what was promised from `run.db` alone.

A fault is SIGKILL, SIGTERM, or SIGSTOP, for good or until long after `hung_after_s`, of one process, of two at once, or
of all of them as by Ctrl-Z. After each run, and each end of main, nothing may be left alive or in the temporary folder.

Example:
  python -m bench.chaos --faults 1000 --seed 0
"""

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
import uuid

import psutil
import yaml

from aal.config.errors import RunFailed
from aal.storage.model_files import load_model
from bench.rows import parser_of, until
from bench.run_process import Run, running
from bench.settings import FOLDER, WORDS

HUNG_AFTER_S = 4.0
LIMIT_S = 300.0
WATCHED = {"hub", "fork server", "main", "all"}  # after a fault of theirs, the run is given time to go on
CHANCES = {"server-0": 4, "server-1": 4, "worker-0": 4, "worker-1": 4, "annotators": 4}
CHANCES |= {"hub": 2, "fork server": 2, "main": 2, "resource tracker": 1, "all": 1}
FAULTS = {"kill": 6, "term": 2, "pause": 2, "stop": 2}
# The checks have SQL of their own, apart from the program's: what they find does not depend on its reader of run.db.
PROMISES = yaml.safe_load((FOLDER / "promises.yaml").read_text(encoding="utf-8"))

Answers = set[tuple[int, int, int]]  # item, annotator, label


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 when a promise was broken or a run failed."""
    parser = parser_of("bench.chaos", __doc__)
    parser.add_argument("--faults", type=int, default=200, help="processes to kill or stop (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the roles (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    chance, faults = random.Random(arguments.seed), collections.Counter[str]()
    broken: list[str] = []
    runs = resumes = answered = 0
    while faults.total() < arguments.faults and not broken:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            torment = Torment(pathlib.Path(folder), chance, faults, arguments.faults)
            try:
                resumes += torment.run(arguments.seed + runs)
                broken = torment.breaches()
            except RunFailed as error:
                broken = [str(error)]
            runs, answered = runs + 1, answered + len(torment.seen)
            print(f"run {runs}: {faults.total()} faults, {resumes} resumes; {broken or 'whole'}", file=sys.stderr)
    counts = {"total": faults.total(), "runs": runs, "resumes": resumes, "answers": answered, "broken": broken}
    if arguments.json:
        print(json.dumps({"faults": dict(sorted(faults.items())), **counts}))
    else:
        print("\n".join(f"{fault:24} {count}" for fault, count in sorted(faults.items())))
        print(
            f"{faults.total()} faults in {runs} runs with {resumes} resumes, {answered} answers seen on disk: "
            f"{'; '.join(broken) or 'nothing was lost, nothing left alive'}"
        )
    return 1 if broken else 0


class Torment:
    """One run to its end, whatever happens to it.

    Args:
        folder: for the run directory and its temporary files.
        chance: of moments, roles and faults.
        faults: counts them.
        most: of all runs together.
    """

    def __init__(
        self, folder: pathlib.Path, chance: random.Random, faults: collections.Counter[str], most: int
    ) -> None:
        self.seen = Answers()  # every answer that was on disk before a fault
        self._run = folder / "run"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._chance = chance
        self._faults = faults
        self._most = most
        self._mark = uuid.uuid4().hex
        self._paused: dict[psutil.Process, float] = {}  # when each goes on

    def run(self, seed: int) -> int:
        """Runs to the end; returns how often main had to be started again.

        Raises:
            RunFailed: a run hung, failed, or left processes or files behind.
        """
        words = [*WORDS["chaos"], f"hung_after_s={HUNG_AFTER_S}", "--seed", str(seed)]
        environment = os.environ | {"AAL_CHAOS": self._mark, "TMPDIR": str(self._temporary)}
        resumes = 0
        while True:
            with running(words, self._run, environment=environment) as run:
                try:
                    self._torment(run)
                finally:
                    self._go_on(everybody=True)
                if alive := self._survivors():
                    raise RunFailed(f"processes outlived main: {alive}")
                run.check(-signal.SIGKILL, 143, -signal.SIGTERM)  # the last before it listens, or while it reports
                if run.process.returncode == 0:
                    break
            resumes += 1
        if left := [path.name for path in self._temporary.iterdir() if not path.name.startswith("torchinductor")]:
            raise RunFailed(f"left in the temporary folder: {', '.join(left)}")
        return resumes

    def breaches(self) -> list[str]:
        """Checks the promises of the design from `run.db` and the model files; returns those that were broken."""
        with contextlib.closing(sqlite3.connect(self._run / "run.db")) as db:
            broken = [promise for promise, (sql, value) in PROMISES.items() if db.execute(sql).fetchone() != (value,)]
            for (path,) in db.execute("select path from models"):
                load_model(self._run / path)
        return broken + (["an answer that was on disk is gone"] if self.seen - self._answers() else [])

    def _torment(self, run: Run) -> None:
        """Does one fault after another until main has ended."""
        deadline = time.monotonic() + LIMIT_S
        while run.process.poll() is None:
            if time.monotonic() > deadline:
                raise RunFailed(f"hung: a run took longer than {LIMIT_S:.0f} s")
            self._go_on()
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(self._chance.uniform(0.05, 1.0))
                break
            if self._faults.total() < self._most:
                self.seen |= self._answers()
                known = dict(run.processes())
                struck = {self._fault(run, known) for _ in range(self._chance.choice((1, 1, 1, 2)))}
                if struck & WATCHED:
                    self._wait_for_progress(run)

    def _fault(self, run: Run, known: dict[str, psutil.Process]) -> str | None:
        """Does a fault; returns to whom, or None where there is no such process just now."""
        (name,) = self._chance.choices(list(CHANCES), list(CHANCES.values()))
        (fault,) = self._chance.choices(list(FAULTS), list(FAULTS.values()))
        if name == "all" or (name == "main" and fault == "stop"):
            fault = "pause"  # for good, nobody could go on
        processes = [*known.values()] if name == "all" else [known[name]] if name in known else []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal({"kill": signal.SIGKILL, "term": signal.SIGTERM}.get(fault, signal.SIGSTOP))
                if fault == "pause":
                    self._paused[process] = time.monotonic() + 1.5 * HUNG_AFTER_S
        if not processes:
            return None
        self._faults[f"{name} {fault}"] += 1
        with self._run.with_suffix(".txt").open("a") as said:
            said.write(f"bench.chaos: {name} {fault}\n")
        return name

    def _wait_for_progress(self, run: Run) -> None:
        """Waits until answers or models come again: a run that is struck while it starts does not go on."""
        before = self._progress()

        def goes_on() -> bool:
            self._go_on()
            return run.process.poll() is not None or self._progress() > before

        until(goes_on, 30.0)

    def _go_on(self, everybody: bool = False) -> None:
        """Lets those go on whose pause is over."""
        for process, end in list(self._paused.items()):
            if everybody or time.monotonic() >= end:
                del self._paused[process]
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def _survivors(self) -> list[str]:
        """Returns who still lives some seconds after the end of main: every process that has inherited its mark."""
        until(lambda: not self._alive(), 10.0)
        return self._alive()

    def _alive(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("AAL_CHAOS") == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:200]} ({process.status()})")
        return found

    def _progress(self) -> int:
        return len(self._rows("select item from answers union all select path from models"))

    def _answers(self) -> Answers:
        """Returns the answers that are on disk."""
        return set(self._rows("select item, annotator, label from answers"))

    def _rows(self, sql: str) -> list[tuple]:
        """Returns the rows of a query; none while there are no tables."""
        path = f"{(self._run / 'run.db').resolve().as_uri()}?mode=ro"
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path, uri=True)) as db:
            return db.execute(sql).fetchall()
        return []


if __name__ == "__main__":
    sys.exit(main())
