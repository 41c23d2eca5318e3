"""Kills and stops processes of small runs at random moments, resumes, and checks what was promised from `run.db` alone.

A fault is SIGKILL, SIGTERM, or SIGSTOP, for good or until long after `hung_after_s`, of one process, of two at once, or
of all of them as by Ctrl-Z. After each run, and each end of main, nothing may be left alive or in the temporary folder.
With --people, scripted people label over HTTP meanwhile; what was acknowledged to them must be there at the end.

Examples:
  python -m bench.chaos --faults 1000 --seed 0
  python -m bench.chaos --faults 100 --mode federated
"""

import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping

import psutil

from aal.config.errors import RunFailed
from aal.engines.local import sockets
from bench.promises import Answers, answers_of, breaches, progress_of
from bench.rows import at_least_one, parser_of, until
from bench.run_process import Run, running
from bench.settings import WORDS
from bench.visitors import Visitors

HUNG_AFTER_S = 4.0
LIMIT_S = 300.0  # of a run; twice as long with --each, which waits after every kill
# After a fault of these the run is given time to go on, with --each after any.
WATCHED = {"hub", "fork server", "main", "all"}
# Of each mode: the settings that its runs have in turn, and how often each of its roles is faulted.
TURNS = {
    "async": ("max_staleness=auto", "max_staleness=null"),
    "federated": ("federated.fraction=0.5", "federated.asynchronous.buffer=1"),
}
ROLES = {
    "async": {"server-0": 4, "server-1": 4, "worker-0": 4, "worker-1": 4, "annotators": 4},
    "federated": {"server-0": 6, "client-0": 4, "client-1": 4, "evaluator-0": 2, "annotators": 4},
}
CHANCES = {"hub": 2, "fork server": 2, "main": 2, "resource tracker": 1, "all": 1}
FAULTS = {"kill": 6, "term": 2, "pause": 2, "stop": 2}
PARTS = {
    "async": ("hub", "main", "server-0", "worker-0", "annotators"),
    "federated": ("hub", "main", "server-0", "client-0", "client-1", "evaluator-0", "annotators"),
}  # that --each kills


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 when a promise was broken or a run failed."""
    parser = parser_of("bench.chaos", __doc__)
    parser.add_argument("--faults", type=int, default=200, help="processes to kill or stop (default: 200)")
    parser.add_argument("--each", type=at_least_one, help="kill each part so many times, and do nothing else")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the roles (default: 0)")
    parser.add_argument("--mode", choices=list(TURNS), default="async", help="of the runs (default: async)")
    parser.add_argument("--people", type=int, default=0, help="who label over HTTP beside simulated ones (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    if arguments.people and arguments.mode == "federated":
        parser.error("--people: not with --mode federated, where each client has annotators of its own")
    chance, faults = random.Random(arguments.seed), collections.Counter[str]()
    parts = [*PARTS[arguments.mode], *(["web"] if arguments.people else [])]
    each = dict.fromkeys(parts, arguments.each) if arguments.each else {}
    if each:
        arguments.faults = sum(each.values())
    broken: list[str] = []
    runs = resumes = answered = 0
    while faults.total() < arguments.faults and not broken:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="chaos-"))
        run = FaultedRun(folder, chance, faults, arguments.faults, arguments.mode, arguments.people, each)
        try:
            resumes += run.to_its_end(arguments.seed + runs)
            broken = breaches(run.folder, run.seen)
        except RunFailed as error:
            broken = [str(error)]
        runs, answered = runs + 1, answered + len(run.seen)
        print(f"run {runs}: {faults.total()} faults, {resumes} resumes; {broken or 'whole'}", file=sys.stderr)
        if broken:
            print(f"the run and what it said are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
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


class FaultedRun:
    """One run, with faults until its end.

    Args:
        folder: for the run directory and its temporary files.
        chance: of moments, roles and faults.
        faults: counts them.
        most: of all runs together.
        mode: of the run.
        people: who label over HTTP.
        each: kills of each part, instead of any faults of any.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        chance: random.Random,
        faults: collections.Counter[str],
        most: int,
        mode: str = "async",
        people: int = 0,
        each: Mapping[str, int] | None = None,
    ) -> None:
        self.seen = Answers()  # every answer that was on disk before a fault
        self.folder = folder / "run"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._chance = chance
        self._faults = faults
        self._most = most
        self._mode = mode
        self._chances = ROLES[mode] | CHANCES | ({"web": 6} if people else {})
        self._each = each or {}
        self._mark = uuid.uuid4().hex
        self._paused: dict[psutil.Process, float] = {}  # when each goes on
        self._people = Visitors(self.folder, people)

    def to_its_end(self, seed: int) -> int:
        """Runs and resumes; returns how often main had to be started again.

        Raises:
            RunFailed: a run hung, failed, or left processes or files behind.
        """
        turns, kind = TURNS[self._mode], {"async": "chaos", "federated": "chaosfederated"}[self._mode]
        words = [*WORDS[kind], f"hung_after_s={HUNG_AFTER_S}", turns[seed % len(turns)], "--seed", str(seed)]
        words += self._people.words
        environment = os.environ | {"AAL_CHAOS": self._mark, "TMPDIR": str(self._temporary)}
        with self._people.labelling():
            resumes = self._started(words, environment)
        self.seen |= self._people.acknowledged()
        sockets.remove_left(self._temporary)  # of a main killed after its run: the next program's task, but none came
        if left := [path.name for path in self._temporary.iterdir() if not path.name.startswith("torchinductor")]:
            raise RunFailed(f"left in the temporary folder: {', '.join(left)}")
        return resumes

    def _started(self, words: list[str], environment: Mapping[str, str]) -> int:
        """Starts main until it has ended well; returns how often that was again."""
        resumes = 0
        while True:
            with running(words, self.folder, environment=environment) as run:
                try:
                    self._inject_faults(run)
                finally:
                    self._go_on(all_of_them=True)
                if survivors := self._survivors():
                    raise RunFailed(f"processes outlived main: {survivors}")
                run.check(-signal.SIGKILL, 143, -signal.SIGTERM)  # the last before it listens, or while it reports
                if run.process.returncode == 0:
                    return resumes
            resumes += 1

    def _inject_faults(self, run: Run) -> None:
        """Does one fault after another until main has ended."""
        limit_s = 2 * LIMIT_S if self._each else LIMIT_S
        deadline = time.monotonic() + limit_s
        while run.process.poll() is None:
            if time.monotonic() > deadline:
                raise RunFailed(f"hung: a run took longer than {limit_s:.0f} s")
            self._go_on()
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(self._chance.uniform(0.05, 1.0))
                break
            if self._faults.total() < self._most:
                self.seen |= answers_of(self.folder)
                known = dict(run.processes())
                number = min(self._chance.choice((1, 1, 1, 2)), self._most - self._faults.total())
                faulted = {self._fault(run, known) for _ in range(number)}
                if faulted & WATCHED or self._each:
                    self._wait_for_progress(run)

    def _fault(self, run: Run, known: dict[str, psutil.Process]) -> str | None:
        """Does a fault; returns the name of its process, or None where there is none just now."""
        chances = {name: most - self._faults[f"{name} kill"] for name, most in self._each.items()} or self._chances
        (name,) = self._chance.choices(list(chances), list(chances.values()))
        (fault,) = ("kill",) if self._each else self._chance.choices(list(FAULTS), list(FAULTS.values()))
        if name == "all" or (name == "main" and fault == "stop"):
            fault = "pause"  # stopped for good, the run could not go on
        processes = [*known.values()] if name == "all" else [known[name]] if name in known else []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal({"kill": signal.SIGKILL, "term": signal.SIGTERM}.get(fault, signal.SIGSTOP))
                if fault == "pause":
                    self._paused[process] = time.monotonic() + 1.5 * HUNG_AFTER_S
        if not processes:
            return None
        self._faults[f"{name} {fault}"] += 1
        with self.folder.with_suffix(".txt").open("a") as said:
            said.write(f"bench.chaos: {name} {fault}\n")
        return name

    def _wait_for_progress(self, run: Run) -> None:
        """Waits until answers or models come again: a run with a fault at each start does not go on."""
        before = progress_of(self.folder)

        def goes_on() -> bool:
            self._go_on()
            return run.process.poll() is not None or progress_of(self.folder) > before

        until(goes_on, 30.0)

    def _go_on(self, all_of_them: bool = False) -> None:
        """Continues the processes whose pause is over, or all that are paused."""
        for process, end in list(self._paused.items()):
            if all_of_them or time.monotonic() >= end:
                del self._paused[process]
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def _survivors(self) -> list[str]:
        """Returns the processes that have inherited the mark of the run and have not ended seconds after its main."""
        until(lambda: not self._running(), 10.0)
        return self._running()

    def _running(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("AAL_CHAOS") == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:200]} ({process.status()})")
        return found


if __name__ == "__main__":
    sys.exit(main())
