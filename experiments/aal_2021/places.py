"""Where a sweep keeps what it has, and how far each of its runs is."""

import contextlib
import json
import pathlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from filelock import FileLock, Timeout

from aal.app.experiments.aal_2021.plans import Run
from aal.config.errors import UserError
from aal.config.loading import read_config, resolve
from aal.config.settings import Settings
from aal.storage.atomic import TEMPORARY, write_whole
from aal.storage.run_directory import MODELS

FREE_TO_CHANGE = {"name", "data_dir", "prepared_dir", "devices"}
State = Literal["absent", "begun", "finished"]


@dataclass(frozen=True)
class Place:
    """Where a sweep keeps what it has: runs, their configs, what they print, how long it took.

    Attributes:
        out: the folder of all that.
    """

    out: pathlib.Path

    @property
    def runs(self) -> pathlib.Path:
        """The folder of the run folders."""
        return self.out / "runs"

    def notes(self) -> dict[str, Any]:
        """Returns what was noted: real seconds by figure and by run, measured costs."""
        path = self.out / "sweep.json"
        notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {"figures": {}, "runs": {}, "costs": {}, **notes}

    def note(self, kind: Literal["figures", "runs", "costs"], name: str, value: Any) -> None:
        """Notes something; it is on disk afterwards."""
        notes = self.notes()
        notes[kind][name] = value
        write_whole(self.out / "sweep.json", (json.dumps(notes, indent=2) + "\n").encode())

    def add_seconds(self, kind: Literal["figures", "runs"], name: str, seconds: float) -> None:
        """Adds to the real seconds that something took, over all sittings."""
        self.note(kind, name, round(self.notes()[kind].get(name, 0.0) + seconds, 1))

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the folder for this program alone.

        Raises:
            UserError: it cannot be made, or another program holds it.
        """
        lock = FileLock(self.out / ".lock", timeout=0)
        try:
            for folder in (self.runs, self.out / "configs", self.out / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise UserError(f"--out {self.out}: another reproduce.py works in this folder") from None
        except OSError as error:
            raise UserError(f"--out {self.out}: cannot be used: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()


def state_of(run: Run, folder: pathlib.Path) -> State:
    """Returns how far a run is.

    Raises:
        UserError: the folder holds a run with other settings, or no run.
    """
    if _left(folder) is not None:
        return "absent"
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: holds no run; remove it")
    there, wanted = _told(resolve(read_config(path), str(path))), _told(run.settings)
    if other := sorted(key for key in wanted if there[key] != wanted[key]):
        raise UserError(f"{folder}: was run with another {', '.join(other)} than is planned now; use another --out")
    return "finished" if _ended(folder) == "finished" else "begun"


def vacate(folder: pathlib.Path) -> None:
    """Removes what is left of a run that was killed before it could write its settings; nothing else."""
    for path in _left(folder) or []:
        path.rmdir() if path.is_dir() else path.unlink()
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def _left(folder: pathlib.Path) -> list[pathlib.Path] | None:
    """Returns what is in the folder of a run that did not come as far as its settings; None when it did."""
    found = list(folder.iterdir()) if folder.exists() else []
    unwritten = [path for path in found if path.name.startswith(TEMPORARY)]
    empty = [path for path in found if path.name == MODELS and path.is_dir() and not any(path.iterdir())]
    return found if len(unwritten) + len(empty) == len(found) else None


def _told(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(exclude=FREE_TO_CHANGE)


def _ended(folder: pathlib.Path) -> str | None:
    if not (folder / "run.db").is_file():
        return None
    with contextlib.suppress(sqlite3.Error):
        address = (folder / "run.db").resolve().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            row = db.execute("select value from meta where key = 'ended'").fetchone()
            return row[0] if row else None
    return None
