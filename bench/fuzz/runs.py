"""Damaged directories of runs: no traceback, and no acknowledged answer gone without a word.

Each case takes a copy of a run that finished, or that was killed, damages one or two of its parts, and gives it to two
of the commands that a user has. What is broken is a command that prints a traceback, exits with another code than 0, 1
or 2, or exits with 0 while an answer is gone that was on disk before.
"""

import os
import pathlib
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

from aal import export, report
from aal.app import eval as evaluation
from aal.app import main as program
from bench.fuzz.case import Broken, Case
from bench.fuzz.made_runs import KINDS, Made, answers_of, copy_run, made_run
from bench.fuzz.run_damages import damage

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


def _commands_for(run: pathlib.Path) -> dict[str, Callable[[], int]]:
    """Returns what a user may do with a run directory."""
    models = sorted((run / "models").glob("*.pt")) if (run / "models").is_dir() else []
    newest = str(models[-1] if models else run / "models" / "none.pt")
    return {
        "resume": lambda: program.main(["--resume", str(run)]),
        "report": lambda: report.main([str(run)]),
        "export": lambda: export.main([str(run), "--format", "csv"]),
        "eval": lambda: evaluation.main(["--path", newest]),
    }


def _tried(run: pathlib.Path, made: Made, name: str, act: Callable[[], int]) -> str:
    """Runs a command on a damaged run; returns its name and exit code."""
    code, said = _apart(act)
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


def _apart(act: Callable[[], int]) -> tuple[int, str]:
    """Runs a command in a process of its own, forked so that nothing is imported anew.

    Returns:
        Its exit code and what it printed.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            code = 70
            try:
                code = act()
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = None
        try:
            _, status = os.waitpid(child, 0)
        finally:
            if status is None:  # it took too long, or the bench is interrupted
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")
