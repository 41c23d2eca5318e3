"""Damages the directories of runs and goes on with them: no traceback, no acknowledged answer gone without a word.

    python -m tests.run_folder_faults --number 300 --seed 0

Each case takes a copy of a run that finished, or that was killed, damages one or two of its parts, and gives it to one
of the commands that a user has. It is broken when a command prints a traceback, exits with another code than 0, 1 or 2,
or exits with 0 while an answer is gone that was on disk before.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

from aal import export, report
from aal.app import eval as evaluation
from aal.app import main as program

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPE = [
    *("models=cnn", "width=0.25", "worker_num=2", "worker_query_num=4", "query_batch=5", "server_train_threshold=10"),
    *("server_num=1", "training.epochs=1", "training.validate_after=0", "annotators.number=5", "val_size=20"),
]
KINDS = {  # of runs: the settings, and how many answers are on disk when it is killed
    "finished": (["annotators.seconds_per_label=0.01"], None),
    "killed": (["annotators.seconds_per_label=0.3", "max_staleness=null"], 12),
    "simulated": (["engine=simulated", "annotators.seconds_per_label=0.01"], None),
}
PARTS = (
    *("run.db", "run.db-wal", "run.db-shm", "acknowledged.txt", "config.yaml", "split.npz", "log.txt"),
    *("models", "newest", "summary.json", "report", "report.md", ".lock"),
)
Answers = set[tuple[int, int, int]]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A run to be damaged: its directory, an earlier copy of it, and the answers that were acknowledged."""

    folder: pathlib.Path
    earlier: pathlib.Path
    answers: Answers


def command(*words: str) -> list[str]:
    """Returns a command of this program."""
    return [sys.executable, str(ROOT / "main.py"), *words]


def answers_of(run: pathlib.Path) -> Answers:
    """Returns the answers of a run, with its write-ahead log taken in; none where it cannot be read."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        return set(db.execute("SELECT item, annotator, label FROM answers"))
    return set()


def make(kind: str, place: pathlib.Path) -> Subject:
    """Makes a run to damage."""
    folder, earlier = place / kind, place / f"{kind}-earlier"
    words, until = KINDS[kind]
    process = subprocess.Popen(
        command("--config", "digits.yaml", "--out", str(folder), *SHAPE, *words), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    with process:
        try:
            while process.poll() is None:
                time.sleep(0.05)
                found = _count(folder)
                if found >= 3 and not earlier.exists():
                    _copy(folder, earlier)
                if until is not None and found >= until:
                    process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
    time.sleep(0.5)  # until all that it had started has ended
    if not earlier.exists():
        _copy(folder, earlier)
    whole = place / f"{kind}-whole"
    _copy(folder, whole)  # reading it takes in its write-ahead log
    return Subject(folder, earlier, answers_of(whole))


def _count(run: pathlib.Path) -> int:
    with contextlib.suppress(sqlite3.Error):
        address = f"{(run / 'run.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
    return 0


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    shutil.copytree(source, target, ignore=lambda folder, names: [name for name in names if name.startswith(".tmp-")])


# ---------------------------------------------------------------------- damage


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


def truncate(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
    """Cuts a file off."""
    if path.is_file():
        os.truncate(path, int(path.stat().st_size * chance.random()))


def flip(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
    """Flips bits, one or twenty."""
    if path.is_file() and path.stat().st_size:
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice((1, 20))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


def delete(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
    """Deletes a file or directory."""
    _delete(path)


def empty(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
    """Empties a file or directory."""
    is_dir = path.is_dir()
    _delete(path)
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if is_dir else path.write_bytes(b"")


def other_kind(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
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


def earlier_copy(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
    """Puts back what was there at an earlier moment."""
    source = subject.earlier / path.relative_to(_run_of(path))
    _delete(path)
    if source.is_dir():
        shutil.copytree(source, path)
    elif source.exists():
        shutil.copyfile(source, path)


def swap(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
    """Puts another file of the same run, or of another run, in its place."""
    others = [other for other in sorted(subject.folder.parent.rglob(f"*{path.suffix}")) if other.is_file()]
    if path.is_file() and (others := [other for other in others if not other.samefile(path)]):
        shutil.copyfile(chance.choice(others), path)


def edit(path: pathlib.Path, subject: Subject, chance: random.Random) -> None:
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


# ---------------------------------------------------------------------- what must hold


def commands_for(run: pathlib.Path) -> dict[str, Callable[[], int]]:
    """Returns what a user may do with a run directory."""
    models = sorted((run / "models").glob("*.pt")) if (run / "models").is_dir() else []
    newest = str(models[-1] if models else run / "models" / "none.pt")
    return {
        "resume": lambda: program.main(["--resume", str(run)]),
        "report": lambda: report.main([str(run)]),
        "export": lambda: export.main([str(run), "--format", "csv"]),
        "eval": lambda: evaluation.main(["--path", newest]),
    }


def run_apart(act: Callable[[], int], limit_s: float = 180.0) -> tuple[int | None, str]:
    """Runs a command in a process of its own, forked so that nothing is imported anew.

    Returns:
        Its exit code, None where it took longer than the limit, and what it printed.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            code = 70
            try:
                code = act()
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        deadline = time.monotonic() + limit_s
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None, ""
            time.sleep(0.01)
        output.seek(0)
        return os.waitstatus_to_exitcode(ended[1]), output.read().decode(errors="replace")


def broken_by(run: pathlib.Path, subject: Subject, name: str, act: Callable[[], int]) -> tuple[str | None, int | None]:
    """Runs a command on a damaged run; returns what it did that it may not, and its exit code."""
    code, said = run_apart(act)
    if code is None:
        return f"{name} hung", None
    if "Traceback" in said:
        return f"{name}: {said[-1500:]}", code
    if code not in (0, 1, 2):
        return f"{name}: exit code {code}: {said[-300:]}", code
    if code and "error: " not in said and "not drawn" not in said:
        return f"{name}: exit code {code} without a word: {said[-300:]}", code
    if code == 0 and name == "export":
        rows = [line.split(",") for line in (run / "labels.csv").read_text().splitlines()[1:]]
        bought = sum(row[4] == "annotator" for row in rows)
        if bought < len(subject.answers):
            return f"export: gives out {bought} of {len(subject.answers)} answers", 0
    if code == 0 and name == "resume" and (gone := len(subject.answers - answers_of(run))):
        return f"resume: {gone} of {len(subject.answers)} answers are gone: {said[-300:]}", 0
    return None, code


def attack(
    number: int, seed: int, show: Callable[[str], None] = lambda text: None
) -> tuple[collections.Counter[str], list[str]]:
    """Damages so many copies of runs; returns how often each command ended with each code, and what was broken."""
    chance, counts, broken = random.Random(seed), collections.Counter[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="aal-faults-") as name:
        place = pathlib.Path(name)
        subjects = {kind: make(kind, place) for kind in KINDS}
        show(f"answers on disk: { {kind: len(subject.answers) for kind, subject in subjects.items()} }")
        for case in range(number):
            kind = chance.choice([*subjects])
            subject, run = subjects[kind], place / f"case-{case}"
            _copy(subject.folder, run)
            done = []
            for _ in range(chance.choice((1, 1, 2))):
                part, damage = chance.choice(PARTS), chance.choice(DAMAGES)
                damage(_path_of(run, part), subject, chance)
                done.append(f"{damage.__name__} {part}")
            asked = commands_for(run)
            for command_name in ("resume", chance.choice(("report", "export", "eval"))):
                problem, code = broken_by(run, subject, command_name, asked[command_name])
                counts[f"{command_name} {code}"] += 1
                if problem:
                    broken.append(f"case {case}, {kind}, {' and '.join(done)}: {problem}")
                    show(broken[-1])
            shutil.rmtree(run)
    return counts, broken


def main() -> int:
    """Runs the command; returns 1 where something was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.run_folder_faults", description=__doc__)
    parser.add_argument("--number", type=int, default=300, help="of damaged directories")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    given = parser.parse_args()
    counts, broken = attack(given.number, given.seed, lambda text: print(text, flush=True))
    print(f"{given.number} damaged directories: {dict(sorted(counts.items()))}; {len(broken)} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
