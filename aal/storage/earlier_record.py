"""The record of an earlier attempt at a simulated run, kept until the run that repeats it holds as much.

A simulated run that is resumed is repeated from its start and writes the same rows again. Whether it does is known only
afterwards, so nothing is deleted before.
"""

import contextlib
import pathlib
import sqlite3

from aal.config.errors import UserError
from aal.storage.acknowledged import ANSWERS, NAME

EARLIER = "run.db.earlier"

Answers = list[tuple[object, ...]]


def set_aside(record: pathlib.Path) -> None:
    """Moves a record to `EARLIER`, so that a new one can be written; of two attempts the longer one stays there.

    Args:
        record: path of `run.db`; may be absent.

    Raises:
        UserError: the two records hold different answers, or another program reads them.
    """
    earlier = record.with_name(EARLIER)
    before, now = _answers(earlier), _answers(record)
    if now[: len(before)] != before[: len(now)]:
        raise UserError(f"{record}: holds other answers than {EARLIER}; move one of them elsewhere")
    if record.exists():
        if len(now) < len(before):
            record.unlink()
        else:
            record.replace(earlier)
    record.with_name(NAME).unlink(missing_ok=True)


def compare(record: pathlib.Path) -> str | None:
    """Keeps the longer one of the new record and the earlier one, when the new one is closed.

    Returns:
        What is wrong when the new one does not repeat the earlier one, which then stays; None when all is well.
    """
    earlier = record.with_name(EARLIER)
    if not earlier.exists():
        return None
    before, now = _answers(earlier), _answers(record)
    if now[: len(before)] != before[: len(now)]:
        return f"this run has not repeated the earlier one, whose record stays in {earlier}"
    if len(now) < len(before):
        earlier.replace(record)
    else:
        earlier.unlink()
    return None


def _answers(record: pathlib.Path) -> Answers:
    """Returns the answers of a record, which is one file by itself afterwards."""
    if not record.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(record, timeout=10.0)) as db:
            db.execute("PRAGMA journal_mode=DELETE")
            begun = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone() == (1,)
            return db.execute(ANSWERS, (0, -1)).fetchall() if begun else []
    except sqlite3.Error as error:
        raise UserError(f"{record}: cannot be read: {error}") from None
