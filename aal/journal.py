"""The durable record of a run: one SQLite file, written by one thread, many writes to a commit."""

import pathlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from typing import Any

SCHEMA = pathlib.Path(__file__).with_name("schema.sql")
GATHER_S = 0.05  # writes that nobody waits for may share a commit for so long


class Journal:
    """Writes in order; `flush` returns when all that was written before it is on disk.

    Those who flush at the same time share one commit, so that the price of a sync to disk is split among them.

    Args:
        path: of the SQLite file; created with its tables when absent.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._changed = threading.Condition()
        self._pending: list[tuple[str, Sequence[Any]]] = []
        self._written = 0
        self._durable = 0
        self._urgent = False
        self._closing = False
        self._failure: Exception | None = None
        connection = sqlite3.connect(path, check_same_thread=False, timeout=10.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(SCHEMA.read_text(encoding="utf-8"))
        connection.commit()
        self._thread = threading.Thread(target=self._run, args=(connection,), name="journal", daemon=True)
        self._thread.start()

    def write(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Queues one statement for many rows; order is kept."""
        batch = [(sql, row) for row in rows]
        with self._changed:
            self._pending.extend(batch)
            self._written += len(batch)
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until everything written so far is committed.

        Raises:
            sqlite3.Error: the file could not be written; nothing after that is durable.
        """
        with self._changed:
            goal = self._written
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._durable >= goal or self._failure is not None)
            if self._durable < goal and self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """Writes what is left and ends the thread; the file is then whole by itself, without its WAL."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self, connection: sqlite3.Connection) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._pending or self._closing)
                    self._changed.wait_for(lambda: self._urgent or self._closing, timeout=GATHER_S)
                    batch, self._pending, self._urgent = self._pending, [], False
                    if not batch and self._closing:
                        return
                for sql, rows in _runs(batch):
                    connection.executemany(sql, rows)
                connection.commit()
                with self._changed:
                    self._durable += len(batch)
                    self._changed.notify_all()
        except sqlite3.Error as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            connection.close()


def _runs(batch: list[tuple[str, Sequence[Any]]]) -> Iterable[tuple[str, list[Sequence[Any]]]]:
    """Groups neighbours with the same statement, keeping the order."""
    rows: list[Sequence[Any]] = []
    for position, (sql, row) in enumerate(batch):
        rows.append(row)
        if position + 1 == len(batch) or batch[position + 1][0] != sql:
            yield sql, rows
            rows = []
