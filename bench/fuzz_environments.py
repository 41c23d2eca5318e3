"""Commands in environments that take something away: each must end by itself, without a traceback, and say why.

Every command is started in every environment: output closed, full or in ASCII, a temporary folder that is missing, full
or too long, folders that are gone, full, read-only or not allowed, few open files, little memory, nothing in the
environment. What needs a mount or capabilities is skipped where this user may not have them.

Example:
  python -m bench.fuzz_environments --environments ascii few-files --commands run eval
"""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import yaml

from bench.rows import parser_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
SECONDS = 300.0  # that a command may take
TINY = "worker_num=2 worker_query_num=2 query_batch=10 server_train_threshold=20 initial_size=40 val_size=20"
QUICK = f"{TINY} server_num=1 training.epochs=2 training.validate_after=0 annotators.seconds_per_label=0.01"
NOTHING = "--config digits.yaml engine=simulated compute=none"
# $RUN is a finished run with models, beside the working folder.
COMMANDS = {
    "run": f"main.py {NOTHING} {TINY} --out new",
    "local": f"main.py --config digits.yaml {QUICK} devices.server_threads=1 --out new",
    "resume": 'main.py --resume "$RUN" worker_query_num=3',
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


class Ended(NamedTuple):
    """How a command ended in an environment."""

    environment: str
    command: str
    code: int
    seconds: float
    said: str
    problem: str


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 all held, 1 something did not."""
    parser = parser_of("bench.fuzz_environments", __doc__)
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS), metavar="E")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="C")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    ended, skipped = [], []
    with tempfile.TemporaryDirectory() as folder:
        finished = finished_run(pathlib.Path(folder))
        for environment in arguments.environments:
            if why := lacks(environment):
                skipped.append(f"{environment}: {why}")
                continue
            for command in arguments.commands:
                ended.append(start(environment, command, finished, pathlib.Path(folder) / f"{environment}-{command}"))
                print(*ended[-1], sep="  ", file=sys.stderr, flush=True)
    failures = [one._asdict() for one in ended if one.problem]
    found = {"commands": len(ended), "skipped": skipped, "failures": failures}
    print(json.dumps(found) if arguments.json else yaml.safe_dump(found, sort_keys=False, allow_unicode=True))
    return int(bool(failures))


def lacks(environment: str) -> str | None:
    """Returns why an environment cannot be made here; None where it can."""
    kind = environment.partition("-")[0]
    if kind in ("mount", "root") and os.geteuid():
        return None if kind == "root" else "only root may mount"
    needed = {"mount": ["unshare", "-m", "true"], "root": [*BITES.split(), "true"]}.get(kind)
    if needed and (shutil.which(needed[0]) is None or subprocess.run(needed, capture_output=True).returncode):  # noqa: S603
        return f"{' '.join(needed[:-1])} is not allowed"
    return None


def finished_run(folder: pathlib.Path) -> pathlib.Path:
    """Makes a short run whose copies the commands are given."""
    words = [sys.executable, str(ROOT / "main.py"), "--config", "digits.yaml", *QUICK.split(), "engine=simulated"]
    words += [f"data_dir={folder / 'images'}", "--out", str(folder / "run")]
    subprocess.run(words, check=True, capture_output=True, env=_variables(), timeout=SECONDS)  # noqa: S603
    return folder / "run"


def start(environment: str, command: str, finished: pathlib.Path, folder: pathlib.Path) -> Ended:
    """Starts a command in an environment, in a folder of its own, and judges how it ended."""
    shutil.copytree(finished, folder / "run")
    (folder / "work").mkdir()
    before, after = ENVIRONMENTS[environment]
    words = COMMANDS[command].replace("main.py", f"{ROOT}/main.py").replace("eval.py", f"{ROOT}/eval.py")
    words = words.replace("reproduce.py", f"{ROOT}/reproduce.py")
    if environment == "long-name":
        words = words.replace("new", "$NEW").replace("labels.csv", "$NEW").replace("digits.yaml", "$NEW")
    if command in ("run", "local"):
        words += f" data_dir={finished.parent / 'images'}"
    called = f"{BITES} " if environment.startswith("root-") and not os.geteuid() else ""
    called += f"env -i PYTHONPATH={ROOT} " if environment == "nothing" else ""
    script = f"RUN=../run; {before} {called}{shlex.quote(sys.executable)} {words} {after}; exit ${{PIPESTATUS[0]}}"
    shell = [*(["unshare", "-m"] if environment.startswith("mount-") else []), "/bin/bash", "-c", script]
    began = time.monotonic()
    process = subprocess.Popen(  # noqa: S603
        shell,
        cwd=folder / "work",
        env=_variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=SECONDS)[0].decode(errors="backslashreplace")
        problem = "; ".join(_problems(environment, process.returncode, said))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, problem = process.communicate()[0].decode(errors="backslashreplace"), "did not end"
    subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=False)  # noqa: S603, S607
    return Ended(
        environment,
        command,
        process.returncode,
        round(time.monotonic() - began, 1),
        said[-4000 if problem else -200 :],
        problem,
    )


def _problems(environment: str, code: int, said: str) -> Iterator[str]:
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


def _variables() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    sys.exit(main())
