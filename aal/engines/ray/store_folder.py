"""Where a machine keeps the files of others."""

import os
import pathlib
import re
import shutil
import tempfile


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
