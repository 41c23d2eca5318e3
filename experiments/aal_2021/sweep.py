"""Runs a plan: each run a process of main.py, several at a time; what is finished is not run again."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import yaml
from tqdm import tqdm

import aal
from aal.app.experiments.aal_2021.plans import OUTSIDE_TEST, Run
from aal.config.errors import RunFailed, UserError
from aal.config.loading import read_config, resolve
from aal.engines.signals import collected
from aal.reporting.progress import say
from aal.storage.atomic import claimed, write_whole
from aal.storage.run_directory import MODELS
from aal.storage.run_reader import RunReader

ROOT = pathlib.Path(aal.__file__).resolve().parents[1]
# A run dies with this program, even when this one is killed; -P keeps an `aal` of the user's folder out of it.
CODE = "import sys, aal.engines.local.die_with_parent; from aal.app import main; sys.exit(main.main())"
START = [sys.executable, "-P", "-c", CODE]
LOOK_EVERY_S, SHOW_EVERY_S, STOP_WITHIN_S = 0.1, 1.0, 60.0
FREE_TO_CHANGE = {"name", "data_dir", "prepared_dir", "devices"}
# Estimates for the progress; the unit is one image scored.
IMAGES = {"digits": 1438}  # outside the test set
TRAINED = 3  # learning from an image takes about three times as long as scoring it
BEGIN = 20_000  # so many images could be scored while a run begins and ends

State = Literal["absent", "begun", "finished"]


@dataclass(frozen=True)
class Place:
    """The folder `out`, where a sweep keeps its runs, their configs, what they print, and how long they took."""

    out: pathlib.Path

    @property
    def runs(self) -> pathlib.Path:
        """The folder of the run folders."""
        return self.out / "runs"

    def notes(self) -> dict[str, Any]:
        """Returns what was noted: real seconds by figure and by run, measured costs."""
        path = self.out / "sweep.json"
        notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {"figures": {}, "runs": {}, "costs": {}, **notes}

    def note(self, kind: Literal["figures", "runs", "costs"], name: str, value: Any) -> None:
        """Notes something; it is on disk afterwards."""
        notes = self.notes()
        notes[kind][name] = value
        write_whole(self.out / "sweep.json", (json.dumps(notes, indent=2) + "\n").encode())

    def add_seconds(self, kind: Literal["figures", "runs"], name: str, seconds: float) -> None:
        """Adds to the real seconds that something took, over all calls of the command."""
        self.note(kind, name, round(self.notes()[kind].get(name, 0.0) + seconds, 1))

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the folder for this program alone; raises UserError where it cannot be made or another holds it."""
        with contextlib.ExitStack() as stack:
            try:
                for folder in (self.runs, self.out / "configs", self.out / "logs"):
                    folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(claimed(self.out, f"--out {self.out}: another reproduce.py works in this folder"))
            except OSError as error:
                raise UserError(f"--out {self.out}: cannot be used: {error.strerror}") from None
            yield


def state_of(run: Run, folder: pathlib.Path) -> State:
    """Returns how far a run is; raises UserError where its folder holds a run with other settings, or no run.

    Absent is also a run that was killed before it wrote its settings: what it left is an empty folder for models, or
    files whose names begin with a dot.
    """
    path, left = folder / "config.yaml", list(folder.iterdir()) if folder.exists() else []
    if all(one.name.startswith(".") or (one.name == MODELS and not any(one.iterdir())) for one in left):
        return "absent"
    if not path.is_file():
        raise UserError(f"{folder}: holds no run; remove it")
    there, wanted = (
        settings.model_dump(exclude=FREE_TO_CHANGE)
        for settings in (resolve(read_config(path), str(path)), run.settings)
    )
    if other := sorted(key for key in wanted if there[key] != wanted[key]):
        raise UserError(f"{folder}: was run with another {', '.join(other)} than is planned now; use another --out")
    with contextlib.suppress(UserError), RunReader(folder) as record:  # there is none before the hub has started
        return "finished" if record.meta().get("ended") == "finished" else "begun"
    return "begun"


def work_of(run: Run) -> float:
    """Returns about how much a run computes; the unit is one image scored."""
    s = run.settings
    if s.compute == "none":
        return float(BEGIN + s.budget)
    pool = IMAGES.get(s.data_type, OUTSIDE_TEST) - s.initial_size - s.val_size
    selections = s.worker_query_num if s.mode == "async" else s.budget // s.server_train_threshold
    scored = 0 if s.query_strategy == "random" else selections * pool
    return float(BEGIN + TRAINED * s.training.epochs * sum(run.grid) + scored)


def share_done(run: Run, folder: pathlib.Path) -> float:
    """Returns about which share of a run is done, by the models that it has published; 0 when it cannot be read."""
    with contextlib.suppress(UserError), RunReader(folder, timeout_s=0.2) as record:
        return min(1.0, sum(model["labels"] for model in record.models()) / sum(run.grid))
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
            RunFailed: a run failed, its last error is the message.
            UserError: the same, when the user can mend it.
        """
        progress = SweepProgress(self._figure, sum(self._work.values()), self._done)
        shown, self._noted = 0.0, time.monotonic()
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

    def _begin(self, run: Run) -> None:
        """Starts or resumes a run in a session of its own: this program passes a terminal's Ctrl-C on, once."""
        folder = self._place.runs / run.name
        if self._states[run.name] == "absent":
            shutil.rmtree(folder, ignore_errors=True)
            config = self._place.out / "configs" / f"{run.name}.yaml"
            write_whole(config, yaml.safe_dump(run.config, sort_keys=False).encode())
            words = ["--config", str(config), "--out", str(folder)]
        else:
            words = ["--resume", str(folder), f"data_dir={json.dumps(run.config['data_dir'])}"]
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

    def _show(self, progress: SweepProgress) -> None:
        shares = ((child.run, share_done(child.run, self._place.runs / child.run.name)) for child in self._children)
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
