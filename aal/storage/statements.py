"""SQL statements for many rows at a time."""

import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

ROWS = 512  # of a statement, at the most

# SQL with one VALUES(?,...), and the rows to execute it for.
Statement = tuple[str, Iterable[Sequence[Any]]]


def execute(connection: sqlite3.Connection, sql: str, rows: Iterable[Sequence[Any]]) -> None:
    """Does what `executemany` does, many rows to a statement.

    That takes half the time. And `executemany` gives up Python's lock for each row, and has to wait for it each time
    another thread computes: measured, a hundred times as long.

    Args:
        connection: to the database.
        sql: with one `VALUES(?,...)`.
        rows: as many values each as there are question marks.
    """
    head, values, rest = sql.partition("VALUES")
    group, end, tail = rest.partition(")")
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // max(1, group.count("?"))
    left = iter(rows)
    while chunk := list(itertools.islice(left, min(ROWS, 1 << most.bit_length() - 1))):
        start = 0
        while size := len(chunk) - start:
            size = 1 << size.bit_length() - 1  # powers of two: few statements, which SQLite compiles once
            groups = ",".join([group + end] * size)
            connection.execute(head + values + groups + tail, [*itertools.chain(*chunk[start : start + size])])
            start += size
