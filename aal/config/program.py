"""How the program was called."""

import pathlib
import shlex
import sys


def command(name: str = "run") -> str:
    """Returns how the user calls a command: `aal run` where the package is installed, else `python main.py`."""
    if pathlib.Path(sys.argv[0]).name == "aal":
        return f"aal {name}"
    return "python main.py" if name == "run" else f"python -m aal.{name}"


def resuming(run: pathlib.Path) -> str:
    """Returns the command that goes on with a run."""
    return f"{command()} --resume {shlex.quote(str(run))}"
