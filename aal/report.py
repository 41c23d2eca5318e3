"""`python -m aal.report RUN` draws the report of a run again; several runs are compared in one picture."""

import pathlib
import sys
from collections.abc import Sequence

from aal.config.program import command
from aal.config.terminal import ArgumentParser, run_command, write_line
from aal.reporting.comparison import write_comparison
from aal.reporting.pages import write_report
from aal.seeds import runs_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the report of a run again, or compares several runs.

    Returns:
        The exit code: 0 done, 1 the disk is full or fails, 2 a user's mistake.
    """
    return run_command(lambda: _draw(arguments))


def _draw(arguments: Sequence[str] | None) -> int:
    parser = ArgumentParser(
        prog=command("report"),
        description="Draw the report of a run again, or compare several runs in one picture, a CSV and a page.",
    )
    parser.add_argument(
        "runs", nargs="+", type=pathlib.Path, metavar="RUN", help="the directory of a run, or of several seeds"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="DIR", help="where a comparison goes (default: ./comparison)"
    )
    given = parser.parse_args(arguments)
    if given.out is None and len(given.runs) == 1 and (given.runs[0] / "run.db").exists():
        page = write_report(given.runs[0])
    else:
        runs = [run for path in given.runs for run in runs_of(path)]
        page = write_comparison(runs, given.out or pathlib.Path("comparison"))
    write_line(str(page), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
