"""The tables of `run.db`, and which of the programs that ever wrote it may still do so."""

import pathlib
import sqlite3

SCHEMA = pathlib.Path(__file__).with_name("schema.sql")


def create_tables(connection: sqlite3.Connection) -> None:
    """Creates what a record lacks: all of it, or what was added since an earlier version."""
    is_new = not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'withdrawals'").fetchone()[0]
    if is_new:  # the view of records of earlier versions does not know of withdrawals
        connection.execute("DROP VIEW IF EXISTS queries")
    connection.executescript(SCHEMA.read_text(encoding="utf-8"))
    if "checksum" not in {name for _, name, *_ in connection.execute("PRAGMA table_info(models)")}:
        connection.execute("ALTER TABLE models ADD COLUMN checksum TEXT")
    connection.commit()


def epoch_of(connection: sqlite3.Connection) -> int:
    """Returns how often a program began to write this record; 0 before the first."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return int(row[0]) if row else 0


def raise_epoch(connection: sqlite3.Connection) -> int:
    """Raises the epoch within a transaction, so that no earlier writer changes anything more; returns the new one."""
    epoch = epoch_of(connection) + 1
    connection.execute("INSERT OR REPLACE INTO meta VALUES('epoch',?)", (str(epoch),))
    return epoch
