"""The command `reproduce.py strategies`."""

import os
import pathlib
import shlex
import sys
from argparse import Namespace

import pandas as pd

from aal.app.experiments.labels_saved.page import claims_of, page_of, picture_of, rows_of
from aal.app.experiments.labels_saved.plans import (
    BASELINE,
    FOLDER,
    METHODS,
    MODES,
    NEEDS_FEATURES,
    SETTINGS,
    Setup,
    plan_of,
)
from aal.app.experiments.labels_saved.savings import read_results
from aal.app.experiments.studies import problems_of_numbers, run_plan
from aal.config.cores import core_count
from aal.config.errors import UserError, of_system
from aal.config.registry import STRATEGIES
from aal.config.terminal import ArgumentParser, write_line
from aal.reporting.plots import save
from aal.storage.atomic import write_whole
from aal.sweep import claimed_folder, environments_of, seconds_taken

NAME = "strategies"


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
        claims = claims_of(setup, results)
        words_of_page = (FOLDER / "page.md").read_text(encoding="utf-8")
        page = page_of(setup, results, claims, command, seconds_taken(out).get(NAME, 0.0), words_of_page)
        try:
            save(picture_of(setup, results), out / NAME)
            write_whole(out / f"{NAME}.csv", pd.DataFrame(rows_of(results)).to_csv(index=False).encode())
            write_whole(out / f"{NAME}.md", page.encode())
        except OSError as error:
            raise of_system(error, f"{out}: cannot be written: {error.strerror or error}") from None
        for claim in claims:
            write_line(f"{claim.text}: {claim.verdict} ({claim.evidence})", sys.stdout)
        write_line(f"page: {out / NAME}.md", sys.stdout)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(f"reproduce.py {NAME}", description="How many labels does each strategy save?")
    add = parser.add_argument
    add("--settings", nargs="+", metavar="S", default=list(SETTINGS), help=f"some of {', '.join(SETTINGS)}")
    add("--methods", nargs="+", metavar="M", default=list(METHODS), help=f"some of {', '.join(METHODS)}")
    add("--modes", nargs="+", metavar="M", default=list(MODES), help=f"some of {', '.join(MODES)}")
    add("--features", nargs="+", metavar="S=F", default=[], help="of each frozen setting: an .npy file or a model file")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each kind (3)")
    add("--data_dir", metavar="DIR", default="data/downloads", help="where the images of CIFAR-10 are")
    add("--out", metavar="DIR", default=f"results/{NAME}", help=f"results/{NAME} by default")
    add("--jobs", type=int, metavar="N", help="runs at a time; a core each by default")
    return parser


def _checked(arguments: Namespace) -> Setup:
    """Returns what was chosen; raises UserError with all that is wrong, a line each."""
    problems, chosen = [], {}
    allowed = {"settings": tuple(SETTINGS), "methods": METHODS, "modes": MODES}
    for option, right in allowed.items():
        named = [STRATEGIES.canonical(one) if option == "methods" else one for one in getattr(arguments, option)]
        problems += [f"--{option} {one}: it is some of {', '.join(right)}" for one in named if one not in right]
        chosen[option] = tuple(one for one in right if one in named or one == BASELINE)
    problems += problems_of_numbers(arguments)
    features = dict(word.partition("=")[::2] for word in arguments.features)
    frozen = ", ".join(NEEDS_FEATURES)
    problems += [
        f"--features {name}: must be SETTING=FILE, of {frozen}" for name in features if name not in NEEDS_FEATURES
    ]
    problems += [
        f"--features: setting {name} needs some: {name}=FILE, an .npy file or a model file that computes them"
        for name in chosen["settings"]
        if name in NEEDS_FEATURES and not features.get(name)
    ]
    if problems:
        raise UserError(*problems)
    places = {name: str(pathlib.Path(file).absolute()) for name, file in features.items()}
    data_dir = str(pathlib.Path(arguments.data_dir).absolute())
    return Setup(**chosen, seeds=arguments.seeds, data_dir=data_dir, features=places)
