"""Whether the rows of a record fit together: what SQLite's own check cannot see."""

import json
import pathlib
import sqlite3
from collections.abc import Mapping

from aal.config.errors import UserError

# Each counts the rows that are wrong. SQLite stores any value in any column, so a flipped bit can change its type.
# The first ones hold for every record, the others for one that a run goes on with.
ANSWER_RULES = {
    "the answers are not numbered in order": """
        SELECT count(*) FROM (SELECT min(arrival) low, max(arrival) high, count(*) number FROM answers)
        WHERE number > 0 AND (low <> 0 OR high <> number - 1)""",
    "two labels have the same place in L, or a place is empty": """
        SELECT count(*) FROM (SELECT min(arrival) low, max(arrival) high, count(*) number FROM labels)
        WHERE number > 0 AND (low <> 0 OR high <> number - 1)""",
    "an image was offered twice": """
        SELECT count(*) FROM (SELECT item, count(*) AS times FROM offers GROUP BY item)
        LEFT JOIN (SELECT item, count(*) AS withdrawn FROM withdrawals GROUP BY item) USING (item)
        WHERE times - coalesce(withdrawn, 0) NOT IN (0, 1)""",
    "an image was withdrawn that was not offered": """
        SELECT count(*) FROM withdrawals WHERE item NOT IN (SELECT item FROM offers) OR item IS NULL""",
    "an image was labelled twice": "SELECT count(*) - count(DISTINCT item) FROM labels",
    "an image was answered twice by the same annotator": """
        SELECT count(*) FROM (SELECT 2 * sum(kind = 'undo') - count(*) AS balance FROM answers
            WHERE kind <> 'correction' GROUP BY item, annotator) WHERE balance NOT IN (0, -1)""",
    "an answer is for an image that was not offered": """
        SELECT count(*) FROM answers WHERE item IS NULL OR item NOT IN (
            SELECT item FROM standing_queries UNION ALL SELECT item FROM answers WHERE kind = 'check')""",
    "a label has no answer": "SELECT count(*) FROM labels WHERE item NOT IN (SELECT item FROM answers)",
}
RULES = {
    **ANSWER_RULES,
    "an image was offered that is not in the shard of its worker": """
        SELECT count(*) FROM offers LEFT JOIN examples USING (item)
        WHERE part IS NOT 'shard' OR examples.worker IS NOT offers.worker""",
    "a label is not one of the classes": """
        SELECT count(*) FROM (SELECT label FROM labels UNION ALL SELECT label FROM answers)
        WHERE label IS NOT NULL AND (typeof(label) <> 'integer' OR label NOT BETWEEN 0 AND :classes - 1)""",
    "an answer has no label, or one that it should not have": """
        SELECT count(*) FROM answers WHERE kind NOT IN ('label', 'cannot tell', 'check', 'undo', 'correction')
            OR (kind = 'label' AND label IS NULL) OR (kind IN ('cannot tell', 'undo') AND label IS NOT NULL)""",
    "the batches do not hold as many queries as were offered": """
        SELECT (SELECT coalesce(sum(items), 0) FROM selections) <> (SELECT count(*) FROM offers)""",
    "a batch is of no worker, or has no place among its batches": """
        SELECT count(*) FROM (SELECT worker, count(*) number, count(DISTINCT batch) batches, min(batch) low,
            max(batch) high FROM selections GROUP BY worker)
        WHERE low <> 0 OR high <> number - 1 OR batches <> number
            OR worker NOT IN (SELECT worker FROM examples WHERE part = 'shard') OR worker IS NULL""",
    "the jobs are not numbered in order": "SELECT count(*) <> coalesce(max(number) + 1, 0) FROM jobs",
    "a job is of labels that are not there": """
        SELECT count(*) FROM jobs WHERE typeof(labels) <> 'integer' OR labels < 1 OR labels >
            (SELECT count(*) FROM labels) + (SELECT count(*) FROM examples WHERE part = 'initial')""",
    "the models are not numbered in order": "SELECT count(*) <> coalesce(max(version) + 1, 0) FROM models",
    "a model is of no job, or of another's": """
        SELECT count(*) FROM models LEFT JOIN jobs ON jobs.number = ticket
        WHERE jobs.labels IS NOT models.labels OR jobs.target IS NOT models.target""",
    "two models are of the same job": "SELECT count(*) - count(DISTINCT ticket) FROM models",
    "a local model is of no job, or of another client's": """
        SELECT count(*) FROM local_models LEFT JOIN jobs ON jobs.number = job
        WHERE jobs.kind IS NOT 'train_local' OR jobs.owner IS NOT client""",
    "two local models are of the same job": "SELECT count(*) - count(DISTINCT job) FROM local_models",
    "a version is made of what no client sent": """
        SELECT count(*) FROM rounds WHERE job NOT IN (SELECT job FROM local_models) OR job IS NULL
            OR version NOT IN (SELECT version FROM models) OR version IS NULL""",
    "a model's file is not in the run directory": r"""
        SELECT count(*) FROM models WHERE path <> '' AND (path NOT LIKE 'models/%.pt' OR path LIKE '%..%')""",
}
# Columns that may be empty.
OPTIONAL = {
    *(("examples", "worker"), ("examples", "path"), ("examples", "held_out")),
    *(("models", "val_accuracy"), ("models", "test_accuracy")),
    *(("waits", "asked_at"), ("answers", "label"), ("labels", "label"), ("labels", "changed_at")),
    *(("models", "checksum"), ("jobs", "owner"), ("jobs", "start"), ("breaks", "ended")),
    *(("epochs", "loss"), ("epochs", "val_accuracy")),
    *(("local_models", "start"), ("local_models", "loss"), ("local_models", "checksum"), ("rounds", "left_out")),
    *(("offers", "version"), ("offers", "newest"), ("selections", "version")),
    *(("grants", "draws_per_s"), ("grants", "selection_s"), ("redundancy", "within"), ("redundancy", "against")),
}
TABLES = (
    "meta",
    "examples",
    "models",
    "offers",
    "waits",
    "answers",
    "labels",
    "retired",
    "jobs",
    "breaks",
    "selections",
    "epochs",
    "confusion",
    "withdrawals",
    "grants",
    "redundancy",
    "local_models",
    "rounds",
)
TYPES = {"INTEGER": "'integer'", "REAL": "'real'", "TEXT": "'text'"}


def check_record(path: pathlib.Path, db: sqlite3.Connection) -> None:
    """Checks that the file is sound and that its rows fit together; takes about a second for a million examples.

    Args:
        path: of `run.db`.
        db: open on it.

    Raises:
        UserError: it is damaged.
        sqlite3.Error: it cannot be read.
    """
    if problem := unsound_file(path, db) or wrong_type(db):
        raise UserError(f"{path}: is damaged: {problem}")
    (classes,) = db.execute("SELECT value FROM meta WHERE key = 'classes'").fetchone() or ("[]",)
    if rule := broken_rule(db, RULES, classes=len(json.loads(classes)) or 1_000_000):
        raise UserError(f"{path}: is damaged: {rule}")


def unsound_file(path: pathlib.Path, db: sqlite3.Connection) -> str | None:
    """Returns what is wrong with the pages of a file; SQLite reads what is missing of the last one as zeros."""
    if path.stat().st_size % db.execute("PRAGMA page_size").fetchone()[0]:
        return "a part of its last page is missing"
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    return None if found == "ok" else " ".join(found.split())


def broken_rule(db: sqlite3.Connection, rules: Mapping[str, str] = ANSWER_RULES, **values: int) -> str | None:
    """Returns what is wrong with the rows of a record, by the first of some rules that does not hold."""
    return next((rule for rule, sql in rules.items() if db.execute(sql, values).fetchone() != (0,)), None)


def wrong_type(db: sqlite3.Connection, may_be_empty: bool = False) -> str | None:
    """Returns which column holds a value of another type than its own, or none where there must be one.

    Args:
        db: open on the record.
        may_be_empty: whether any column may hold nothing.
    """
    for table in TABLES:
        columns = [(name, kind) for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})") if kind in TYPES]
        if not columns:
            continue  # a record of an earlier version has fewer tables
        wrong = []
        for name, kind in columns:
            is_optional = may_be_empty or (table, name) in OPTIONAL
            allowed = f"{TYPES[kind]}, 'null'" if is_optional else TYPES[kind]
            wrong.append(f"sum(typeof({name}) NOT IN ({allowed}))")
        counts = db.execute(f"SELECT {', '.join(wrong)} FROM {table}").fetchone()  # noqa: S608 - our own names
        for (name, kind), count in zip(columns, counts, strict=True):
            if count:
                return f"a value of the column {table}.{name} is no {kind.lower()}"
    return None
