"""What the commands of all studies have in common: how many runs, and running what is left of them."""

import pathlib
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

from aal.config.errors import INTERRUPTED
from aal.config.terminal import write_line
from aal.sweep import Planned, run_all

MOST_SEEDS = 100


def problems_of_numbers(arguments: Namespace) -> list[str]:
    """Returns what is wrong with `--seeds` and `--jobs`, a line each."""
    problems = []
    if not 1 <= arguments.seeds <= MOST_SEEDS:
        problems.append(f"--seeds {arguments.seeds}: must be from 1 to {MOST_SEEDS}")
    if arguments.jobs is not None and arguments.jobs < 1:
        problems.append(f"--jobs {arguments.jobs}: must be at least 1")
    return problems


def run_plan(
    title: str,
    out: pathlib.Path,
    plan: Sequence[Planned],
    environments: Callable[[], Sequence[Mapping[str, str]]],
    command: str,
) -> int:
    """Runs what is left of a plan; where a signal ends that, prints the command that goes on.

    Args:
        title: of the whole.
        out: folder of the sweep.
        plan: all runs.
        environments: gives an environment for each run that goes on at the same time.
        command: as the user gave it.

    Returns:
        The exit code; 0 when all runs are finished.
    """

    def left() -> list[Planned]:
        return [run for run in plan if not run.is_finished(out / "runs" / run.name)]

    if runs := left():
        ended = run_all(title, out, runs, environments())
        if ended != "finished":
            write_line(f"stopped with {len(left())} of {len(plan)} runs to go; to go on: {command}", sys.stdout)
            return INTERRUPTED[ended]
    return 0
