"""The command `aal`: run, eval, report, export and reproduce, with the arguments of the scripts of the same names."""

import importlib
import sys
from collections.abc import Sequence

from aal.config.terminal import run_command, write_line

COMMANDS = {
    "run": ("aal.app.main", "start or resume a run: aal run --config digits.yaml"),
    "eval": ("aal.app.eval", "score a saved model on the test set of its data"),
    "report": ("aal.report", "draw the report of a run again, or compare several runs"),
    "export": ("aal.export", "give out the labels of a run as csv, folder, coco or huggingface"),
    "reproduce": ("aal.app.reproduce", "reproduce a figure or table of the paper"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit code, 2 where there is no such command."""
    return run_command(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[words[0]][0])
        return int(module.main(words[1:]))
    lines = [f"  {name:<11}{text}" for name, (_, text) in COMMANDS.items()]
    usage = "\n".join(
        ["usage: aal COMMAND ...", "", *lines, "", "aal COMMAND --help lists the arguments of a command."]
    )
    if words and words[0] in ("-h", "--help"):
        print(usage)
        return 0
    if words:
        write_line(f"error: there is no command {words[0]}", sys.stderr)
    print(usage, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
