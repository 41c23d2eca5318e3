"""Runs a plan: each run a process of main.py, several at a time; what is finished is not run again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from aal.app.experiments.aal_2021.places import Place, state_of, vacate
from aal.app.experiments.aal_2021.plans import Run
from aal.app.experiments.aal_2021.work import Watch, share_done, work_of
from aal.config.errors import RunFailed, UserError
from aal.engines.signals import collected
from aal.storage.atomic import write_whole

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A run dies with this program, even when this one is killed; -P keeps a main.py of the user's folder out of it.
START = [sys.executable, "-P", "-c", "import sys, aal.engines.mortal, main; sys.exit(main.main())"]
LOOK_EVERY_S, SHOW_EVERY_S, STOP_WITHIN_S = 0.1, 1.0, 60.0


@dataclass
class _Child:
    run: Run
    slot: int
    process: subprocess.Popen[bytes]
    began: float


class Sweep:
    """Runs what of a plan is not finished.

    Args:
        figure: what it is for.
        place: where.
        plan: the runs, in the order in which they are begun.
        jobs: how many at a time.
        gpus: how many there are to share out; 0 leaves the choice to the runs.

    Attributes:
        left: how many runs are not finished.
    """

    def __init__(self, figure: str, place: Place, plan: Sequence[Run], jobs: int, gpus: int) -> None:
        self._figure, self._place, self._gpus = figure, place, gpus
        self._states = {run.name: state_of(run, place.runs / run.name) for run in plan}
        self._work = {run.name: work_of(run) for run in plan}
        self._waiting = [run for run in plan if self._states[run.name] != "finished"]
        self._done = sum(self._work[run.name] for run in plan if self._states[run.name] == "finished")
        self.left = len(self._waiting)
        self._free = list(range(jobs))
        self._children: list[_Child] = []
        self._noted = time.monotonic()

    def go(self) -> str:
        """Runs all; returns `finished`, or the name of the signal that ended it. A second signal ends at once.

        Raises:
            RunFailed: a run failed, its last words are the message.
            UserError: the same, when the user can mend it.
        """
        watch = Watch(self._figure, sum(self._work.values()), self._done)
        shown, self._noted = 0.0, time.monotonic()
        with collected(limit=1) as caught:
            try:
                while self.left and not caught:
                    while self._waiting and self._free:
                        self._begin(self._waiting.pop(0))
                    self._collect()
                    if time.monotonic() - shown >= SHOW_EVERY_S:
                        self._show(watch)
                        shown = time.monotonic()
                    time.sleep(LOOK_EVERY_S)
            finally:
                watch.close()
                self._stop()
        return caught[0] if caught else "finished"

    def _begin(self, run: Run) -> None:
        """Starts or resumes a run, deaf to the terminal's Ctrl-C: this program passes it on, once."""
        folder = self._place.runs / run.name
        if self._states[run.name] == "absent":
            vacate(folder)
            config = self._place.out / "configs" / f"{run.name}.yaml"
            write_whole(config, yaml.safe_dump(run.config, sort_keys=False).encode())
            words = ["--config", str(config), "--out", str(folder)]
        else:
            words = ["--resume", str(folder), f"data_dir={json.dumps(run.config['data_dir'])}"]
        slot = self._free.pop(0)
        with self._log(run).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the words are ours
                [*START, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_of(slot, self._gpus, os.environ),
                start_new_session=True,
            )
        self._children.append(_Child(run, slot, process, time.monotonic()))

    def _log(self, run: Run) -> pathlib.Path:
        return self._place.out / "logs" / f"{run.name}.txt"

    def _collect(self) -> None:
        for child in [child for child in self._children if child.process.poll() is not None]:
            self._end(child)
            if child.process.returncode:
                raise self._failure(child)
            self._done += self._work[child.run.name]
            self.left -= 1

    def _end(self, child: _Child) -> None:
        self._children.remove(child)
        self._free.append(child.slot)
        now = time.monotonic()
        self._place.add_seconds("runs", child.run.name, now - child.began)
        self._place.add_seconds("figures", self._figure, now - self._noted)
        self._noted = now

    def _failure(self, child: _Child) -> Exception:
        log, code = self._log(child.run), child.process.returncode
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        ended = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        kind = UserError if code == 2 else RunFailed
        return kind(f"{child.run.name}: {errors[-1] if errors else ended}; see {log}")

    def _show(self, watch: Watch) -> None:
        shares = ((child.run, share_done(child.run, self._place.runs / child.run.name)) for child in self._children)
        under_way = sum(self._work[run.name] * share for run, share in shares)
        watch.show(self._done + under_way, self.left, len(self._children))

    def _stop(self) -> None:
        """Ends what still runs: asked to first, so that it writes what it has, killed when that takes too long."""
        for child in self._children:
            child.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_WITHIN_S
        while any(child.process.poll() is None for child in self._children):
            if time.monotonic() > deadline:
                for child in self._children:
                    child.process.kill()
            time.sleep(LOOK_EVERY_S)
        for child in list(self._children):
            self._end(child)


def environment_of(slot: int, gpus: int, own: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a run: our own, this repository's modules first, one of the GPUs that we may use.

    Args:
        slot: number of the run among those that go on at a time.
        gpus: how many are shared out; 0 leaves the choice to the runs.
        own: this program's environment.
    """
    paths = [str(ROOT), *filter(None, [own.get("PYTHONPATH")])]
    environment = {**own, "PYTHONPATH": os.pathsep.join(paths)}
    if gpus:
        named = own.get("CUDA_VISIBLE_DEVICES")
        allowed = [str(number) for number in range(gpus)] if named is None else named.split(",")
        environment["CUDA_VISIBLE_DEVICES"] = allowed[slot % gpus].strip()
    return environment
