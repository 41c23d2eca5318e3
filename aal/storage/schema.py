"""The tables of `run.db`, and which of the programs that ever wrote it may still do so."""

import pathlib
import sqlite3

SCHEMA = pathlib.Path(__file__).with_name("schema.sql")


def create_tables(connection: sqlite3.Connection) -> None:
    """Creates what a record lacks: all of it, or what was added since an earlier version."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not {"withdrawals", "labels"} <= tables:  # the view of records of earlier versions does not know of them
        connection.execute("DROP VIEW IF EXISTS queries")
    is_earlier = "answers" in tables and "labels" not in tables
    if is_earlier:  # each answer was a label
        connection.execute("ALTER TABLE answers ADD COLUMN kind TEXT DEFAULT 'label'")
    connection.executescript(SCHEMA.read_text(encoding="utf-8"))
    if is_earlier:
        connection.execute(
            "INSERT INTO labels SELECT arrival, item, label, 1.0, annotator, answered_at, NULL FROM answers"
        )
    for table, column in (("models", "checksum"), ("examples", "held_out")):
        if column not in _columns(connection, table):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT")
    connection.commit()


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}


def read_as_now(connection: sqlite3.Connection) -> None:
    """Lets a record of an earlier version, which is only read, look as if it had the tables of this one."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "withdrawals" not in tables:
        connection.execute("CREATE TEMP TABLE withdrawals(item)")
        connection.execute("CREATE TEMP VIEW standing_queries AS SELECT * FROM offers")
    if "examples" in tables and "held_out" not in _columns(connection, "examples"):
        connection.execute("CREATE TEMP VIEW examples AS SELECT *, NULL AS held_out FROM main.examples")
    if "answers" in tables and "labels" not in tables:
        connection.execute("CREATE TEMP VIEW answers AS SELECT *, 'label' AS kind FROM main.answers")
        connection.execute("CREATE TEMP VIEW standing_answers AS SELECT * FROM answers")
        connection.execute(
            "CREATE TEMP VIEW labels AS SELECT arrival, item, label, 1.0 AS confidence, annotator, answered_at, "
            "NULL AS changed_at FROM main.answers"
        )
        connection.execute("CREATE TEMP TABLE retired(item, retired_at)")


def epoch_of(connection: sqlite3.Connection) -> int:
    """Returns how often a program began to write this record; 0 before the first."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return int(row[0]) if row else 0


def raise_epoch(connection: sqlite3.Connection) -> int:
    """Raises the epoch within a transaction, so that no earlier writer changes anything more; returns the new one."""
    epoch = epoch_of(connection) + 1
    connection.execute("INSERT OR REPLACE INTO meta VALUES('epoch',?)", (str(epoch),))
    return epoch
