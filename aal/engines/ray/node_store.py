"""What a machine keeps of the files of another one: each once, named by its content, for all processes there."""

import contextlib
import os
import pathlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import filelock
import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from aal.config.errors import RunFailed
from aal.engines.ray.arriving_rows import ArrivingRows
from aal.engines.ray.contents import CHUNK, Contents, RowContents, digest_of, holds, read_chunk
from aal.storage.atomic import TEMPORARY, sync
from aal.storage.retry import write_with_retry

KEPT = 4  # models of a run that stay on a machine when nobody there reads them
SHARED = "files"  # the folder of what all processes of a run share on a machine
AT_ONCE = 2  # chunks on their way
WAIT_S = 1.0  # between heartbeats while the actor works


class NodeStore:
    """The files of other machines on this one, in a folder in the user's cache.

    Args:
        folder: for them.
        run_id: of the run, whose own files go when it ends; images stay for the next run.
        source: actor of the `Files` that they are copies of.
        heartbeat: called before each chunk, and while another process of this machine copies.
    """

    def __init__(
        self, folder: pathlib.Path, run_id: str, source: Any, heartbeat: Callable[[], None] = lambda: None
    ) -> None:
        self._images = folder / "images"
        self._of_run = folder / "runs" / run_id / SHARED
        self._source = source
        self._heartbeat = heartbeat

    def listed(self, path: pathlib.Path) -> list[pathlib.Path]:
        """Returns the files of a folder of the main process's machine, or the file itself."""
        return list(self._answer(self._source.listed.remote(path)))

    def image_file(self, path: pathlib.Path, target: pathlib.Path, rows: np.ndarray | None = None) -> None:
        """Puts a copy of a file of the main process's machine at a path of this one; it comes over once a machine.

        Args:
            path: there.
            target: here.
            rows: of an `.npy` file, that are wanted; the copy holds nothing in the place of the others, and needs no
                room on the disk for them. None for the whole file.
        """
        self._linked(self._images, path, target, rows)

    def arriving(self, path: pathlib.Path, target: pathlib.Path, most: int) -> Callable[[np.ndarray], None] | None:
        """Puts a file of the main process's machine at a path of this one, of which rows come when they are asked for.

        Args:
            path: there, of an `.npy` file.
            target: here.
            most: size up to which a file comes whole, with `image_file`.

        Returns:
            What is to be called with rows (n,) before they are read; None if the file is no larger than that, so that
            nothing was put there.
        """
        layout, identity = self._answer(self._source.layout.remote(path))
        if layout.size <= most:
            return None
        # Its folder may be another machine's too, which this one cannot share rows with.
        name = digest_of(np.frombuffer(repr((layout, identity, socket.gethostname())).encode(), np.uint8))
        kept = self._images / name

        def ask(rows: np.ndarray) -> tuple[np.ndarray, str]:
            self._heartbeat()
            found: tuple[np.ndarray, str] | None = self._answer(self._source.rows_of.remote(identity, rows))
            if found is None:
                raise RunFailed(f"{path}: is not the file that it was when the run began")
            return found

        with self._lock(kept):
            rows = ArrivingRows(kept, layout, ask, lambda: self._lock(kept), self._heartbeat)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(kept, target)
        return rows.arrive

    def run_file(self, path: pathlib.Path, target: pathlib.Path) -> None:
        """The same for a file of the run, such as a model; a machine keeps what is read, and some newest ones.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self._lock(self._of_run / "all"):
            self._linked(self._of_run, path, target)
            # A process that reads a file has a link to it.
            unread = [one for one in self._of_run.glob("*[0-9a-f]") if one.stat().st_nlink == 1]
            for old in sorted(unread, key=lambda one: one.stat().st_mtime)[:-KEPT]:
                old.unlink(missing_ok=True)

    def send(self, path: pathlib.Path, name: str, sender: str) -> None:
        """Copies a file of this machine into the run's folder.

        Raises:
            RunFailed: it does not arrive whole, or the disk there did not take it.
        """
        write_with_retry(lambda: self._sent(path, name, sender), f"{name}: in the run's folder, it", self._heartbeat)

    def remove(self, names: Sequence[str]) -> None:
        """Removes files from the run's folder."""
        self._answer(self._source.remove.remote(names))

    def _sent(self, path: pathlib.Path, name: str, sender: str) -> None:
        for number in range(-(-path.stat().st_size // CHUNK)):
            self._heartbeat()
            self._answer(self._source.take.remote(name, sender, number, read_chunk(path, number)))
        if not self._answer(self._source.place.remote(name, sender)):
            raise RunFailed(f"{name}: did not reach the run's folder whole")

    def _answer(self, call: Any) -> Any:
        """Waits for a call of the actor, with heartbeats.

        Raises:
            OSError: a disk there does not do what it should.
            ConnectionError: the actor is gone.
        """
        while True:
            try:
                return ray.get(call, timeout=WAIT_S)
            except GetTimeoutError:
                self._heartbeat()
            except RayTaskError as error:
                if isinstance(error.cause, OSError):  # not to be taken for the loss of the actor
                    raise error.cause from None
                raise
            except RayError as lost:
                raise ConnectionError(f"what gives files is gone: {type(lost).__name__}") from None

    def _linked(
        self, folder: pathlib.Path, path: pathlib.Path, target: pathlib.Path, rows: np.ndarray | None = None
    ) -> None:
        contents: Contents = self._answer(self._source.contents.remote(path, rows))
        kept = folder / contents.name
        with self._lock(kept):
            seen = self._of_run / f"{kept.name}.seen"  # by a process of this run, which has looked at all of it
            if not (kept.exists() and seen.exists()) and not holds(kept, contents, rows, self._heartbeat):
                self._fetch(path, contents, kept, rows)
            seen.parent.mkdir(parents=True, exist_ok=True)
            seen.touch()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(kept, target)

    def _fetch(self, path: pathlib.Path, contents: Contents, kept: pathlib.Path, rows: np.ndarray | None) -> None:
        """Copies a file, or some rows of it, in chunks, each of which is checked.

        Raises:
            RunFailed: the file changes meanwhile, or the network does.
        """
        temporary = kept.with_name(f"{TEMPORARY}{kept.name}")
        numbers = range(len(contents.chunks))
        under_way = [self._source.chunk.remote(path, number, rows) for number in numbers[:AT_ONCE]]
        with temporary.open("wb") as file:
            if isinstance(contents, RowContents):
                file.write(contents.header)
                file.truncate(contents.size)
            for number, digest in enumerate(contents.chunks):
                self._heartbeat()
                chunk: np.ndarray = self._answer(under_way.pop(0))
                if (following := number + AT_ONCE) in numbers:
                    under_way.append(self._source.chunk.remote(path, following, rows))
                if digest_of(chunk) != digest:
                    raise RunFailed(f"{path}: came over with other bytes than it has; did it change meanwhile?")
                if isinstance(contents, RowContents) and rows is not None:
                    for row, content in zip(contents.part(rows, number), chunk.reshape(-1, contents.row), strict=True):
                        file.seek(len(contents.header) + int(row) * contents.row)
                        file.write(content.data)
                else:
                    file.write(chunk.data)
                del chunk  # it fills the object store
        sync(temporary)
        os.replace(temporary, kept)

    @contextlib.contextmanager
    def _lock(self, path: pathlib.Path) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f"{path.name}.lock"))
        while not lock.is_locked:
            self._heartbeat()
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=1.0)
        try:
            yield
        finally:
            lock.release()
