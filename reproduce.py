"""Reproduces a figure or table of the paper: runs what it takes, draws it, and judges the paper's claims.

Examples:
  python reproduce.py figure2 --scale tiny
  python reproduce.py figure2 --methods AAL random entropy --batches 5000
  python reproduce.py table1 --scale paper --data_type cifar-100 --seeds 5
  python reproduce.py diam --scale cpu (several target models; diam --help lists its options)
  python reproduce.py kafal --scale cpu (federated; kafal --help lists its options)
  python reproduce.py strategies --settings balanced --methods random margin
  python reproduce.py people --answers answers.csv (one, two or three answers an image)

Runs that are finished are not run again: the same command goes on with a sweep that was stopped.
"""

import importlib
import os
import pathlib
import shlex
import sys
import time
from argparse import Namespace, RawDescriptionHelpFormatter
from typing import Any

from aal.app.experiments.aal_2021.plans import CHOICES, SCALES, Run, Setup, measuring, paper_settings, plan_of
from aal.app.experiments.aal_2021.published import BATCHES, DATA_TYPES, METHODS
from aal.app.experiments.studies import problems_of_numbers, run_plan
from aal.config.cores import core_count
from aal.config.errors import RunFailed, UserError, of_system
from aal.config.loading import read_config
from aal.config.registry import IMAGE_SETS, STRATEGIES
from aal.config.terminal import ArgumentParser, run_command, write_line
from aal.sweep import add_seconds, claimed_folder, environments_of, seconds_taken

# Studies with options of their own, and where they are.
STUDIES = {"diam": "diam_2022", "kafal": "kafal_2023", "people": "people", "strategies": "labels_saved"}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0 done, 1 a run or a check failed, 2 the user's mistake, 130 interrupted (129, 143)."""
    words = sys.argv[1:] if argv is None else argv
    return run_command(lambda: _reproduce(words))


def _reproduce(words: list[str]) -> int:
    if words and words[0] in STUDIES:
        return int(importlib.import_module(f"aal.app.experiments.{STUDIES[words[0]]}.command").run(words[1:]))
    arguments = _parser().parse_args(words)
    setup, out = _checked(arguments)
    with claimed_folder(out):
        return _make(arguments.figure, setup, out, arguments.jobs, shlex.join(["python", "reproduce.py", *words]))


def _parser() -> ArgumentParser:
    parser = ArgumentParser("reproduce.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("figure", choices=CHOICES)
    add("--data_type", metavar="D", help=f"{', '.join(DATA_TYPES)}, or digits (at scale tiny, where it is the default)")
    add("--scale", default="cpu", choices=SCALES, help="paper: its own setting; cpu: a fifth of it")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each kind (3); figure4 needs one")
    add("--methods", nargs="+", metavar="M", help=f"some of {', '.join(METHODS)}, as far as the figure has them")
    add("--batches", nargs="+", type=int, metavar="B", help="some of the paper's batch sizes, 1000 2500 5000")
    add("--out", metavar="DIR", help="results/<data_type>-<scale> by default")
    add("--data_dir", metavar="DIR", help="where the images are; as in the configs by default")
    add("--jobs", type=int, metavar="N", help="runs at a time; a core or a GPU each by default")
    return parser


def _checked(arguments: Namespace) -> tuple[Setup, pathlib.Path]:
    """Returns what was chosen, and the folder for it; raises UserError with all that is wrong, a line each."""
    figure, scale = arguments.figure, arguments.scale
    problems = []
    data_type = str(IMAGE_SETS.canonical(arguments.data_type or ("digits" if scale == "tiny" else "cifar-10")))
    allowed = (*DATA_TYPES, "digits") if scale == "tiny" else DATA_TYPES
    if data_type not in allowed:
        problems.append(f"--data_type {arguments.data_type}: at scale {scale} it is one of {', '.join(allowed)}")
    problems += problems_of_numbers(arguments)
    chosen: list[Any] = []
    for option, allowed in zip(("methods", "batches"), CHOICES[figure], strict=True):
        given = getattr(arguments, option) or allowed
        named = ["AAL" if str(one).upper() == "AAL" else STRATEGIES.canonical(one) for one in given]
        right = f"of {figure} it is some of {', '.join(map(str, allowed))}" if allowed else f"{figure} has no choice"
        problems += [f"--{option} {one}: {right}" for one in named if one not in allowed]
        chosen.append(tuple(one for one in allowed if one in named))  # in the order of the paper
    if problems:
        raise UserError(*problems)
    data_dir = arguments.data_dir or paper_settings(data_type, f"batch{BATCHES[0]}")["data_dir"]
    seeds = 1 if figure == "figure4" else arguments.seeds
    setup = Setup(scale, data_type, str(pathlib.Path(data_dir).absolute()), seeds, *chosen)
    return setup, pathlib.Path(arguments.out or f"results/{data_type}-{scale}")


def _make(figure: str, setup: Setup, out: pathlib.Path, jobs: int | None, command: str) -> int:
    """Runs the sweep and writes the figure; returns the exit code."""
    plan = plan_of(figure, setup, _measured(setup, out) if figure == "figure4" else None)

    if code := run_plan(figure, out, plan, lambda: _environments(figure, setup, jobs), command):
        return code
    return _write(figure, setup, out, plan, command)


def _measured(setup: Setup, out: pathlib.Path) -> dict[str, float]:
    """Returns what work costs on this machine; measured once, by a run that keeps it, so that all have the same."""
    from aal.app import main
    from aal.reporting.progress import Progress

    folder = out / "runs" / f"costs-{setup.scale}"
    if not (folder / "config.yaml").exists():
        write_line("measuring what training and scoring cost on this machine", sys.stdout)
        began = time.monotonic()
        _, result = main.start(measuring(setup), str(folder), Progress(None))
        if result.exit_code:
            raise RunFailed(f"{folder.name}: {result.cause}")
        add_seconds(out, "figure4", time.monotonic() - began)
    return dict(read_config(folder / "config.yaml")["costs"])


def _environments(figure: str, setup: Setup, jobs: int | None) -> list[dict[str, str]]:
    """Returns an environment for each run that goes on at the same time.

    Runs are simulated, with one thread each, and do not wait for one another: a run a core is right on a busy machine
    too.
    """
    gpus = 0
    if setup.scale == "paper" and figure != "figure4":
        import torch

        gpus = torch.cuda.device_count()
    return environments_of(jobs or gpus or core_count(), gpus, os.environ)


def _write(figure: str, setup: Setup, out: pathlib.Path, plan: list[Run], command: str) -> int:
    """Writes picture, CSV and page; returns the exit code."""
    import pandas as pd

    from aal.app.experiments.aal_2021 import accuracy, checks, query_times
    from aal.app.experiments.aal_2021.page import compose
    from aal.app.experiments.aal_2021.results import read_results
    from aal.reporting.plots import save
    from aal.storage.atomic import write_whole

    results = read_results(plan, out / "runs")
    story = getattr(query_times if figure == "figure4" else accuracy, figure)(setup, results)
    found = [] if figure == "figure4" else [*checks.check(results), checks.concluded(results, story.claims)]
    page = compose(figure, story, setup, results, found, command, seconds_taken(out))
    table = pd.DataFrame(story.rows, dtype=object)  # numbers stay as they are, also beside missing ones
    try:
        save(story.picture, out / figure)
        write_whole(out / f"{figure}.csv", table.to_csv(index=False).encode())
        write_whole(out / f"{figure}.md", page.encode())
    except OSError as error:
        raise of_system(error, f"{out}: cannot be written: {error.strerror or error}") from None
    for claim in story.claims:
        write_line(f"{claim.text}: {claim.verdict} ({claim.runs})", sys.stdout)
    write_line(f"page: {out / figure}.md", sys.stdout)
    if broken := [f"check failed: {check.promise}" for check in found if check.broken]:
        raise RunFailed("\n".join(broken))
    return 0


if __name__ == "__main__":
    sys.exit(main())
