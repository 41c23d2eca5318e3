"""Where a machine keeps the files of others."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import time

import filelock

ALIVE = "alive.lock"  # in the folder of a process, which holds it
CLEANING = "cleaning.lock"  # beside the runs
ABANDONED_S = 24 * 3600.0


def store_folder() -> pathlib.Path:
    """Returns the folder for the files of other machines on this one."""
    try:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # this user has no home
        cache = pathlib.Path(tempfile.gettempdir()) / f"aal-{os.getuid()}"
    return cache / "aal" / "ray"


def remove_run(store: pathlib.Path, run_id: str) -> None:
    """Removes what the processes of a run have left on this machine; images stay, for the next run of the set."""
    if re.fullmatch(r"[0-9a-f]+", run_id):
        shutil.rmtree(store / "runs" / run_id, ignore_errors=True)


def remove_abandoned(store: pathlib.Path) -> None:
    """Removes what killed processes of earlier runs have left, unless another process of this machine is at it."""
    with contextlib.suppress(OSError, NotImplementedError), filelock.FileLock(store / CLEANING, timeout=0):
        for run in (store / "runs").glob("*"):
            touched_at = max(path.stat().st_mtime for path in (run, *run.glob("*")))
            if time.time() - touched_at > ABANDONED_S and not any(map(_is_held, run.glob(f"*/{ALIVE}"))):
                remove_run(store, run.name)


def _is_held(lock: pathlib.Path) -> bool:
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True
