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
ROWS = ANSWERS.replace("answered_at FROM", "answered_at, kind FROM")
# As one text, which SQLite puts together without Python's lock; times in nanoseconds, so that no digits are rounded.
AS_TEXT = f"""SELECT count(*), group_concat(arrival || ' ' || item || ' ' || annotator || ' ' ||
    coalesce(label, kind) || ' ' || CAST(answered_at * 1e9 AS INTEGER) || ';', '') FROM ({ROWS})"""  # noqa: S608 - our own names
AT_ONCE = 100_000  # answers of a text


def checksum_of(db: sqlite3.Connection, first: int, last: int | None = None, before: int = 0) -> tuple[int, int]:
    """Returns how many answers there are of those that arrived from `first` on, and their checksum.

    Args:
        db: open on the record.
        first: place in the order of arrival.
        last: place before which it ends; None for all.
        before: checksum of those before them, which is continued.
    """
    found = 0
    while last is None or first + found < last:
        most = AT_ONCE if last is None else min(AT_ONCE, last - first - found)
        number, text = db.execute(AS_TEXT, (first + found, most)).fetchone()
        if not number:
            break
        found, before = found + number, zlib.crc32(text.encode(), before)
        if number < most:
            break
    return found, before


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
        number, self._checksum = checksum_of(connection, self._count, before=self._checksum)
        if not number and self._is_written:
            return
        self._count += number
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
    found, now = checksum_of(db, 0, count) if _has_answers(db) else (0, 0)
    if found < count:
        raise UserError(
            f"{record}: holds {found} of the {count} answers that were acknowledged ({NAME}); it is an earlier "
            f"copy, or its {record.name}-wal, which holds the last answers of a run that was killed, is missing"
        )
    if now != checksum:
        raise UserError(f"{record}: its answers are not those that were acknowledged ({NAME}); it is damaged")


def _has_answers(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone() == (1,)
