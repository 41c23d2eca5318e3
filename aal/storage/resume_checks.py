"""What must fit together before a run goes on: its directory, its config, its record, and the changes asked for."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from aal.config.errors import UserError
from aal.config.loading import keys_of, located, override, read_config, resolve
from aal.config.settings import Settings
from aal.storage.acknowledged import NAME
from aal.storage.atomic import LOCK
from aal.storage.earlier_record import EARLIER
from aal.storage.resume_state import ResumeState
from aal.storage.run_directory import MODELS, WRITTEN

# What a resumed run may change: where it computes, how long it lasts, how it fails, what it shows.
MAY_CHANGE = {
    *("devices", "data_dir", "prepared_dir", "name", "worker_query_num", "server_train_num"),
    *("on_failure", "restart_limit", "hung_after_s", "tensorboard", "people", "ray"),
}
FIXED = set(Settings.model_fields) - MAY_CHANGE
FILES = (LOCK, "config.yaml", "split.npz", "run.db", EARLIER, NAME, "log.txt", "summary.json")
DIRECTORIES = (*WRITTEN, "report")


def resumed_settings(run: pathlib.Path, assignments: list[str]) -> Settings:
    """Returns a run's own settings with changes that do not concern what was done already.

    Args:
        run: its directory.
        assignments: `key=value` overrides.

    Raises:
        UserError: this is no run directory, or a change would not fit what was done already; each is named.
    """
    path = run / "config.yaml"
    if not path.exists():
        raise UserError(f"--resume {run}: is no run directory, it has no config.yaml")
    check_kinds(run)
    tree = read_config(path)
    before = located(resolve(tree, str(path)))
    try:
        after = located(resolve(override(tree, assignments), str(path), keys_of(assignments)))
    except UserError:
        fixed = sorted(key for key in keys_of(assignments) if key.partition(".")[0] in FIXED)
        if not fixed:
            raise
        text = "cannot be changed in a run that has begun; start a new one"
        raise UserError(*(f"{key}: {text}" for key in fixed)) from None
    check_changes(before, after)
    return after


def check_changes(before: Settings, after: Settings) -> None:
    """Checks that a run that began with some settings may go on with others.

    Raises:
        UserError: a change would spoil its data; each is named.
    """
    refused = [
        f"{key}: cannot be changed from {old!r} to {new!r} in a run that has begun; start a new one"
        for key, old, new in _differences(before.model_dump(include=FIXED), after.model_dump(include=FIXED))
        if key != "engine" or "simulated" in (old, new)  # one machine or many: the record is the same
    ]
    if after.worker_query_num < before.worker_query_num:
        refused.append(f"worker_query_num: can only grow, from {before.worker_query_num}")
    if refused:
        raise UserError(*refused)


def _differences(old: dict[str, Any], new: dict[str, Any], group: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the settings, with dots, that differ, and both values; of groups with the same keys those within."""
    for key in old:
        if isinstance(old[key], dict) and isinstance(new[key], dict) and old[key].keys() == new[key].keys():
            yield from _differences(old[key], new[key], f"{group}{key}.")
        elif old[key] != new[key]:
            yield f"{group}{key}", old[key], new[key]


def check_kinds(run: pathlib.Path) -> None:
    """Checks that what is in a run directory is of the right kind: a pipe would be waited for.

    Raises:
        UserError: a directory is where a file should be, or the reverse; each is named.
    """
    problems = [f"{run / name}: is no file" for name in FILES if (run / name).exists() and not (run / name).is_file()]
    for name in DIRECTORIES:
        if (run / name).exists() and not (run / name).is_dir():
            problems.append(f"{run / name}: is no directory")
    if problems:
        raise UserError(*problems)


def check_record_fits(run: pathlib.Path, settings: Settings, state: ResumeState | None) -> None:
    """Checks that the record of a run is that of its config, and there if the run had begun.

    Args:
        run: the run directory.
        settings: that it is to go on with.
        state: what its record holds; None where it holds nothing.

    Raises:
        UserError: it is not; what does not fit is named.
    """
    if state is not None:
        try:
            check_changes(state.settings, settings)
        except UserError as error:
            edited = "config.yaml is not that of run.db"
            raise UserError(*(f"{run}: {edited}: {problem}" for problem in error.problems)) from None
        if settings.engine != "simulated" and _published(run) > len(state.models):
            raise UserError(
                f"{run / 'run.db'}: holds {len(state.models)} of the {_published(run)} models that log.txt says were "
                "published; it is an earlier copy, or run.db-wal is missing"
            )
        return
    signs = [f"{MODELS}/{path.name}" for path in sorted((run / MODELS).glob("*.pt"))[:1]]
    signs += ["log.txt"] if _published(run) else []
    if signs and not (run / NAME).exists() and not (run / EARLIER).exists():
        raise UserError(
            f"{run / 'run.db'}: is missing or empty, but {signs[0]} shows that the run had begun; copy it, and "
            "run.db-wal where there is one, from where the run was, or start a new run"
        )


def _published(run: pathlib.Path) -> int:
    """Returns how many models the log says were published, which it says when they are on disk."""
    try:
        log = (run / "log.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return max((int(version) + 1 for version in re.findall(r" published v(\d{1,9})\b", log)), default=0)
