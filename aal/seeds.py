"""One config with several seeds: a run for each, one after another, resumable as one, compared at the end."""

import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from aal.config.errors import INTERRUPTED, RunFailed, UserError
from aal.config.loading import keys_of, located, override, read_config, resolve
from aal.config.program import resuming
from aal.config.settings import Settings
from aal.config.terminal import write_line
from aal.storage.atomic import write_whole
from aal.storage.resume_checks import check_changes
from aal.storage.run_directory import claim, new_directory

MARKER = "seeds.yaml"  # in the directory of several seeds: the resolved settings and the seeds

# Starts a run with settings in a directory; goes on with the run of a directory, with `key=value` changes. Both return
# an exit code as `main.main` does.
Start = Callable[[Settings, pathlib.Path], int]
Resume = Callable[[pathlib.Path, list[str]], int]


def seeds_of(words: list[str]) -> tuple[list[int], list[str]]:
    """Returns the seeds among the words after --seed, and the key=value words, which the parser hands over too.

    Raises:
        UserError: a word is no number.
    """
    seeds = [word for word in words if "=" not in word]
    try:
        return [int(seed) for seed in seeds], [word for word in words if "=" in word]
    except ValueError:
        raise UserError(f"--seed: must be whole numbers, not {' '.join(seeds)}") from None


def is_of_seeds(path: pathlib.Path) -> bool:
    """Whether a directory holds the runs of several seeds."""
    return (path / MARKER).is_file()


def runs_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the runs that a directory stands for: those of its seeds that have begun, or itself.

    Raises:
        UserError: the marker file is damaged, or no seed has begun.
    """
    if not is_of_seeds(path):
        return [path]
    runs = [path / f"seed-{seed}" for seed in _seeds(read_config(path / MARKER), path)]
    begun = [run for run in runs if (run / "run.db").is_file()]
    if not begun:
        raise UserError(f"{path}: none of its seeds has begun; {resuming(path)}")
    return begun


def run_seeds(settings: Settings, seeds: Sequence[int], out: str | None, start: Start) -> int:
    """Runs a config with several seeds, one after another, into `seed-0`, `seed-1` and so on, and compares them.

    Args:
        settings: of the runs; its own seed is replaced.
        seeds: distinct, in the order in which they are run.
        out: the directory of all, which must be absent or empty; `runs/<name>` by default.
        start: starts a run.

    Returns:
        The worst exit code of the runs. A signal ends the sequence; a run that failed does not.

    Raises:
        UserError: the directory is taken or cannot be made, or a seed is out of range or given twice.
    """
    if len(set(seeds)) < len(seeds):
        raise UserError("--seed: a seed is given twice")
    for seed in seeds:
        resolve({**settings.tree(), "seed": seed}, "--seed")
    folder = new_directory(settings.name, out)
    try:
        with claim(folder):
            _write(folder, settings, seeds)
            return _run_all(settings, seeds, folder, start)
    except (UserError, RunFailed):
        if not any(folder.glob("seed-*")):  # found before the first run; the next try finds no leftovers
            shutil.rmtree(folder, ignore_errors=True)
        raise


def resume_seeds(out: pathlib.Path, assignments: list[str], start: Start, resume: Resume) -> int:
    """Goes on with the runs of several seeds: finished ones are kept, begun ones resumed, missing ones started.

    Args:
        out: the directory of all.
        assignments: `key=value` changes, as `--resume` of one run takes them.
        start: starts a run.
        resume: goes on with a run.

    Returns:
        The worst exit code of the runs, as `run_seeds`.

    Raises:
        UserError: the marker file is damaged, or a change would spoil the runs.
    """
    before, seeds = _read(out)
    tree = override(before.tree(), assignments)
    settings = located(resolve(tree, str(out / MARKER), keys_of(assignments)))
    check_changes(before, settings)
    with claim(out):
        _write(out, settings, seeds)
        return _run_all(settings, seeds, out, start, lambda run: resume(run, assignments))


def _run_all(
    settings: Settings,
    seeds: Sequence[int],
    out: pathlib.Path,
    start: Start,
    resume: Callable[[pathlib.Path], int] | None = None,
) -> int:
    worst = 0
    for number, seed in enumerate(seeds, 1):
        run = out / f"seed-{seed}"
        write_line(f"seed {seed} ({number} of {len(seeds)})", sys.stdout)
        if resume and (run / "config.yaml").is_file():
            code = resume(run)
        else:
            code = start(settings.model_copy(update={"seed": seed}), run)
        worst = max(worst, code)
        if code in INTERRUPTED.values():
            break
    _conclude(out, worst)
    return worst


def _conclude(out: pathlib.Path, code: int) -> None:
    """Compares the seeds and says how to go on where some are not finished."""
    from aal.reporting.comparison import write_comparison  # matplotlib is of no use before

    if code:
        write_line(f"to go on with all seeds: {resuming(out)}", sys.stdout)
    try:
        write_line(f"comparison of the seeds: {write_comparison(runs_of(out), out)}", sys.stdout)
    except (UserError, RunFailed) as error:
        write_line(f"the seeds are not compared: {error}", sys.stderr)


def _write(out: pathlib.Path, settings: Settings, seeds: Sequence[int]) -> None:
    tree = {"seeds": list(seeds), "settings": settings.tree()}
    write_whole(out / MARKER, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode())


def _read(out: pathlib.Path) -> tuple[Settings, list[int]]:
    tree = read_config(out / MARKER)
    seeds = _seeds(tree, out)
    return located(resolve(tree["settings"], str(out / MARKER))), seeds


def _seeds(tree: dict[str, Any], out: pathlib.Path) -> list[int]:
    seeds = tree.get("seeds")
    is_list = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    if not is_list or not isinstance(tree.get("settings"), dict):
        raise UserError(f"{out / MARKER}: is damaged; it must hold seeds, a list of numbers, and settings")
    return list(tree["seeds"])
