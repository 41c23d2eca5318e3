"""What a user or a disk may do to the directory of a run."""

import contextlib
import os
import pathlib
import random
import shutil
import sqlite3

from bench.fuzz.made_runs import KINDS, Made, made_run

PARTS = (
    *("run.db", "run.db-wal", "run.db-shm", "acknowledged.txt", "config.yaml", "split.npz", "log.txt"),
    *("models", "newest", "summary.json", "report", "report.md", ".lock"),
)


def damage(run: pathlib.Path, made: Made, chance: random.Random) -> str:
    """Damages a part of a copy of a run; returns what was done to which."""
    part, act = chance.choice(PARTS), chance.choice(DAMAGES)
    act(_path_of(run, part), made, chance)
    return f"{act.__name__} {part}"


def _path_of(run: pathlib.Path, part: str) -> pathlib.Path:
    if part == "newest":
        models = sorted((run / "models").glob("*.pt")) or [run / "models" / "none.pt"]
        return models[-1]
    return run / "report" / part if part == "report.md" else run / part


def _run_of(path: pathlib.Path) -> pathlib.Path:
    return path.parent.parent if path.parent.name in ("models", "report") else path.parent


def _delete(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def truncate(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Cuts a file off."""
    if path.is_file():
        os.truncate(path, int(path.stat().st_size * chance.random()))


def flip(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Flips bits, one or twenty."""
    if path.is_file() and path.stat().st_size:
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice((1, 20))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


def delete(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Deletes a file or directory."""
    _delete(path)


def empty(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Empties a file or directory."""
    is_dir = path.is_dir()
    _delete(path)
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if is_dir else path.write_bytes(b"")


def other_kind(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Puts a pipe, a directory or a file where something else should be."""
    was_dir = path.is_dir()
    _delete(path)
    path.parent.mkdir(exist_ok=True)
    if was_dir:
        path.write_text("no directory")
    elif chance.random() < 0.5:
        path.mkdir()
    else:
        os.mkfifo(path)


def earlier_copy(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Puts back what was there at an earlier moment."""
    source = made.earlier / path.relative_to(_run_of(path))
    _delete(path)
    if source.is_dir():
        shutil.copytree(source, path)
    elif source.exists():
        shutil.copyfile(source, path)


def swap(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Puts another file of the same run, or of another run, in its place."""
    other = chance.choice([made, made_run(chance.choice(list(KINDS)), made.folder.parent)])
    files = [
        file for file in sorted(other.folder.rglob(f"*{path.suffix}")) if file.is_file() and file.name != "run.db-shm"
    ]
    if path.is_file() and files:
        shutil.copyfile(chance.choice(files), path)


def edit(path: pathlib.Path, made: Made, chance: random.Random) -> None:
    """Changes settings, or facts of the record."""
    run = _run_of(path)
    config, record = run / "config.yaml", run / "run.db"
    old, new = chance.choice(
        [
            *(("engine: local", "engine: simulated"), ("engine: simulated", "engine: local"), ("seed: 0", "seed: 1")),
            *(("mode: async", "mode: sync"), ("worker_num: 2", "worker_num: 3"), ("val_size: 20", "val_size: 10")),
            *(("- cnn", "- resnet18"), ("query_batch: 5", "query_batch: 4"), ("epochs: 1", "epochs: 2")),
            ("worker_query_num: 4", "worker_query_num: 1"),
        ]
    )
    if chance.random() < 0.6 and config.is_file():
        config.write_bytes(config.read_bytes().replace(old.encode(), new.encode()))
        return
    sql = chance.choice(
        [
            *("DELETE FROM answers WHERE arrival % 3 = 1", "UPDATE answers SET label = (label + 1) % 10"),
            *("UPDATE answers SET label = 99 WHERE arrival = 2", "DELETE FROM answers", "DELETE FROM meta"),
            *("UPDATE meta SET value = 'x' WHERE key = 'wall_s'", "DELETE FROM meta WHERE key IN ('config', 'images')"),
            *("UPDATE models SET path = '../../x.pt'", "UPDATE models SET version = version + 1", "DROP TABLE offers"),
            *("UPDATE offers SET worker = 1 - worker", "UPDATE examples SET part = 'test' WHERE item % 7 = 0"),
            *(
                "UPDATE models SET labels = 'many'",
                "UPDATE jobs SET start = 77",
                "DELETE FROM models",
                "DELETE FROM jobs",
            ),
            *("UPDATE waits SET got_at = 'late'", "UPDATE meta SET value = '[[[' WHERE key = 'config'"),
            *("UPDATE meta SET value = 'e' WHERE key = 'epoch'", "UPDATE meta SET value = '{' WHERE key = 'classes'"),
        ]
    )
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(record)) as db, db:
        db.execute(sql)


DAMAGES = (truncate, flip, flip, delete, empty, other_kind, earlier_copy, swap, edit, edit)
