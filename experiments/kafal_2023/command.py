"""`reproduce.py kafal`: runs the study of federated active learning, and writes its page."""

import os
import pathlib
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence

from aal.app.experiments.kafal_2023.plans import METHODS, SCALES, SPREADS, Setup, plan_of
from aal.app.experiments.kafal_2023.slow_clients import slow_plan
from aal.app.experiments.studies import problems_of_numbers, run_plan
from aal.config.cores import core_count
from aal.config.errors import UserError
from aal.config.registry import STRATEGIES
from aal.config.terminal import ArgumentParser, write_line
from aal.sweep import Planned, claimed_folder, environments_of, seconds_taken

MODELS = ("local", "global", "both")


def run(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(words)
    setup = _checked(arguments)
    out = pathlib.Path(arguments.out or f"results/kafal-{setup.data_type}-{setup.scale}")
    command = shlex.join(["python", "reproduce.py", "kafal", *words])
    with claimed_folder(out):
        plan, slow = plan_of(setup), slow_plan(setup) if setup.slow_clients else []
        runs: list[Planned] = [*plan, *slow]
        if code := run_plan("kafal", out, runs, lambda: _environments(setup, arguments.jobs), command):
            return code
        from aal.app.experiments.kafal_2023.page import write_page

        page, claims = write_page(setup, plan, slow, out, command, seconds_taken(out).get("kafal", 0.0))
    for claim in claims:
        write_line(f"{claim.text}: {claim.verdict} ({claim.evidence})", sys.stdout)
    write_line(f"page: {page}", sys.stdout)
    return 0


def _environments(setup: Setup, jobs: int | None) -> list[dict[str, str]]:
    """Returns an environment for each run that goes on at the same time: a core each, or a GPU each."""
    gpus = 0
    if setup.scale == "paper":
        import torch

        gpus = torch.cuda.device_count()
    return environments_of(jobs or gpus or core_count(), gpus, os.environ)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("reproduce.py kafal", description="Federated active learning (KAFAL): curves and claims.")
    add = parser.add_argument
    add("--scale", default="cpu", choices=SCALES, help="paper: as published, for GPUs; cpu: a small part of it")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each kind (3)")
    add("--methods", nargs="+", metavar="M", help=f"some of {', '.join(METHODS)}")
    add("--alphas", nargs="+", metavar="A", help=f"how different clients are: some of {', '.join(SPREADS)}")
    add("--chosen_by", default="local", choices=MODELS, help="the model that baselines choose with (local)")
    add("--slow_clients", action="store_true", help="also clients whose speeds differ tenfold, in rounds and without")
    add("--out", metavar="DIR", help="results/kafal-<data_type>-<scale> by default")
    add("--data_dir", default="data/downloads", metavar="DIR", help="where CIFAR-10 is (data/downloads)")
    add("--jobs", type=int, metavar="N", help="runs at a time; a core or a GPU each by default")
    return parser


def _checked(arguments: Namespace) -> Setup:
    """Returns what was chosen; raises UserError with all that is wrong, a line each."""
    problems = []
    problems += problems_of_numbers(arguments)
    chosen = []
    for option, allowed in (("methods", METHODS), ("alphas", tuple(SPREADS))):
        given = getattr(arguments, option) or allowed
        named = [STRATEGIES.canonical(one) if option == "methods" else one.lower() for one in given]
        problems += [f"--{option} {one}: it is some of {', '.join(allowed)}" for one in named if one not in allowed]
        chosen.append(tuple(one for one in allowed if one in named))
    if problems:
        raise UserError(*problems)
    place = str(pathlib.Path(arguments.data_dir).absolute())
    how = (arguments.chosen_by, arguments.slow_clients)
    return Setup(arguments.scale, place, arguments.seeds, chosen[0], chosen[1], *how)
