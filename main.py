"""Asynchronous active learning: settings in, engine started, report out.

Examples:
  python main.py --config digits.yaml
  python main.py --config cifar10.yaml server_num=2 annotators.number=50 --seed 1 --out runs/two-servers
  python main.py --resume runs/two-servers
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING

from aal.config.errors import RunFailed, UserError
from aal.config.interrupts import deferred_interrupt
from aal.config.program import command, resuming
from aal.config.terminal import ArgumentParser, log_to_terminal, run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aal.app.data import ImageSet
    from aal.config.settings import Settings
    from aal.coordination.partition import Partition
    from aal.engines.base import Plan, RunResult
    from aal.reporting.progress import Progress
    from aal.storage.resume_state import ResumeState


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the words after the program's name; those of this process by default.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 the user's mistake, 130 interrupted (129, 143 by other signals).
    """
    return run_command(lambda: _run(_parser(sys.argv[1:] if argv is None else argv).parse_intermixed_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.config and arguments.resume:
        raise UserError("--config: not with --resume, which goes on with the run's own config")
    if not arguments.config and not arguments.resume:
        raise UserError(
            "--config: must be given, for example --config digits.yaml (or --resume RUN to go on with a run)"
        )
    os.umask(os.umask(0o022) | 0o022)  # nothing of a run is writable by other accounts
    log_to_terminal()  # of preparation, skipped images and the like, until the run has a log.txt
    if arguments.resume is None:
        from aal.config.loading import load
        from aal.seeds import run_seeds, seeds_of

        seeds, more = seeds_of(arguments.seed or [])
        settings = load(arguments.config, [*arguments.assignments, *more], seeds[0] if seeds else None)
        if len(seeds) < 2:
            return start(settings, arguments.out)[1].exit_code
        return run_seeds(settings, seeds, arguments.out, _start_in)
    for name in ("out", "seed"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name}: a run that is resumed keeps its own")
    from aal.seeds import is_of_seeds, resume_seeds

    run = pathlib.Path(arguments.resume)
    if is_of_seeds(run):
        return resume_seeds(run, arguments.assignments, _start_in, _resume_in)
    return _resume_in(run, arguments.assignments)


def _start_in(settings: Settings, run: pathlib.Path) -> int:
    return start(settings, str(run))[1].exit_code


def _resume_in(run: pathlib.Path, assignments: list[str]) -> int:
    return resume(run, assignments)[1].exit_code


def start(
    settings: Settings, out: str | None = None, progress: Progress | None = None
) -> tuple[pathlib.Path, RunResult]:
    """Starts a new run and writes its report; returns its directory and how it ended.

    Args:
        settings: of the run.
        out: the run directory; `runs/<name>` by default.
        progress: where to show how far it is; a bar on standard error by default.

    Raises:
        UserError: the settings do not fit the images or this machine, or the directory is taken.
    """
    # Imported when the settings are known to be right, so that a mistake in them is reported at once.
    from aal.app.data import fit_to, save_split, split
    from aal.cold_start import chooser
    from aal.coordination.schedules import schedule_of
    from aal.engines.base import RunResult
    from aal.reporting.progress import Progress
    from aal.storage.run_directory import new_directory, new_run, writing

    progress = progress or Progress()
    _check_machine(settings)
    images = _images(settings)
    settings, fitted = fit_to(images, settings)
    _check_networks(settings, images)
    partition = split(images, settings, schedule_of(settings).shard_num(settings), chooser(settings, images))
    _check_images(settings, images, partition, progress)
    settings = _calibrated(settings, images, partition, progress)
    run = new_directory(settings.name, out)
    with contextlib.suppress(KeyboardInterrupt), new_run(settings, run):
        with writing(run):
            save_split(partition, run / "split.npz")
        if fitted:
            progress.announce(f"fitted to the images: {fitted}")
        progress.announce(f"run directory: {run}")
        pool = sum(map(len, partition.shards))
        if settings.budget > pool and not settings.people.label:  # people label as long as they like
            progress.announce(f"the budget of {settings.budget} labels is more than the {pool} unlabelled images")
        return run, _execute(wire(settings, run, images, partition, resume=None), progress)
    if not (run / "config.yaml").exists():  # there is nothing to go on with
        raise KeyboardInterrupt
    return run, _conclude(run, RunResult.interrupted("SIGINT", at_once=True), progress)  # outside of the engine


def resume(
    run: pathlib.Path, assignments: Sequence[str] = (), progress: Progress | None = None
) -> tuple[pathlib.Path, RunResult]:
    """Goes on with a run that was interrupted, killed or failed; see `start`.

    Args:
        run: the run directory.
        assignments: `key=value` changes of settings that do not concern what was done already.
        progress: where to show how far it is.
    """
    from aal.app.data import split_again
    from aal.cold_start import chooser
    from aal.coordination.schedules import schedule_of
    from aal.engines.base import RunResult, RunStatus
    from aal.features import check_unchanged
    from aal.reporting.progress import Progress
    from aal.storage.resume_checks import check_record_fits, resumed_settings
    from aal.storage.resume_state import read_resume_state, take_over
    from aal.storage.run_directory import claim, going_on_with, tidy, writing

    progress = progress or Progress()
    settings = resumed_settings(run, list(assignments))
    with contextlib.suppress(KeyboardInterrupt), claim(run):
        state = read_resume_state(run / "run.db")
        check_record_fits(run, settings, state)
        if state and state.finished(settings):
            progress.announce(f"{run} is finished")
            return run, _conclude(run, RunResult(RunStatus.FINISHED), progress)
        _check_machine(settings)
        images = _images(settings)
        if state:
            check_unchanged(run, settings, images, state.meta)
        with writing(run):
            repeated = settings.engine == "simulated"  # which uses again what it finds
            tidy(run, state.files if state and not repeated else None)
            shards, first = schedule_of(settings).shard_num(settings), chooser(settings, images)
            partition = split_again(run, images, settings, shards, state is not None, first)
        with going_on_with(settings, run):  # not before: what is refused leaves the run as it was
            return run, _execute(wire(settings, run, images, partition, take_over(run / "run.db")), progress)
    return run, _conclude(run, RunResult.interrupted("SIGINT", at_once=True), progress)  # outside of the engine


def wire(
    settings: Settings, run: pathlib.Path, images: ImageSet, partition: Partition, resume: ResumeState | None
) -> Plan:
    """Returns the plan of a run: which roles there are, and what each is given."""
    import numpy as np

    from aal.coordination.schedules import schedule_of
    from aal.engines.base import Plan
    from aal.roles import roles_of
    from aal.storage.origin import about
    from aal.training.placement import placed

    servers = schedule_of(settings).server_num(settings)
    on_devices = placed(settings, servers, len(partition.shards))
    roles = roles_of(on_devices, images, partition)
    meta = about(settings) | images.origin
    meta |= {key: resume.meta[key] for key in ("started",) if resume and key in resume.meta}
    truth = np.asarray(images.labels)
    return Plan(on_devices, run, partition, truth, len(images.classes), roles, meta, images.paths, resume)


def _execute(plan: Plan, progress: Progress) -> RunResult:
    """Runs the engine and writes the report."""
    from aal.engines import engine_named
    from aal.reporting.tensorboard import scalars
    from aal.reporting.words import split_words
    from aal.storage.run_directory import logged
    from aal.web.address import when_open
    from aal.web.people import invitations

    log = logging.getLogger("aal")
    lines = split_words(plan.partition)
    for line in lines:
        progress.announce(line)
    people = plan.settings.people
    progress.follow(when_open(people, invitations(plan.settings, plan.run), progress.announce))
    with logged(plan.run, "main"), scalars(plan.run, plan.settings, progress):
        for line in lines:
            log.info("%s", line)
        log.info("resumed at %.1f s" if plan.resume else "started", *([plan.resume.seconds] if plan.resume else []))
        result = engine_named(plan.settings.engine).run(plan, progress)
    return _conclude(plan.run, result, progress)


def _conclude(run: pathlib.Path, result: RunResult, progress: Progress) -> RunResult:
    """Says how the run ended and writes the report of what there is; a run without its report is not well ended."""
    from aal.engines.base import RunResult, RunStatus
    from aal.reporting.pages import report_of
    from aal.reporting.words import in_words

    is_there = (run / "config.yaml").exists()  # else the folder was moved or removed meanwhile
    if result.status is RunStatus.FAILED:
        log = run / "log.txt" if is_there else "log.txt in the run's folder"
        progress.note(f"error: {'; '.join(result.cause.splitlines())}; see {log}")
    elif result.status is RunStatus.INTERRUPTED:
        progress.announce("interrupted; nothing that was done is lost")
    if result.status is not RunStatus.FINISHED:
        again = resuming(run) if is_there else f"{command()} --resume with the run's folder where it is now"
        progress.announce(f"to go on: {again}")
    has_finished = result.status is RunStatus.FINISHED
    if result.at_once or not (has_finished or (run / "run.db").exists()):
        return result
    progress.note("drawing the report")
    try:
        page = report_of(run)
    except (KeyboardInterrupt, UserError, RunFailed) as error:
        why = str(error) or "interrupted"
        progress.note(f"the report is not drawn: {why}; {command('report')} {shlex.quote(str(run))} draws it")
        if not has_finished:
            return result
        return RunResult.failed(RunFailed(why)) if str(error) else RunResult.interrupted("SIGINT")
    progress.announce(in_words(json.loads((run / "summary.json").read_text(encoding="utf-8"))))
    progress.announce(f"report: {page}")
    return result


def _check_machine(settings: Settings) -> None:
    """Reports at once what is missing."""
    from aal.reporting.tensorboard import check_tensorboard
    from aal.training.placement import placed
    from aal.web.address import check_page

    check_tensorboard(settings)
    check_page(settings)
    placed(settings, settings.server_num, settings.worker_num)


def _check_images(settings: Settings, images: ImageSet, partition: Partition, progress: Progress) -> None:
    """Reports crops that the images are too small for, and annotators who cannot answer."""
    from aal.annotators.readiness import check_label_source
    from aal.config.contradictions import crop_problem

    if settings.compute == "full" and (problem := crop_problem(settings, images.images.shape[1])):
        raise UserError(f"training.crop_padding: {problem}")
    about = check_label_source(settings, images.labels, partition.shards, images.classes, images.paths)
    if about is not None:
        progress.announce(about)


def _check_networks(settings: Settings, images: ImageSet) -> None:
    """Builds the networks once, where only that shows whether they are right; PyTorch is loaded for nothing else."""
    from aal.config.registry import NETWORKS

    is_plain = all(one.model in NETWORKS.entries and not one.options for one in settings.networks)
    if settings.compute == "full" and not (is_plain and settings.pretrained is None):
        from aal.training.network_checks import check_networks

        shape = images.images.shape
        check_networks(settings, classes=len(images.classes), channels=shape[3], image_size=shape[1])


def _images(settings: Settings) -> ImageSet:
    """The images of a run, or what stands for them; a run with so many that does not fit this machine is refused."""
    from aal.app.data import imagined_set, open_set, prepare
    from aal.engines.resources import check_resources
    from aal.features import with_features

    images = with_features(settings, open_set(prepare(settings))) if settings.examples is None else None
    check_resources(settings, images.images.shape if images else (settings.examples or 0, 1, 1, 1))
    return images or imagined_set(settings, settings.examples or 0)


def _calibrated(settings: Settings, images: ImageSet, partition: Partition, progress: Progress) -> Settings:
    """The settings with the costs of this machine, where they ask for them."""
    if not settings.costs.measured:
        return settings
    from aal.app.server_train import fit
    from aal.training.calibration import calibrate

    progress.announce("measuring what training and scoring cost on this machine")
    costs = calibrate(settings, images.images, images.labels, partition.initial, fit)
    progress.announce(f"costs: {costs.model_dump(exclude={'measured'})}")
    return settings.model_copy(update={"costs": costs})


def _parser(words: Sequence[str]) -> ArgumentParser:
    with deferred_interrupt():
        from aal.config.help import settings_help

    parser = ArgumentParser(
        prog=command(),
        description=__doc__,
        epilog=settings_help() if {"-h", "--help"} & set(words) else None,
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


if __name__ == "__main__":
    sys.exit(main())
