"""Commands in environments that take something away: each must end by itself, without a traceback, and say why.

Every command is started in every environment: output closed, full or in ASCII, a temporary folder that is missing, full
or too long, folders that are gone, full, read-only or not allowed, few open files, little memory, nothing in the
environment. What needs a mount or capabilities is skipped where this user may not have them.
"""

import os
import pathlib
import random
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from bench.fuzz.case import Broken, Case, TooLong
from bench.fuzz.made_runs import made_run
from bench.settings import KINDS

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 300.0  # a run takes some seconds on an idle machine
NOTHING = f"{KINDS['fuzz']} engine=simulated compute=none"
# $RUN is a finished run with models, beside the working folder.
COMMANDS = {
    "run": f"main.py {NOTHING} data_dir={{images}} --out new",
    "local": f"main.py {KINDS['fuzz']} annotators.seconds_per_label=0.01 data_dir={{images}} --out new",
    "resume": 'main.py --resume "$RUN" worker_query_num=5',
    "mistake": f"main.py {NOTHING} worker_nun=3",
    "eval": 'eval.py --path "$RUN"/models/training-0000-server-0.pt',
    "report": '-m aal.report "$RUN"',
    "export": '-m aal.export "$RUN" --format csv --out labels.csv',
    "reproduce": "reproduce.py --help",
}
BITES = "setpriv --bounding-set=-dac_override,-dac_read_search"  # so that permissions bind root too
# What stands before and after the command in a shell; "mount" and "root" in a name say what it needs.
ENVIRONMENTS: dict[str, tuple[str, str]] = {
    "plain": ("", ""),
    "ascii": ("export PYTHONIOENCODING=ascii LC_ALL=C PYTHONUTF8=0;", ""),
    "nothing": ("", ""),
    "no-input": ("", "<&-"),
    "no-output": ("", ">&-"),
    "no-errors": ("", "2>&-"),
    "no-streams": ("", "<&- >&- 2>&-"),
    "output-full": ("", ">/dev/full 2>/dev/full"),
    "output-read-once": ("", "| head -n 1"),
    "folder-gone": ('mkdir gone; cd gone; rmdir "$PWD";', ""),
    "few-files": ("ulimit -n 20;", ""),
    "some-files": ("ulimit -n 60;", ""),
    "little-memory": ("ulimit -v 400000;", ""),
    "some-memory": ("ulimit -v 1500000;", ""),
    "no-temporary": ("export TMPDIR=/nowhere;", ""),
    "long-temporary": ("mkdir -p {long}; export TMPDIR=$PWD/{long};".format(long="x" * 120), ""),
    "odd-name": ("mkdir $'f\\xf6\\e[2J\\n\\u732b'; cd f*; RUN=../$RUN;", ""),
    "long-name": ("NEW={};".format("y" * 300), ""),
    "mount-temporary-full": (
        "mkdir t; mount -t tmpfs -o size=4k tmpfs t; head -c 9000 /dev/zero >t/x 2>/dev/null; export TMPDIR=$PWD/t;",
        "",
    ),
    "mount-folder-full": ("mkdir d; mount -t tmpfs -o size=64k tmpfs d; cd d; RUN=../$RUN;", ""),
    "mount-folder-read-only": ("mount --bind . .; mount -o remount,ro,bind .; cd $PWD;", ""),
    "mount-run-read-only": ('mount --bind "$RUN" "$RUN"; mount -o remount,ro,bind "$RUN";', ""),
    "root-folder-not-allowed": ("chmod 500 .;", ""),
    "root-run-not-allowed": ('chmod 000 "$RUN";', ""),
    "root-models-not-allowed": ('chmod 000 "$RUN"/models "$RUN"/config.yaml;', ""),
}
PAIRS = [(environment, command) for environment in ENVIRONMENTS for command in COMMANDS]
NUMBER = len(PAIRS)


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    said: str


def make(place: pathlib.Path, seed: int, number: int) -> Case:
    """Makes a pair of an environment and a command; NUMBER of them in a row are all that there are."""
    environment, command = random.Random(seed).sample(PAIRS, NUMBER)[number % NUMBER]
    about = f"{command} in {environment}"
    if why := lacks(environment):
        return Case(about, lambda: [f"skipped: {why}"])
    finished = made_run("simulated", place / "made").folder

    def attempt() -> list[str]:
        ended = start(environment, command, finished, place / str(number))
        if found := "; ".join(problems(environment, ended)):
            raise Broken(f"{found}; exit code {ended.code}: {ended.said[-4000:]}")
        return [f"{command}: exit code {ended.code}"]

    return Case(about, attempt)


def lacks(environment: str) -> str | None:
    """Returns why an environment cannot be made here; None where it can."""
    kind = environment.partition("-")[0]
    if kind in ("mount", "root") and os.geteuid():
        return None if kind == "root" else "only root may mount"
    needed = {"mount": ["unshare", "-m", "true"], "root": [*BITES.split(), "true"]}.get(kind)
    if needed and (shutil.which(needed[0]) is None or subprocess.run(needed, capture_output=True).returncode):  # noqa: S603
        return f"{' '.join(needed[:-1])} is not allowed"
    return None


def start(environment: str, command: str, finished: pathlib.Path, folder: pathlib.Path) -> Ended:
    """Starts a command in an environment, in a folder of its own, with a copy of a finished run beside it."""
    shutil.copytree(finished, folder / "run")
    (folder / "work").mkdir()
    before, after = ENVIRONMENTS[environment]
    words = COMMANDS[command].format(images=finished.parent / "images")
    for program in ("main.py", "eval.py", "reproduce.py"):
        words = words.replace(program, f"{ROOT}/{program}")
    if environment == "long-name":
        words = words.replace("--out new", "--out $NEW").replace("labels.csv", "$NEW").replace("digits.yaml", "$NEW")
    called = f"{BITES} " if environment.startswith("root-") and not os.geteuid() else ""
    called += f"env -i PYTHONPATH={ROOT} " if environment == "nothing" else ""
    script = f"RUN=../run; {before} {called}{shlex.quote(sys.executable)} {words} {after}; exit ${{PIPESTATUS[0]}}"
    shell = [*(["unshare", "-m"] if environment.startswith("mount-") else []), "/bin/bash", "-c", script]
    process = subprocess.Popen(  # noqa: S603
        shell,
        cwd=folder / "work",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said = process.communicate()[0]
    except (TooLong, KeyboardInterrupt) as ended:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[0]
        if isinstance(ended, KeyboardInterrupt):
            raise
        raise Broken(f"did not end: {said[-4000:].decode(errors='backslashreplace')}") from None
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=False)  # noqa: S603, S607
    return Ended(process.returncode, said.decode(errors="backslashreplace"))


def problems(environment: str, ended: Ended) -> Iterator[str]:
    """Yields what a command did that it may not, in an environment."""
    code, said = ended
    if "Traceback" in said or "Exception ignored" in said:
        yield "a traceback"
    if code not in (0, 1, 2, 130):
        yield f"exit code {code}"
    is_heard = "streams" not in environment and "no-errors" not in environment and "output-full" not in environment
    lines = [line for line in said.splitlines() if "error: " in line]
    if code and is_heard and not lines:
        yield "nothing said"
    if any(len(line) > 1000 for line in lines) or len(lines) > 4:
        yield "too much said"
    if "\x1b" in said:
        yield "text that acts on a terminal"
