"""Reproduces a figure or table of the paper: runs what it takes, draws it, and judges the paper's claims.

Examples:
  python reproduce.py figure2 --scale tiny
  python reproduce.py figure2 --methods AAL random entropy --batches 5000
  python reproduce.py table1 --scale paper --data_type cifar-100 --seeds 5

Runs that are finished are not run again: the same command goes on with a sweep that was stopped.
"""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
import time
from typing import Any

from aal.app.experiments.aal_2021.place import Place, work_of
from aal.app.experiments.aal_2021.plans import CHOICES, SCALES, Run, Setup, paper_settings, plan_of, single
from aal.app.experiments.aal_2021.published import BATCHES, DATA_TYPES, METHODS
from aal.config.errors import INTERRUPTED, RunFailed, UserError
from aal.config.settings import STRATEGY_NAMES, data_type_of
from aal.engines.sweep import Sweep

DONE, FAILED, USERS_MISTAKE = 0, 1, 2
MOST_SEEDS = 100


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0 done, 1 a run or a check failed, 2 the user's mistake, 130 interrupted (129, 143)."""
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = _parser().parse_args(words)
        setup, place = _checked(arguments)
        with place.claimed():
            return _make(arguments.figure, setup, place, arguments.jobs, shlex.join(["python", "reproduce.py", *words]))
    except (UserError, RunFailed) as error:
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return USERS_MISTAKE if isinstance(error, UserError) else FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED["SIGINT"]


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="reproduce.py", description=__doc__, formatter_class=layout)
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


def _checked(arguments: argparse.Namespace) -> tuple[Setup, Place]:
    """Returns what was chosen; raises UserError with all that is wrong with it, a line each."""
    figure, scale = arguments.figure, arguments.scale
    problems = []
    data_type = data_type_of(arguments.data_type or ("digits" if scale == "tiny" else "cifar-10"))
    allowed = (*DATA_TYPES, "digits") if scale == "tiny" else DATA_TYPES
    if data_type not in allowed:
        problems.append(f"--data_type {arguments.data_type}: at scale {scale} it is one of {', '.join(allowed)}")
    if not 1 <= arguments.seeds <= MOST_SEEDS:
        problems.append(f"--seeds {arguments.seeds}: must be from 1 to {MOST_SEEDS}")
    if arguments.jobs is not None and arguments.jobs < 1:
        problems.append(f"--jobs {arguments.jobs}: must be at least 1")
    methods, batches = (
        _some(getattr(arguments, option), allowed, f"--{option}", figure, problems)
        for option, allowed in zip(("methods", "batches"), CHOICES[figure], strict=True)
    )
    if problems:
        raise UserError(*problems)
    default = paper_settings(str(data_type), f"batch{BATCHES[0]}")["data_dir"]
    data_dir = str(pathlib.Path(arguments.data_dir or default).absolute())
    seeds = 1 if figure == "figure4" else arguments.seeds
    setup = Setup(scale, str(data_type), data_dir, seeds, methods, batches)
    return setup, Place(pathlib.Path(arguments.out or f"results/{data_type}-{scale}"))


def _some(
    chosen: list[Any] | None, allowed: tuple[Any, ...], option: str, figure: str, problems: list[str]
) -> tuple[Any, ...]:
    """Returns the chosen ones in the order of the paper, all when none is named; notes what is not allowed."""
    if chosen is None:
        return allowed
    named = [STRATEGY_NAMES.get(str(one).replace("-", "").replace("_", "").lower(), one) for one in chosen]
    named = ["AAL" if str(one).upper() == "AAL" else one for one in named]
    right = f"of {figure} it is some of {', '.join(map(str, allowed))}" if allowed else f"{figure} has no choice"
    problems += [f"{option} {one}: {right}" for one in named if one not in allowed]
    return tuple(one for one in allowed if one in named)


def _make(figure: str, setup: Setup, place: Place, jobs: int | None, command: str) -> int:
    """Runs the sweep and writes the figure; returns the exit code."""
    plan = plan_of(figure, setup, _measured(setup, place) if figure == "figure4" else None)
    noted = time.monotonic()

    def note(name: str, seconds: float) -> None:
        nonlocal noted
        now = time.monotonic()
        place.add_seconds("runs", name, seconds)
        place.add_seconds("figures", figure, now - noted)
        noted = now

    sweep = Sweep(figure, place.out, plan, *_jobs(figure, setup, jobs), work_of, note)
    ended = sweep.go() if sweep.left else "finished"
    if ended != "finished":
        print(f"stopped with {sweep.left} of {len(plan)} runs to go; to go on: {command}", flush=True)
        return INTERRUPTED[ended]
    return _write(figure, setup, place, plan, command)


def _measured(setup: Setup, place: Place) -> dict[str, float]:
    """Returns what work costs on this machine; measured once, then kept, so that all runs have the same costs."""
    if setup.scale not in place.notes()["costs"]:
        from aal.app.data import open_set, prepare, split
        from aal.app.models import build_model
        from aal.training.calibration import calibrate

        print("measuring what training and scoring cost on this machine", flush=True)
        started = time.monotonic()
        settings = single(setup, "entropy", "async", BATCHES[0], seed=0).settings
        images = open_set(prepare(settings))
        initial = split(images, settings).initial
        costs = calibrate(settings, images.images, images.labels, initial, build_model)
        place.note("costs", setup.scale, costs.model_dump(exclude={"measured"}))
        place.add_seconds("figures", "figure4", time.monotonic() - started)
    return place.notes()["costs"][setup.scale]


def _jobs(figure: str, setup: Setup, wanted: int | None) -> tuple[int, int]:
    """Returns how many runs go on at a time, and how many GPUs they share."""
    import torch

    from aal.config.cores import core_count

    if setup.scale != "paper" or figure == "figure4":
        return wanted or core_count(), 0
    gpus = torch.cuda.device_count()
    return wanted or max(gpus, 1), gpus  # without a GPU, one run with all cores


def _write(figure: str, setup: Setup, place: Place, plan: list[Run], command: str) -> int:
    """Writes picture, CSV and page; returns the exit code."""
    import pandas as pd

    from aal.app.experiments.aal_2021 import accuracy, checks, query_times
    from aal.app.experiments.aal_2021.page import compose
    from aal.app.experiments.aal_2021.results import read_results
    from aal.reporting.plots import save
    from aal.storage.atomic import write_whole

    results = read_results(plan, place.out / "runs")
    story = getattr(query_times if figure == "figure4" else accuracy, figure)(setup, results)
    found = []
    if figure != "figure4":
        found = [*checks.check(results), checks.concluded(results, story.claims)]
    notes = place.notes()
    seconds = notes["figures"].get(figure, 0.0), sum(notes["runs"].get(result.run.name, 0.0) for result in results)
    page = compose(figure, story, setup, results, found, command, seconds)
    try:
        save(story.picture, place.out / figure)
        table = pd.DataFrame(story.rows, dtype=object)  # numbers stay as they are, also beside missing ones
        write_whole(place.out / f"{figure}.csv", table.to_csv(index=False).encode())
        write_whole(place.out / f"{figure}.md", page.encode())
    except OSError as error:
        raise UserError(f"{place.out}: cannot be written: {error.strerror or error}") from None
    for claim in story.claims:
        print(f"{claim.text}: {claim.verdict} ({claim.runs})")
    print(f"page: {place.out / figure}.md", flush=True)
    broken = [check.promise for check in found if check.broken]
    if broken:
        raise RunFailed("\n".join(f"check failed: {promise}" for promise in broken))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
