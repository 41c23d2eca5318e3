"""The command `reproduce.py people`."""

import os
import pathlib
import shlex
import sys
from argparse import Namespace

import pandas as pd

from aal.app.experiments.people.page import page_of, read_results, rows_of, shares_right
from aal.app.experiments.people.plans import BASELINE, KINDS, Setup, plan_of
from aal.app.experiments.studies import problems_of_numbers, run_plan
from aal.config.cores import core_count
from aal.config.errors import UserError, of_system
from aal.config.terminal import ArgumentParser, write_line
from aal.storage.atomic import write_whole
from aal.sweep import claimed_folder, environments_of, seconds_taken

NAME = "people"


def run(words: list[str]) -> int:
    """Runs the command without its first word; returns its exit code."""
    arguments = _parser().parse_args(words)
    setup, out = _checked(arguments), pathlib.Path(arguments.out)
    plan, command = plan_of(setup), shlex.join(["python", "reproduce.py", NAME, *words])
    with claimed_folder(out):
        if code := run_plan(
            NAME, out, plan, lambda: environments_of(arguments.jobs or core_count(), 0, os.environ), command
        ):
            return code
        results = read_results(plan, out / "runs")
        page = page_of(setup, results, shares_right(setup), command, seconds_taken(out).get(NAME, 0.0))
        try:
            write_whole(out / f"{NAME}.csv", pd.DataFrame(rows_of(results)).to_csv(index=False).encode())
            write_whole(out / f"{NAME}.md", page.encode())
        except OSError as error:
            raise of_system(error, f"{out}: cannot be written: {error.strerror or error}") from None
        write_line(f"page: {out / NAME}.md", sys.stdout)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        f"reproduce.py {NAME}", description="One, two or three answers an image for the same money?"
    )
    add = parser.add_argument
    add(
        "--answers",
        required=True,
        metavar="FILE",
        help="answers of people to CIFAR-10: item, annotator, label, seconds",
    )
    add("--kinds", nargs="+", metavar="K", default=list(KINDS), help=f"some of {', '.join(KINDS)}")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each kind (3)")
    add("--data_dir", metavar="DIR", default="data/downloads", help="where the images of CIFAR-10 are")
    add("--out", metavar="DIR", default=f"results/{NAME}", help=f"results/{NAME} by default")
    add("--jobs", type=int, metavar="N", help="runs at a time; a core each by default")
    return parser


def _checked(arguments: Namespace) -> Setup:
    """Returns what was chosen; raises UserError with all that is wrong, a line each."""
    answers = pathlib.Path(arguments.answers).expanduser().absolute()
    problems = [f"--kinds {one}: it is some of {', '.join(KINDS)}" for one in arguments.kinds if one not in KINDS]
    problems += problems_of_numbers(arguments)
    if not answers.is_file():
        problems.append(f"--answers {arguments.answers}: there is no such file")
    if problems:
        raise UserError(*problems)
    kinds = tuple(kind for kind in KINDS if kind in arguments.kinds or kind == BASELINE)
    return Setup(kinds, arguments.seeds, str(pathlib.Path(arguments.data_dir).absolute()), str(answers))
