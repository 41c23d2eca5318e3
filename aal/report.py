"""`python -m aal.report RUN` draws the report of a run again."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from aal.config.errors import UserError
from aal.reporting.pages import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the report of a finished run again; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aal.report", description="Draw the report of a run again.")
    parser.add_argument("run", type=pathlib.Path, help="the folder of the run")
    try:
        print(write_report(parser.parse_args(arguments).run))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
