"""Asynchronous active learning: settings in, engine started, report out.

Examples:
  python main.py --config digits.yaml
  python main.py --config cifar10.yaml server_num=2 annotators.number=50 --seed 1 --out runs/two-servers
"""

import argparse
import logging
import pathlib
import sys

import numpy as np
from pydantic import BaseModel

from aal.config import RECIPES, Settings
from aal.errors import RunFailed, UserError
from aal.loading import load

DONE, FAILED, USERS_MISTAKE = 0, 1, 2
INTERRUPTED = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the words after the program's name; those of this process by default.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 the user's mistake, 130 interrupted (129, 143 by other signals).
    """
    arguments = _parser().parse_intermixed_args(argv)
    try:
        return _run(arguments)
    except UserError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return USERS_MISTAKE
    except KeyboardInterrupt:
        print("interrupted before the run began", file=sys.stderr)
        return INTERRUPTED["SIGINT"]


def _run(arguments: argparse.Namespace) -> int:
    if arguments.resume is not None:
        raise UserError(f"--resume {arguments.resume}: resuming is not there yet; start the run anew with --config")
    if arguments.config is None:
        raise UserError("--config: must be given, for example --config digits.yaml")
    settings = load(arguments.config, arguments.assignments, arguments.seed)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)  # skipped images and the like, on stderr

    # Imported when the settings are known to be right, so that a mistake in them is told at once.
    from aal.engines.local import Role, run_local
    from aal.hub import Parts
    from aal.progress import Progress
    from aal.runs import about, create_run
    from data import open_set, prepare, save_split, split

    folder = prepare(settings)
    images = open_set(folder)
    servers = 1 if settings.mode == "sync" else settings.server_num  # the classic loop trains one model at a time
    parts = split(images, settings)
    run = create_run(settings, arguments.out)
    save_split(parts, run / "split.npz")
    print(f"run folder: {run}")

    roles = [
        Role("server", "server_train:start", servers, (folder,)),
        Role("worker", "work_query:start", len(parts.shards), (folder, len(parts.shards))),
        Role("annotators", "aal.annotators:start", 1, (folder, len(images.classes))),
    ]
    begin = Parts(
        len(images.classes), np.asarray(images.labels), parts.test, parts.validation, parts.initial, parts.shards
    )
    failure = None
    try:
        ended = run_local(settings, run, begin, roles, about(settings) | {"images": str(folder)}, Progress())
    except RunFailed as error:
        failure = ended = str(error)
    _conclude(run, failure)
    if failure is not None:
        return FAILED
    return DONE if ended == "finished" else INTERRUPTED[ended]


def _conclude(run: pathlib.Path, failure: str | None) -> None:
    """Writes the report of what there is and says how the run ended."""
    from aal.report import write_report

    if failure is not None:
        print(f"error: {failure}; see {run / 'log.txt'}", file=sys.stderr)
    page = write_report(run)
    print(f"report: {page}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main.py",
        description=__doc__,
        epilog=_settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="a YAML file, looked up as given, then under configs/")
    parser.add_argument(
        "assignments", nargs="*", metavar="key=value", help="changes any setting; dots reach into groups"
    )
    parser.add_argument("--out", metavar="DIR", help="the run's folder; runs/<name> by default")
    parser.add_argument("--seed", type=int, metavar="N", help="the seed, whatever the config says")
    parser.add_argument("--resume", metavar="DIR", help="not there yet: will continue an interrupted run")
    return parser


def _settings_help() -> str:
    """Lists every setting with its default and its sentence."""
    lines = ["settings (key: default, meaning):"]

    def describe(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            group = field.annotation
            if isinstance(group, type) and issubclass(group, BaseModel):
                describe(group, f"{prefix}{name}.")
                continue
            if prefix == "training.":
                default = ", ".join(f"{recipe} {RECIPES[recipe][name]}" for recipe in RECIPES)
            else:
                default = "must be given" if field.is_required() else str(field.default)
            lines.append(f"  {prefix}{name}: {default}\n      {field.description}")

    describe(Settings, "")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
