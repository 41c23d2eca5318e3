"""Damaged directories of runs: no traceback, and no acknowledged answer gone without a word.

Each case takes a copy of a run that finished, or that was killed, damages one or two of its parts, and gives it to two
of the commands that a user has. What is broken is a command that prints a traceback, exits with another code than 0, 1
or 2, or exits with 0 while an answer is gone that was on disk before.
"""

import pathlib
import random
import subprocess
import sys
import tempfile

from bench.fuzz.case import Broken, Case, TooLong
from bench.fuzz.made_runs import KINDS, Made, answers_of, copy_run, made_run
from bench.fuzz.run_damages import damage
from bench.run_process import ROOT

NUMBER = 300
SECONDS = 600.0  # a run that is resumed takes some seconds on an idle machine


def make(place: pathlib.Path, seed: int, number: int) -> Case:
    """Makes a damaged copy of a run, to be resumed and then given to another command."""
    chance = random.Random(f"{seed} {number}")
    kind, run = chance.choice(list(KINDS)), place / str(number)
    made = made_run(kind, place / "made")
    copy_run(made.folder, run)
    done = [damage(run, made, chance) for _ in range(chance.choice((1, 1, 2)))]
    names = ("resume", chance.choice(("report", "export", "eval")))
    commands = _commands_for(run)
    return Case(f"{kind}, {' and '.join(done)}", lambda: [_tried(run, made, name, commands[name]) for name in names])


def _commands_for(run: pathlib.Path) -> dict[str, list[str]]:
    """Returns what a user may do with a run directory, in words for Python."""
    models = sorted((run / "models").glob("*.pt")) if (run / "models").is_dir() else []
    newest = str(models[-1] if models else run / "models" / "none.pt")
    return {
        "resume": ["main.py", "--resume", str(run)],
        "report": ["-m", "aal.report", str(run)],
        "export": ["-m", "aal.export", str(run), "--format", "csv"],
        "eval": ["eval.py", "--path", newest],
    }


def _tried(run: pathlib.Path, made: Made, name: str, words: list[str]) -> str:
    """Runs a command on a damaged run; returns its name and exit code."""
    code, said = _ran(words)
    if "Traceback" in said:
        raise Broken(f"{name}: {said[-1500:]}")
    if code not in (0, 1, 2):
        raise Broken(f"{name}: exit code {code}: {said[-300:]}")
    if code and "error: " not in said and "not drawn" not in said:
        raise Broken(f"{name}: exit code {code} without a word: {said[-300:]}")
    if code == 0 and name == "export":
        rows = [line.split(",") for line in (run / "labels.csv").read_text().splitlines()[1:]]
        bought = sum(row[4] == "annotator" for row in rows)
        if bought < len(made.answers):
            raise Broken(f"export: gives out {bought} of {len(made.answers)} answers")
    if code == 0 and name == "resume" and (gone := len(made.answers - answers_of(run))):
        raise Broken(f"resume: {gone} of {len(made.answers)} answers are gone: {said[-300:]}")
    return f"{name}: exit code {code}"


def _ran(words: list[str]) -> tuple[int, str]:
    """Runs a command; returns its exit code and what it printed."""
    with tempfile.TemporaryFile() as output:

        def said() -> str:
            output.seek(0)
            return output.read().decode(errors="replace")

        command = [sys.executable, *words]
        try:
            ended = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False)  # noqa: S603 - our own
        except TooLong as error:
            raise TooLong(f"{error}: {' '.join(words)}: {said()[-1500:]}") from None
        return ended.returncode, said()
