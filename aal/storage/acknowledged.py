"""How many answers a run has acknowledged, written beside its record: a record that has lost some is noticed.

`run.db` alone does not show it: copied without its write-ahead log, or taken from a backup, it is a sound database of
an earlier moment. So after each commit a small file says how many answers are in the record, with a checksum of them.
It is not synced to disk at each commit: after a power failure it may say fewer, never more than there are. (Of a
simulated run it may say more, for its record does not wait for the disk; such a run can be started anew.)
"""

import os
import pathlib
import re
import sqlite3
import zlib

from aal.config.errors import UserError
from aal.storage.atomic import write_whole

NAME = "acknowledged.txt"
TEXT = "run.db holds {count:>12} acknowledged answers, checksum {checksum:08x}\n"  # always of the same length
READ = re.compile(r"run\.db holds +(\d+) acknowledged answers, checksum ([0-9a-f]{8})\n")
ANSWERS = "SELECT arrival, item, annotator, label, answered_at FROM answers WHERE arrival >= ? ORDER BY arrival LIMIT ?"


def checksum_of(rows: list[tuple[object, ...]], before: int = 0) -> int:
    """Returns the checksum of answers in order of arrival, continued from that of those before them."""
    return zlib.crc32("".join(map(repr, rows)).encode(), before)


class AnswerCount:
    """Keeps the file up to date.

    Args:
        record: path of `run.db`.
    """

    def __init__(self, record: pathlib.Path) -> None:
        self._path = record.with_name(NAME)
        self._count = 0
        self._checksum = 0
        self._is_written = False

    def update(self, connection: sqlite3.Connection) -> None:
        """Takes in what was committed since the last call.

        Raises:
            OSError: the file cannot be written.
        """
        rows = connection.execute(ANSWERS, (self._count, -1)).fetchall()
        if not rows and self._is_written:
            return
        self._count += len(rows)
        self._checksum = checksum_of(rows, self._checksum)
        text = TEXT.format(count=self._count, checksum=self._checksum).encode()
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            write_whole(self._path, text)
        else:
            try:
                os.pwrite(file, text, 0)
            finally:
                os.close(file)
        self._is_written = True


def acknowledged(record: pathlib.Path) -> tuple[int, int] | None:
    """Returns how many answers were acknowledged and their checksum; None where nothing says so.

    Raises:
        UserError: the file is damaged.
    """
    path = record.with_name(NAME)
    if not path.exists():
        return None
    found = READ.fullmatch(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    if found is None:
        raise UserError(f"{path}: is damaged; it said how many answers run.db must hold")
    return int(found[1]), int(found[2], 16)


def check_answers(record: pathlib.Path, db: sqlite3.Connection, known: tuple[int, int] | None) -> None:
    """Checks that a record still holds every answer that was acknowledged.

    Args:
        record: path of `run.db`.
        db: open on it.
        known: what `acknowledged` returned before the transaction began, for a run may go on meanwhile.

    Raises:
        UserError: it does not.
    """
    if known is None:
        return
    count, checksum = known
    rows = db.execute(ANSWERS, (0, count)).fetchall() if _has_answers(db) else []
    if len(rows) < count:
        raise UserError(
            f"{record}: holds {len(rows)} of the {count} answers that were acknowledged ({NAME}); it is an earlier "
            f"copy, or its {record.name}-wal, which holds the last answers of a run that was killed, is missing"
        )
    if checksum_of(rows) != checksum:
        raise UserError(f"{record}: its answers are not those that were acknowledged ({NAME}); it is damaged")


def _has_answers(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone() == (1,)
