"""The files of the main process's machine, for machines that do not see them: an actor that gives and takes chunks."""

import contextlib
import os
import pathlib
import re
from collections.abc import Collection, Sequence

import numpy as np
import ray

from aal.engines.ray.contents import CHUNK, Contents, RowContents, contents_of, digest_of, read_chunk, rows_in
from aal.engines.ray.identity import Identity
from aal.storage.atomic import TEMPORARY, sync
from aal.storage.checksum import is_intact
from aal.storage.run_directory import WRITTEN

WATCHED = "watched"  # a thread of the actor, for calls that report its progress while another one works


class Files:
    """Gives what roles read, and takes what they write into the run's folder.

    It keeps nothing in memory that it could not read again, so Ray restarts it, and repeats its calls, when it dies.

    Args:
        run: the run's folder.
        readable: files and folders that roles read.
    """

    def __init__(self, run: pathlib.Path, readable: Collection[pathlib.Path]) -> None:
        self._run = run
        self._readable = [run / "split.npz", *(run / folder for folder in WRITTEN), *readable]
        self._known: dict[tuple[pathlib.Path, str], Contents] = {}  # by path, and digest of the rows
        self._steps = 0

    @ray.method(concurrency_group=WATCHED)
    def progress(self) -> tuple[int, int]:
        """Returns the number of the process and of the steps that it has made, at once."""
        return os.getpid(), self._steps

    def step(self) -> None:
        """Counts a step: each call is one at least, and each chunk that is read."""
        self._steps += 1

    def listed(self, path: pathlib.Path) -> list[pathlib.Path]:
        """Returns the files of a folder, or the file itself."""
        self._check(path)
        return sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]

    def contents(self, path: pathlib.Path, rows: np.ndarray | None = None) -> Contents:
        """Returns what is in a file, or in some rows of an `.npy` file."""
        self._check(path)
        asked = path, "" if rows is None else digest_of(rows.view(np.uint8))
        if asked not in self._known:
            self._known[asked] = contents_of(path, rows, self.step)
        return self._known[asked]

    def chunk(self, path: pathlib.Path, number: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns a chunk of a file, or of some rows of it, uint8."""
        self._check(path)
        return read_chunk(path, number, rows)

    def layout(self, path: pathlib.Path) -> tuple[RowContents, Identity]:
        """Returns how an `.npy` file is laid out, and which one it is: to read a large one whole would take long."""
        self._check(path)
        return rows_in(path, np.empty(0, np.int64)), Identity.of(path)

    def rows_of(self, identity: Identity, rows: np.ndarray) -> tuple[np.ndarray, str] | None:
        """Returns the bytes of some rows, at most a chunk, and their digest; None where the file is another one now."""
        if not identity.is_seen():
            return None
        chunk = self.chunk(identity.path, 0, rows)
        return chunk, digest_of(chunk)

    def take(self, name: str, sender: str, number: int, chunk: np.ndarray) -> None:
        """Takes a chunk of a file that a role has written.

        Args:
            name: of the file, such as `models/...`.
            sender: the process that sends it; no two of them write to one file.
            number: of the chunk.
            chunk: its bytes.
        """
        temporary = self._temporary(name, sender)
        temporary.parent.mkdir(mode=0o755, exist_ok=True)
        with open(temporary, "r+b" if number else "wb") as file:
            file.seek(number * CHUNK)
            file.write(chunk.data)

    def place(self, name: str, sender: str) -> bool:
        """Puts a file in place whose chunks are there; returns whether it came whole. It is on disk then."""
        temporary, target = self._temporary(name, sender), self._run / name
        if not temporary.exists():  # it was placed, and the call is repeated
            return is_intact(target)
        if not is_intact(temporary):
            temporary.unlink()
            return False
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
        self._known.pop((target, ""), None)
        return True

    def remove(self, names: Sequence[str]) -> None:
        """Removes files that roles have written and nobody will read any more; one that cannot be removed stays."""
        for path in map(self._written, names):
            with contextlib.suppress(OSError):
                path.unlink()

    def _temporary(self, name: str, sender: str) -> pathlib.Path:
        target = self._written(name)
        if not re.fullmatch(r"[\w-]+", sender):
            raise ValueError(f"{sender}: is no name of a process")
        return target.with_name(f"{TEMPORARY}{target.name}-{sender}")

    def _written(self, name: str) -> pathlib.Path:
        self.step()
        folder, _, file = name.partition("/")
        if folder not in WRITTEN or not re.fullmatch(r"\w[\w.-]*", file):
            raise ValueError(f"{name}: is no file that a role of the run writes")
        return self._run / folder / file

    def _check(self, path: pathlib.Path) -> None:
        self.step()
        if ".." in path.parts or not any(path == one or path.parent == one for one in self._readable):
            raise ValueError(f"{path}: is no file that a role of the run reads")
