"""A queue of SQL statements before one SQLite file: written by one thread, many writes to a commit."""

import contextlib
import itertools
import pathlib
import sqlite3
import threading
import time

from aal.config.errors import RecordFailed
from aal.storage.acknowledged import AnswerCount
from aal.storage.atomic import place_of
from aal.storage.schema import create_tables, epoch_of, raise_epoch
from aal.storage.statements import Statement, execute

GATHER_S = 0.05  # how long writes that no flush waits for may gather for one commit
STEPS = 1_000_000  # of SQLite, after which a transaction shows that it goes on: those of some 10,000 rows
BACKLOG = 200_000  # changes in memory, at the most
RESCUED = "run.db.rescued"  # a record in whose place another file was put


class Journal:
    """Writes in order; `flush` returns when all that was written before it is on disk.

    Flushes at the same time share one commit, and so the cost of a sync to disk. While another program locks the file,
    writes wait, and so the run pauses. Every commit checks that the file is still where it was, and that no other
    program has begun to write it since.

    Args:
        path: of the SQLite file; created with its tables when absent.
        epoch: that this writer has raised the record to (`raise_epoch`); by default it raises it now.
        lock_timeout_s: how long a lock of another program is waited for before the journal fails.
        durable: whether `flush` waits for the disk; a run that can be repeated to the last row need not.
        wal: whether to write ahead, which is faster, but only for writers and readers that share a machine's memory.

    Raises:
        RecordFailed: the file cannot be opened, or another program writes it.
    """

    def __init__(
        self,
        path: pathlib.Path,
        lock_timeout_s: float = 60.0,
        durable: bool = True,
        epoch: int | None = None,
        wal: bool = True,
    ) -> None:
        self._path = path
        self._durably = durable
        self._lock_timeout_s = lock_timeout_s
        self._changed = threading.Condition()
        self._pending: list[tuple[Statement, ...]] = []
        self._written = 0
        self._durable = 0
        self._urgent = False
        self._closing = False
        self._moved_at = 0.0  # when the thread last did something, as far as somebody waits for it
        self.failure: RecordFailed | None = None
        try:
            connection = sqlite3.connect(path, check_same_thread=False, timeout=lock_timeout_s)
            connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
            create_tables(connection)
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                self._epoch = raise_epoch(connection) if epoch is None else epoch
                self._check_epoch(connection)
            connection.set_progress_handler(self._note_progress, STEPS)
            self._answers = AnswerCount(path)
            self._answers.update(connection)  # before anything is in the record: without the file it is not taken up
        except (sqlite3.Error, ValueError, OSError) as error:
            raise self._failed(error) from None
        self._places = {file: place_of(file) for file in (path, path.with_name(f"{path.name}-wal"))}
        self._thread = threading.Thread(target=self._run, args=(connection,), name="journal", daemon=True)
        self._thread.start()

    def write(self, *statements: Statement) -> None:
        """Queues statements, each for many rows, that belong together: all of them come to be on disk, or none."""
        with self._changed:
            if not self._pending:
                self._changed.notify_all()
            self._pending.append(statements)
            self._written += 1

    def throttle(self) -> None:
        """Waits while the changes in memory are too many; whoever writes much calls it while it holds no lock."""
        if len(self._pending) > BACKLOG:
            with self._changed:
                self._changed.wait_for(lambda: len(self._pending) <= BACKLOG or self.failure is not None)

    def flush(self) -> None:
        """Waits until everything written so far is committed.

        Raises:
            RecordFailed: it could not be.
        """
        with self._changed:
            if self._closing:
                raise RecordFailed(f"{self._path}: is closed already")
            if not self._durably and self.failure is None:
                return
            goal = self._written
            self._urgent = True
            self._changed.notify_all()
            self._moved_at = time.monotonic()
            while self._durable < goal and self.failure is None and (left_s := self._left_s()) > 0:
                self._changed.wait_for(lambda: self._durable >= goal or self.failure is not None, left_s)
            if self._durable < goal:
                raise self.failure or RecordFailed(f"{self._path}: the disk does not respond")

    def close(self) -> None:
        """Writes what is left and ends the thread; the file is then whole by itself, without its WAL."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._moved_at = time.monotonic()
        while self._thread.is_alive() and (left_s := self._left_s()) > 0:
            self._thread.join(left_s)
        if self._thread.is_alive() and self.failure is None:
            self.failure = RecordFailed(f"{self._path}: the disk does not respond")

    def _left_s(self) -> float:
        """Returns for how long the thread may still do nothing: rows by the hundred million take their time."""
        return self._moved_at + 2 * self._lock_timeout_s - time.monotonic()

    def _note_progress(self) -> None:
        self._moved_at = time.monotonic()

    def _run(self, connection: sqlite3.Connection) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._pending or self._closing)
                    self._changed.wait_for(lambda: self._urgent or self._closing, timeout=GATHER_S)
                    batch, self._pending, self._urgent = self._pending, [], False
                    if not batch and self._closing:
                        return
                with connection:  # one transaction, rolled back whole when a part of it fails
                    connection.execute("BEGIN IMMEDIATE")
                    self._check_epoch(connection)
                    for sql, rows in itertools.chain.from_iterable(batch):
                        execute(connection, sql, rows)
                self._check_place(connection)
                self._answers.update(connection)
                with self._changed:
                    self._durable += len(batch)
                    self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self.failure = self._failed(error)
                self._changed.notify_all()
        finally:
            with contextlib.suppress(sqlite3.Error):  # fails while another program reads it
                connection.execute("PRAGMA journal_mode=DELETE")  # one file, for read-only readers too
            connection.close()

    def _check_epoch(self, connection: sqlite3.Connection) -> None:
        if epoch_of(connection) != self._epoch:
            raise RecordFailed(
                f"{self._path}: another program has gone on with this run; this one changes nothing more"
            )

    def _check_place(self, connection: sqlite3.Connection) -> None:
        """Checks after a commit that it is where readers will look for it; a record that is gone is written again."""
        gone = [file for file, place in self._places.items() if place_of(file) != place]
        if not gone:
            return
        copy = None
        if not self._path.exists():
            copy = self._path
        elif self._path in gone:  # another file is in its place, which is left alone
            copy = self._path.with_name(RESCUED)
        hint = ""
        if copy is not None:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(copy)) as again:
                connection.backup(again)
                hint = f"; {copy.name} is written there with every answer"
        raise RecordFailed(f"{gone[0]}: was moved, deleted or replaced while the run went on{hint}")

    def _failed(self, error: Exception) -> RecordFailed:
        if isinstance(error, RecordFailed):
            return error
        hint = "; free some space" if "full" in str(error) else ""
        hint = "; another program holds it" if "locked" in str(error) else hint
        return RecordFailed(f"{self._path}: cannot be written: {error}{hint}")
