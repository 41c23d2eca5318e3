"""Asynchronous active learning: settings in, engine started, report out.

Examples:
  python main.py --config digits.yaml
  python main.py --config cifar10.yaml server_num=2 annotators.number=50 --seed 1 --out runs/two-servers
  python main.py --resume runs/two-servers
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING, NamedTuple

from aal.config.errors import INTERRUPTED, RunFailed, UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from aal.app.data import ImageSet, Split
    from aal.config.settings import Settings
    from aal.engines.local.supervisor import Role
    from aal.reporting.progress import Progress
    from aal.storage.resume_state import Past

DONE, FAILED, USERS_MISTAKE = 0, 1, 2


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the words after the program's name; those of this process by default.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 the user's mistake, 130 interrupted (129, 143 by other signals).
    """
    try:
        return _run(_parser().parse_intermixed_args(argv))
    except UserError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return USERS_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED["SIGINT"]


def _run(arguments: argparse.Namespace) -> int:
    if arguments.config and arguments.resume:
        raise UserError("--config: not with --resume, which goes on with the run's own config")
    if not arguments.config and not arguments.resume:
        raise UserError(
            "--config: must be given, for example --config digits.yaml (or --resume RUN to go on with a run)"
        )
    os.umask(os.umask(0o022) | 0o022)  # nothing of a run is writable by other accounts
    log = logging.getLogger("aal")
    log.setLevel(logging.INFO)
    for old in log.handlers:
        old.close()
    log.handlers = [logging.StreamHandler()]  # preparation, skipped images and the like, until the run has a log.txt
    if arguments.resume is None:
        from aal.config.loading import load
        from aal.seeds import run_seeds, split_words

        seeds, more = split_words(arguments.seed or ())
        settings = load(arguments.config, [*arguments.assignments, *more], seeds[0] if seeds else None)
        from aal.reporting.progress import Progress

        if len(seeds) > 1:
            return run_seeds(settings, seeds, arguments.out, _start_one)
        return start(settings, arguments.out, Progress())[1].code
    for name in ("out", "seed"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name}: a run that is resumed keeps its own")
    from aal.seeds import is_of_seeds, resume_seeds

    run = pathlib.Path(arguments.resume)
    if is_of_seeds(run):
        return resume_seeds(run, arguments.assignments, _start_one, _resume)
    return _resume(run, arguments.assignments)


def _start_one(settings: Settings, run: pathlib.Path) -> int:
    from aal.reporting.progress import Progress

    return start(settings, str(run), Progress())[1].code


class Result(NamedTuple):
    """How a run ended: its exit code, and why where that is not 0."""

    code: int
    cause: str


def start(settings: Settings, out: str | None, progress: Progress) -> tuple[pathlib.Path, Result]:
    """Runs settings to their end; returns the run directory and how it ended."""
    # Imported when the settings are known to be right, so that a mistake in them is told at once.
    from aal.app.data import save_split, split
    from aal.reporting.progress import write_line
    from aal.storage.run_directory import claim, create_run

    _look_for_devices(settings)
    images = _images(settings)
    parts = split(images, settings)
    settings = _calibrated(settings, images, parts)
    run = create_run(settings, out)
    with claim(run):
        save_split(parts, run / "split.npz")
        write_line(f"run folder: {run}", sys.stdout)
        pool = sum(map(len, parts.shards))
        if settings.budget > pool:
            write_line(f"the budget of {settings.budget} labels is more than the {pool} unlabelled images", sys.stdout)
        return run, _go(settings, run, images, parts, progress, past=None)


def _resume(run: pathlib.Path, assignments: list[str]) -> int:
    from aal.app.data import load_split, save_split, split
    from aal.reporting.progress import Progress
    from aal.storage.resume_state import read_past
    from aal.storage.run_directory import MODELS, claim, resumed_settings, write_settings

    settings = resumed_settings(run, assignments)
    with claim(run):
        try:
            past = read_past(run / "run.db")
        except UserError:
            if settings.engine == "local":
                raise
            past = None  # a simulated run does not need what it wrote down
        if past is not None and past.finished(settings):
            print(f"{run} is finished; its report: {run / 'report' / 'report.md'}")
            return DONE
        _look_for_devices(settings)
        images = _images(settings)
        if past is not None and past.meta["images"] != images.folder.name:
            raise UserError(f"{run}: data_dir {settings.data_dir} no longer holds the images that the run began with")
        write_settings(run, settings)  # not before: what is refused leaves the run as it was
        (run / MODELS).mkdir(exist_ok=True)
        if past is None:  # it was killed before it had begun
            save_split(split(images, settings), run / "split.npz")
        return _go(settings, run, images, load_split(run / "split.npz"), Progress(), past).code


def _look_for_devices(settings: Settings) -> None:
    """Tells at once that a GPU is not there; PyTorch, which takes seconds to load, is asked only about GPUs by name."""
    from aal.reporting.tensorboard import check_tensorboard

    check_tensorboard(settings)
    named = (*settings.devices.servers, *settings.devices.workers)
    if settings.compute == "full" and any(name.startswith("cuda") for name in named):
        from aal.training.devices import check_devices

        check_devices(settings.devices)


def _images(settings: Settings) -> ImageSet:
    """The images of a run, or what stands for them."""
    from aal.app.data import imagined_set, open_set, prepare

    return open_set(prepare(settings)) if settings.examples is None else imagined_set(settings, settings.examples)


def _calibrated(settings: Settings, images: ImageSet, parts: Split) -> Settings:
    """The settings with the costs of this machine, where they ask for them."""
    if not settings.costs.measured:
        return settings
    from aal.app.models import build_model
    from aal.reporting.progress import write_line
    from aal.training.calibration import calibrate

    write_line("measuring what training and scoring cost on this machine", sys.stdout)
    costs = calibrate(settings, images.images, images.labels, parts.initial, build_model)
    write_line(f"costs: {costs.model_dump(exclude={'measured'})}", sys.stdout)
    return settings.model_copy(update={"costs": costs})


def _roles(settings: Settings, images: ImageSet, parts: Split) -> list[Role]:
    """What an engine is to start: the roles, or under compute none what stands for them."""
    from aal.engines.local.supervisor import Role

    folder, workers = images.folder, len(parts.shards)
    servers = 1 if settings.mode == "sync" else settings.server_num  # the classic loop trains one model at a time
    if settings.compute == "none":
        return [
            Role("server", "aal.app.server_train:start_costed", servers, (len(parts.validation), len(parts.test))),
            Role("worker", "aal.app.work_query:start_costed", workers, (workers,)),
            Role("annotators", "aal.annotators.simulated:start", 1, (images.labels, len(images.classes))),
        ]
    return [
        Role("server", "aal.app.server_train:start", servers, (folder,)),
        Role("worker", "aal.app.work_query:start", settings.devices.processes_for(workers), (folder, workers)),
        Role("annotators", "aal.annotators.simulated:start", 1, (folder / "labels.npy", len(images.classes))),
    ]


def _go(
    settings: Settings, run: pathlib.Path, images: ImageSet, parts: Split, progress: Progress, past: Past | None
) -> Result:
    """Runs the engine and writes the report; returns how it ended."""
    import numpy as np

    from aal.coordination.parts import Parts
    from aal.engines.local.engine import run_local
    from aal.engines.simulated.engine import run_simulated
    from aal.reporting.tensorboard import scalars
    from aal.storage.run_directory import about, log_to

    roles = _roles(settings, images, parts)
    truth = np.asarray(images.labels)
    begin = Parts(len(images.classes), truth, parts.test, parts.validation, parts.initial, parts.shards)
    facts = about(settings) | {"images": images.folder.name, "skipped_images": str(images.skipped)}
    facts |= {"classes": json.dumps(images.classes)}
    facts |= {key: past.meta[key] for key in ("started",) if past and key in past.meta}
    log_to(run, "main")
    log = logging.getLogger("aal")
    log.info("resumed at %.1f s" if past else "started", *([past.seconds] if past else []))
    failure, code = None, FAILED
    try:
        with scalars(run, settings, progress):
            if settings.engine == "simulated":  # repeats what there is of an earlier attempt
                ended = run_simulated(settings, run, begin, roles, facts, progress)
            else:
                ended = run_local(settings, run, begin, roles, facts, progress, past)
    except (RunFailed, UserError) as error:
        failure = ended = str(error)
        code = USERS_MISTAKE if isinstance(error, UserError) else FAILED
    log.info("ended: %s", ended)
    _conclude(run, failure, finished=ended == "finished")
    if failure is not None:
        return Result(code, failure)
    return Result(DONE, "") if ended == "finished" else Result(INTERRUPTED[ended], "interrupted")


def _conclude(run: pathlib.Path, failure: str | None, finished: bool) -> None:
    """Writes the report of what there is and says how the run ended."""
    from aal.reporting.pages import write_report
    from aal.reporting.progress import write_line

    if failure is not None:
        write_line(f"error: {failure}; see {run / 'log.txt'}", sys.stderr)
    elif not finished:
        write_line("interrupted; nothing that was done is lost", sys.stdout)
    if not finished:
        write_line(f"to go on: python main.py --resume {shlex.quote(str(run))}", sys.stdout)
    if not (run / "run.db").exists():
        return
    try:
        page = write_report(run)
    except (KeyboardInterrupt, UserError) as error:
        why = str(error) or "interrupted"
        write_line(f"the report is not drawn: {why}; python -m aal.report {shlex.quote(str(run))} draws it", sys.stderr)
        return
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    if summary["final_test_accuracy"] is not None:
        labels = summary["labels"]["total"]
        print(
            f"test accuracy {summary['final_test_accuracy']:.3f} with {labels} labels after {summary['wall_s']:.0f} s"
        )
    write_line(f"report: {page}", sys.stdout)


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
    parser.add_argument(
        "--seed", nargs="+", metavar="N", help="the seed, whatever the config says; several run one by one"
    )
    parser.add_argument("--resume", metavar="DIR", help="goes on with a run that was interrupted, killed or failed")
    return parser


def _settings_help() -> str:
    """Lists every setting with its default and its sentence."""
    import yaml
    from pydantic import BaseModel

    from aal.config.presets import RECIPES
    from aal.config.settings import Settings

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
                shown = "" if field.is_required() else yaml.safe_dump(field.default, default_flow_style=True)
                default = "must be given" if field.is_required() else shown.removesuffix("...\n").strip()
            lines.append(f"  {prefix}{name}: {default}\n      {field.description}")

    describe(Settings, "")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
