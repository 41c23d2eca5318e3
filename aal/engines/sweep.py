"""Many runs: each a process of main.py, several at a time; finished ones are left alone, begun ones are resumed."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TextIO

import yaml
from tqdm import tqdm

import aal
from aal.config.errors import RunFailed, UserError
from aal.config.loading import read_config, resolve
from aal.config.settings import Settings
from aal.engines.signals import collected
from aal.reporting.progress import say
from aal.storage.atomic import write_whole
from aal.storage.run_directory import MODELS
from aal.storage.run_reader import RunReader

ROOT = pathlib.Path(aal.__file__).resolve().parents[1]
# A run dies with this program, even when this one is killed; -P keeps an `aal` of the user's folder out of it.
CODE = "import sys, aal.engines.local.die_with_parent; from aal.app import main; sys.exit(main.main())"
START = [sys.executable, "-P", "-c", CODE]
LOOK_EVERY_S, SHOW_EVERY_S, STOP_WITHIN_S = 0.1, 1.0, 60.0
FREE_TO_CHANGE = {"name", "data_dir", "prepared_dir", "devices"}

State = Literal["absent", "begun", "finished"]


class Planned(Protocol):
    """A run to be made; the same name means the same settings."""

    @property
    def name(self) -> str:
        """Names its folder."""

    @property
    def config(self) -> dict[str, Any]:
        """What its YAML file says."""

    @property
    def settings(self) -> Settings:
        """All its settings, defaults filled in."""


def state_of(run: Planned, folder: pathlib.Path) -> State:
    """Returns how far a run is; raises UserError where its folder holds a run with other settings, or no run.

    Absent is also a run that was killed before it wrote its settings: what it left is an empty folder for models, or
    files whose names begin with a dot.
    """
    path, left = folder / "config.yaml", list(folder.iterdir()) if folder.exists() else []
    if all(one.name.startswith(".") or (one.name == MODELS and not any(one.iterdir())) for one in left):
        return "absent"
    if not path.is_file():
        raise UserError(f"{folder}: holds no run; remove it")
    there = resolve(read_config(path), str(path)).model_dump(exclude=FREE_TO_CHANGE)
    wanted = run.settings.model_dump(exclude=FREE_TO_CHANGE)
    if other := sorted(key for key in wanted if there[key] != wanted[key]):
        raise UserError(f"{folder}: was run with another {', '.join(other)} than is planned now; use another --out")
    with contextlib.suppress(UserError), RunReader(folder) as record:  # there is none before the hub has started
        return "finished" if record.meta().get("ended") == "finished" else "begun"
    return "begun"


def share_done(run: Planned, folder: pathlib.Path) -> float:
    """Returns which share of its labels a run has bought; 0 when that cannot be read."""
    with contextlib.suppress(UserError), RunReader(folder, timeout_s=0.2) as record:
        return record.value("SELECT count(*) FROM answers") / run.settings.budget
    return 0.0


class SweepProgress:
    """Shows how far a sweep is: a bar on a terminal; elsewhere a line when a run ends, and now and then.

    Args:
        title: what is being made.
        total: work of all runs.
        done: work of the runs that were finished before.
        stream: where to.
        line_every_s: seconds between plain lines.
    """

    def __init__(
        self, title: str, total: float, done: float, stream: TextIO = sys.stderr, line_every_s: float = 60.0
    ) -> None:
        self._title, self._total, self._before = title, total, done
        self._stream, self._line_every_s = stream, line_every_s
        self._began = self._line_at = time.monotonic()
        self._shown_left: int | None = None
        layout = "{desc} |{bar:20}| {elapsed}{postfix}"
        self._bar = tqdm(total=total, initial=done, file=stream, bar_format=layout, dynamic_ncols=True, disable=None)

    def show(self, done: float, left: int, running: int) -> None:
        """Shows the work that is done, the runs that are left and how many of these are under way."""
        now = time.monotonic()
        words = f"{left} run{'s' * (left != 1)} left" + (f", {running} under way" if running else "")
        speed = (done - self._before) / max(now - self._began, 1e-9)
        if speed > 0 and left:
            seconds = (self._total - done) / speed
            about = f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
            words += f", about {max(1, round(seconds))} s" if seconds < 90 else f", about {about}"
        if not self._bar.disable:
            self._bar.n = done
            self._bar.set_description_str(self._title, refresh=False)
            self._bar.set_postfix_str(words)
        elif left != self._shown_left or now - self._line_at >= self._line_every_s:
            say(f"{self._title}: {words}", self._stream)
            self._shown_left, self._line_at = left, now

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


class _Child(NamedTuple):
    run: Planned
    slot: int
    process: subprocess.Popen[bytes]
    began: float


class Sweep:
    """Runs what of a plan is not finished, under `out/runs`, with configs and outputs in `out/configs` and `out/logs`.

    Args:
        title: what the runs are for.
        out: a folder in which `runs`, `configs` and `logs` are there.
        plan: the runs, in the order in which they are begun.
        jobs: how many at a time.
        gpus: how many there are to share out; 0 leaves the choice to the runs.
        work_of: from a run to about how much it computes, in any unit, for the progress.
        note: called with the name of a run and the seconds that it took, finished or not.

    Attributes:
        left: how many runs are not finished.
    """

    def __init__(
        self,
        title: str,
        out: pathlib.Path,
        plan: Sequence[Planned],
        jobs: int,
        gpus: int = 0,
        work_of: Callable[[Any], float] = lambda run: 1.0,
        note: Callable[[str, float], None] = lambda name, seconds: None,
    ) -> None:
        self._title, self._out, self._gpus, self._note = title, out, gpus, note
        self._states = {run.name: state_of(run, out / "runs" / run.name) for run in plan}
        self._work = {run.name: work_of(run) for run in plan}
        self._waiting = [run for run in plan if self._states[run.name] != "finished"]
        self._done = sum(self._work[run.name] for run in plan if self._states[run.name] == "finished")
        self.left = len(self._waiting)
        self._free = list(range(jobs))
        self._children: list[_Child] = []

    def go(self) -> str:
        """Runs all; returns `finished`, or the name of the signal that ended it. A second signal ends at once.

        Raises:
            RunFailed: a run failed, its last error is the message.
            UserError: the same, when the user can mend it.
        """
        progress, shown = SweepProgress(self._title, sum(self._work.values()), self._done), 0.0
        with collected(limit=1) as caught:
            try:
                while self.left and not caught:
                    while self._waiting and self._free:
                        self._begin(self._waiting.pop(0))
                    self._collect()
                    if time.monotonic() - shown >= SHOW_EVERY_S:
                        self._show(progress)
                        shown = time.monotonic()
                    time.sleep(LOOK_EVERY_S)
            finally:
                progress.close()
                self._stop()
        return caught[0] if caught else "finished"

    def _begin(self, run: Planned) -> None:
        """Starts or resumes a run in a session of its own: this program passes a terminal's Ctrl-C on, once."""
        folder, config = self._out / "runs" / run.name, self._out / "configs" / f"{run.name}.yaml"
        if self._states[run.name] == "absent":
            shutil.rmtree(folder, ignore_errors=True)
            write_whole(config, yaml.safe_dump(run.config, sort_keys=False).encode())
            words = ["--config", str(config), "--out", str(folder)]
        else:
            words = ["--resume", str(folder), f"data_dir={json.dumps(run.settings.data_dir)}"]
        slot = self._free.pop(0)
        with self._log(run).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*START, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_of(slot, self._gpus, os.environ),
                start_new_session=True,
            )
        self._children.append(_Child(run, slot, process, time.monotonic()))

    def _log(self, run: Planned) -> pathlib.Path:
        return self._out / "logs" / f"{run.name}.txt"

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
        self._note(child.run.name, time.monotonic() - child.began)

    def _failure(self, child: _Child) -> Exception:
        log, code = self._log(child.run), child.process.returncode
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        ended = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        kind = UserError if code == 2 else RunFailed
        return kind(f"{child.run.name}: {errors[-1] if errors else ended}; see {log}")

    def _show(self, progress: SweepProgress) -> None:
        shares = ((child.run, share_done(child.run, self._out / "runs" / child.run.name)) for child in self._children)
        under_way = sum(self._work[run.name] * share for run, share in shares)
        progress.show(self._done + under_way, self.left, len(self._children))

    def _stop(self) -> None:
        """Ends what still runs: by SIGINT first, so that it writes what it has, by SIGKILL when that takes too long."""
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
    """Returns the environment of a run: our own, this program's modules first, one of the GPUs that we may use.

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
