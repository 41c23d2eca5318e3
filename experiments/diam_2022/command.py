"""`reproduce.py diam`: runs the study of several target models, and writes its page."""

import os
import pathlib
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence

from aal.app.experiments.diam_2022.plans import DATA_TYPES, SCALES, Setup, methods, plan_of
from aal.app.experiments.studies import problems_of_numbers, run_plan
from aal.config.cores import core_count
from aal.config.errors import UserError
from aal.config.registry import STRATEGIES
from aal.config.terminal import ArgumentParser, write_line
from aal.sweep import claimed_folder, environments_of, seconds_taken


def run(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(words)
    setup = _checked(arguments)
    out = pathlib.Path(arguments.out or f"results/diam-{setup.data_type}-{setup.scale}")
    command = shlex.join(["python", "reproduce.py", "diam", *words])
    with claimed_folder(out):
        plan = plan_of(setup)
        if code := run_plan(
            "diam", out, plan, lambda: environments_of(arguments.jobs or core_count(), 0, os.environ), command
        ):
            return code
        from aal.app.experiments.diam_2022.page import write_page

        page = write_page(setup, plan, out, command, seconds_taken(out).get("diam", 0.0))
    write_line(f"page: {page}", sys.stdout)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser("reproduce.py diam", description="Several target models (DIAM): curves, table, claims.")
    add = parser.add_argument
    add("--data_type", default="mnist", metavar="D", help=f"one of {', '.join(DATA_TYPES)} (mnist)")
    add("--scale", default="cpu", choices=SCALES, help="paper: its own setting; cpu: a small part of it")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each kind (3)")
    add("--methods", nargs="+", metavar="M", help=f"some of {', '.join(methods())}")
    add("--targets", nargs="+", type=int, metavar="N", help="numbers of target models (cpu: 2 4, paper: 2 4 6 8 12)")
    add("--asynchronous", action="store_true", help="run DIAM asynchronously too, for its waits")
    add("--out", metavar="DIR", help="results/diam-<data_type>-<scale> by default")
    add("--data_dir", default="data/downloads", metavar="DIR", help="where the images are (data/downloads)")
    add("--jobs", type=int, metavar="N", help="runs at a time; a core each by default")
    return parser


def _checked(arguments: Namespace) -> Setup:
    """Returns what was chosen; raises UserError with all that is wrong, a line each."""
    scale, problems = SCALES[arguments.scale], []
    data_type = "digits" if arguments.scale == "tiny" else arguments.data_type
    if data_type not in DATA_TYPES or (data_type == "digits") != (arguments.scale == "tiny"):
        problems.append(f"--data_type {data_type}: must be one of {', '.join(DATA_TYPES[:-1])}")
    problems += problems_of_numbers(arguments)
    chosen = [STRATEGIES.canonical(one) for one in arguments.methods or methods()]
    problems += [f"--methods {one}: is some of {', '.join(methods())}" for one in chosen if one not in methods()]
    numbers = arguments.targets or scale.numbers
    most = len(scale.targets)
    problems += [f"--targets {one}: must be from 1 to {most}" for one in numbers if not 1 <= one <= most]
    if problems:
        raise UserError(*problems)
    in_order = tuple(one for one in methods() if one in chosen)
    place = str(pathlib.Path(arguments.data_dir).absolute())
    numbers = tuple(sorted(set(numbers)))
    return Setup(arguments.scale, data_type, place, arguments.seeds, in_order, numbers, arguments.asynchronous)
