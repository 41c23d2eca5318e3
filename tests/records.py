"""Run directories with a record that was made up, so that every figure is known."""

import pathlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

import aal

SCHEMA = pathlib.Path(aal.__file__).parent / "storage" / "schema.sql"
CONFIG = {"data_type": "digits", "mode": "async", "engine": "local", "seed": 7, "server_num": 2}


def make_run(
    folder: pathlib.Path, config: Mapping[str, Any] = CONFIG, **tables: Iterable[Sequence[Any]]
) -> pathlib.Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    db = sqlite3.connect(folder / "run.db")
    db.execute("pragma journal_mode=wal")
    db.executescript(SCHEMA.read_text())
    for table, rows in tables.items():
        columns = [name for _, name, *_ in db.execute(f"pragma table_info({table})")]
        for row in rows:
            given = columns[: len(row)]
            db.execute(f"insert into {table}({','.join(given)}) values({','.join('?' * len(row))})", row)
    db.commit()
    db.close()
    return folder


def model(
    version: int, server: int, labels: int, start: float, end: float, test: float | None, name: str = "cnn"
) -> tuple[Any, ...]:
    return (version, server, labels, start, end, 0.5, test, f"models/{version}.pt", name, 9, version)
