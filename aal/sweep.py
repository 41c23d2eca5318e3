"""Many runs: each a process of main.py, several at a time; finished ones are left alone, begun ones are resumed."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from tqdm import tqdm

import aal
from aal.config.errors import RunFailed, UserError, of_system
from aal.config.loading import read_config, resolve
from aal.config.settings import Settings
from aal.config.terminal import write_line
from aal.engines.signals import collected
from aal.storage.atomic import TEMPORARY, claimed, write_whole
from aal.storage.run_reader import RunReader

ROOT = pathlib.Path(aal.__file__).resolve().parents[1]
# A run dies with this program, even when this one is killed; -P keeps an `aal` of the user's folder out of it.
CODE = "import sys, aal.engines.local.die_with_parent; from aal.app import main; sys.exit(main.main())"
START = [sys.executable, "-P", "-c", CODE]
LOOK_EVERY_S, STOP_WITHIN_S = 0.2, 60.0
FREE_TO_CHANGE = {"name", "data_dir", "prepared_dir", "devices"}


@dataclass(frozen=True)
class Planned:
    """A run to be made."""

    name: str  # of its folder; the same name means the same settings
    config: dict[str, Any]  # what its YAML file says

    @property
    def settings(self) -> Settings:
        """All its settings, defaults filled in."""
        return resolve(self.config, self.name)

    def is_finished(self, folder: pathlib.Path) -> bool:
        """Returns whether its folder holds the whole run; raises UserError where the settings there are others."""
        path = folder / "config.yaml"
        if not path.exists():
            return False
        planned = self.settings
        free = dict.fromkeys(FREE_TO_CHANGE | planned.left_open, True) | {"training": set(planned.training.left_open)}
        there = resolve(read_config(path), str(path)).model_dump(exclude=free)
        wanted = planned.model_dump(exclude=free)
        if other := sorted(key for key in wanted if there[key] != wanted[key]):
            raise UserError(f"{folder}: was run with another {', '.join(other)} than is planned; use another --out")
        with contextlib.suppress(UserError), RunReader(folder) as record:  # there is none before the hub has started
            return record.meta().get("ended") == "finished"
        return False


@contextlib.contextmanager
def claimed_folder(out: pathlib.Path) -> Iterator[None]:
    """Makes the folder of a sweep and holds it for this program; raises an error where it cannot."""
    with contextlib.ExitStack() as stack:
        try:
            for name in ("runs", "configs", "logs"):
                (out / name).mkdir(parents=True, exist_ok=True)
            stack.enter_context(claimed(out, f"--out {out}: another program works in this folder"))
        except OSError as error:
            raise of_system(error, f"--out {out}: cannot be used: {error.strerror}") from None
        yield


def seconds_taken(out: pathlib.Path) -> dict[str, float]:
    """Returns the seconds that runs and figures took, by name, over all calls of the command."""
    path = out / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def add_seconds(out: pathlib.Path, name: str, seconds: float) -> None:
    """Notes that a run or a figure took so long, beside what it took before."""
    taken = seconds_taken(out)
    taken[name] = round(taken.get(name, 0.0) + seconds, 1)
    write_whole(out / "seconds.json", (json.dumps(taken, indent=2) + "\n").encode())


class _Child(NamedTuple):
    run: Planned
    log: pathlib.Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]
    began: float


def run_all(title: str, out: pathlib.Path, runs: Sequence[Planned], environments: Sequence[Mapping[str, str]]) -> str:
    """Starts or resumes runs in `out/runs`, with an environment for each that goes on at the same time.

    Their configs are in `out/configs`, what they print in `out/logs`; `title` names the whole.

    Returns:
        `finished`, or the name of the signal that ended it. A second signal ends at once.

    Raises:
        RunFailed, UserError: a run failed, its last error is the message; the latter when the user can mend it.
    """
    waiting, free, noted = list(runs), list(environments), time.monotonic()
    children: list[_Child] = []
    bar = tqdm(total=len(runs), desc=title, unit="run", dynamic_ncols=True, disable=None)
    with collected(limit=1) as caught, contextlib.closing(bar):
        try:
            while (waiting or children) and not caught:
                while waiting and free:
                    children.append(_begin(waiting.pop(0), out, free.pop(0)))
                for child in [child for child in children if child.process.poll() is not None]:
                    children.remove(child)
                    free.append(child.environment)
                    _end(child, out)
                    add_seconds(out, title, time.monotonic() - noted)
                    noted = time.monotonic()
                    bar.update()
                    if bar.disable:  # not a terminal
                        write_line(f"{title}: {child.run.name} is done, {len(waiting + children)} left", sys.stderr)
                bar.refresh()
                time.sleep(LOOK_EVERY_S)
        finally:
            _stop(children, out)
            add_seconds(out, title, time.monotonic() - noted)
    return caught[0] if caught else "finished"


def _begin(run: Planned, out: pathlib.Path, environment: Mapping[str, str]) -> _Child:
    """Starts or resumes a run in a session of its own: this program passes a terminal's Ctrl-C on, once."""
    folder, log, nothing = out / "runs" / run.name, out / "logs" / f"{run.name}.txt", subprocess.DEVNULL
    if (folder / "config.yaml").exists():
        words = ["--resume", str(folder), f"data_dir={json.dumps(run.settings.data_dir)}"]
    else:
        for left in folder.glob(f"{TEMPORARY}*"):  # by a run that was killed before it had begun
            left.unlink()
        config = out / "configs" / f"{run.name}.yaml"
        write_whole(config, yaml.safe_dump(run.config, sort_keys=False).encode())
        words = ["--config", str(config), "--out", str(folder)]
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*START, *words], env=environment, stdin=nothing, stdout=file, stderr=file, start_new_session=True
        )
    return _Child(run, log, environment, process, time.monotonic())


def _end(child: _Child, out: pathlib.Path) -> None:
    """Notes the time of a run that has ended; raises what it failed by."""
    add_seconds(out, child.run.name, time.monotonic() - child.began)
    if code := child.process.returncode:
        lines = child.log.read_text(encoding="utf-8", errors="replace").splitlines()
        ended = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        errors = [ended, *(line.removeprefix("error: ") for line in lines if line.startswith("error: "))]
        raise (UserError if code == 2 else RunFailed)(f"{child.run.name}: {errors[-1]}; see {child.log}")


def _stop(children: Sequence[_Child], out: pathlib.Path) -> None:
    """Ends what still runs: by SIGINT first, so that it writes what it has, by SIGKILL when that takes too long."""
    for child in children:
        child.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_WITHIN_S
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        add_seconds(out, child.run.name, time.monotonic() - child.began)


def environments_of(jobs: int, gpus: int, own: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns environments for runs at the same time: our own, our modules first, one of the GPUs that we may use.

    Without `gpus` to share out, the choice is left to the runs.
    """
    common = {**own, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [own.get("PYTHONPATH")])])}
    if not gpus:
        return [common] * jobs
    allowed = own.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    return [{**common, "CUDA_VISIBLE_DEVICES": allowed[job % gpus].strip()} for job in range(jobs)]
