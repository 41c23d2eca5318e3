"""Reading the database of a run, `run.db`: one consistent moment of it, also while the run goes on."""

import json
import pathlib
import sqlite3
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from aal.config.errors import UserError
from aal.config.program import resuming
from aal.storage.acknowledged import acknowledged, check_answers
from aal.storage.record_checks import broken_rule, unsound_file, wrong_type
from aal.storage.schema import read_as_now

Column = npt.NDArray[np.float64]
Columns = dict[str, Column]
Rows = list[dict[str, Any]]

MODELS = """SELECT version, server, model, labels, epoch, val_accuracy, test_accuracy, started_at, published_at, path
    FROM models WHERE published_at IS NOT NULL ORDER BY version"""
QUERIES = """SELECT item, worker, strategy, version, newest, offered_at, drawn_at, annotator, answered_at, label,
    arrival FROM queries ORDER BY offered_at, item"""
QUERY_TIMES = """SELECT item, worker, version, newest, offered_at, drawn_at, annotator, answered_at FROM queries
    ORDER BY offered_at, item"""
SELECTIONS = """SELECT worker, batch, version, items, started_at, offered_at FROM selections
    WHERE version IS NOT NULL ORDER BY worker, offered_at"""  # what is random was not selected by a worker
WORKERS = """SELECT worker, group_concat(DISTINCT strategy) AS strategy, count(*) AS batches, sum(items) AS queries
    FROM selections WHERE version IS NOT NULL GROUP BY worker ORDER BY worker"""
# The labels of L: the initial ones by id, then the bought ones in order of arrival. {path} is a column or NULL.
LABELS = """SELECT item AS id, {path} AS path, truth AS label, 'initial' AS source, NULL AS annotator,
        NULL AS answered_at, NULL AS strategy, NULL AS version, NULL AS batch, NULL AS confidence, -1 AS arrival
    FROM examples WHERE part = 'initial'
    UNION ALL
    SELECT item, {path}, label, 'annotator', annotator, answered_at, strategy, version, batch,
        (SELECT confidence FROM labels WHERE labels.arrival = queries.arrival), queries.arrival
    FROM queries JOIN examples USING (item)
    LEFT JOIN (SELECT worker, offered_at, min(batch) AS batch FROM selections GROUP BY worker, offered_at)
        USING (worker, offered_at)
    WHERE label IS NOT NULL ORDER BY arrival, id"""
GRANTS = (
    "SELECT granted_at, reason, waiting, mark, draws_per_s, selection_s, deviations FROM grants ORDER BY granted_at"
)
REDUNDANCY = "SELECT waiting, within, against FROM redundancy ORDER BY rowid"
# Everything that annotators answered, the last draw of who did it, and whether it is right, where that is known.
ANSWERS = """SELECT answers.item, answers.annotator, label, truth, draws.got_at AS drawn_at, answered_at,
        kind = 'check' AS is_check
    FROM standing_answers AS answers JOIN examples USING (item)
    LEFT JOIN (SELECT item, annotator, max(got_at) AS got_at FROM waits GROUP BY item, annotator) AS draws
        ON draws.item = answers.item AND draws.annotator = answers.annotator ORDER BY arrival"""
WITHDRAWN = """SELECT count(*) AS withdrawn, (SELECT count(*) FROM withdrawals
    WHERE item IN (SELECT item FROM standing_queries)) AS chosen_again FROM withdrawals"""
# S as it fills and empties; an id whose lease ran out counts as drawn.
POOL_CHANGES = """SELECT at, sum(change) AS change FROM (
    SELECT offered_at AS at, 1 AS change FROM offers UNION ALL SELECT withdrawn_at, -1 FROM withdrawals
    UNION ALL SELECT min(got_at), -1 FROM waits WHERE item IN (SELECT item FROM offers) GROUP BY item)
    GROUP BY at ORDER BY at"""
ANNOTATORS = """SELECT annotator, count(*) AS labels, sum(truth >= 0) AS known,
        sum(truth >= 0 AND label = truth) AS right
    FROM standing_answers JOIN examples USING (item) WHERE kind = 'label' GROUP BY annotator ORDER BY annotator"""
ANSWERS_BY_CLASS = """SELECT truth, count(*) AS labels, sum(label = truth) AS right
    FROM labels JOIN examples USING (item) WHERE truth >= 0 AND label IS NOT NULL GROUP BY truth"""
LOCAL_TRAININGS = "SELECT client, started_at, delivered_at FROM local_models ORDER BY client, started_at"
# A row a client: its trainings, how many of them it dropped out of, and what became of its local models.
CLIENT_WORK = """SELECT client, trainings, dropped_out, weight, mean_staleness, max_staleness,
        coalesce(left_out, 0) AS left_out
    FROM (SELECT client, count(*) AS trainings, sum(dropped_out) AS dropped_out FROM local_models GROUP BY client)
    LEFT JOIN (SELECT client, avg(weight) AS weight, avg(staleness) AS mean_staleness, max(staleness) AS max_staleness,
        count(left_out) AS left_out FROM rounds GROUP BY client) USING (client) ORDER BY client"""
CLIENTS = """SELECT worker AS client, truth, count(*) AS images, count(label) + sum(part = 'initial') AS labelled
    FROM examples LEFT JOIN labels USING (item) WHERE worker IS NOT NULL AND truth >= 0 GROUP BY worker, truth"""
LABEL_ERRORS = "SELECT count(*) FROM queries JOIN examples USING (item) WHERE truth >= 0 AND label <> truth"


class RunReader:
    """A context manager that reads `run.db` without ever writing to it.

    Args:
        run: the run directory.
        timeout_s: how long to wait for a lock of another program.

    Raises:
        UserError: there is no `run.db`, or it cannot be read.
    """

    def __init__(self, run: pathlib.Path, timeout_s: float = 5.0) -> None:
        self.path = run / "run.db"
        self._run = run
        if not self.path.is_file():
            if (run / "config.yaml").is_file() and not self.path.exists():
                raise UserError(f"{run}: the run has not begun yet; {resuming(run)} goes on with it")
            raise UserError(f"{run}: is no run directory, it has no run.db")
        # A URI of the absolute path, so that no character of a folder's name is taken for an option.
        address = self.path.resolve().as_uri() + "?mode=ro"
        try:
            self._db = sqlite3.connect(address, uri=True, timeout=timeout_s)
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: cannot be read: {error}") from None

    def __enter__(self) -> Self:
        self._db.execute("BEGIN")  # one moment for all that is read
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._db.close()

    def check(self) -> None:
        """Checks, before anything else is read, that every acknowledged answer is there and values are of their types.

        Raises:
            UserError: the record is damaged, an earlier copy, or lacks its write-ahead log.
        """
        known = acknowledged(self.path)
        try:
            is_empty = not self._has("answers")
            read_as_now(self._db)
            check_answers(self.path, self._db, known)
            problem = unsound_file(self.path, self._db) or wrong_type(self._db, may_be_empty=True)
            if known and not is_empty:
                problem = problem or broken_rule(self._db)
        except sqlite3.Error as error:
            half = self.path.with_name(f"{self.path.name}-journal").exists()  # of a commit that was broken off
            hint = f"; {resuming(self._run)} makes it whole" if half else ""
            raise UserError(f"{self.path}: cannot be read: {error}{hint}") from None
        if is_empty:
            raise UserError(
                f"{self.path}: holds nothing: the run has not begun yet, or its run.db-wal is missing; "
                f"{resuming(self._run)} goes on with it"
            )
        if problem:
            raise UserError(f"{self.path}: is damaged: {problem}")

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Returns the rows of a query.

        Raises:
            UserError: the file is damaged, locked, or lacks a table.
        """
        return self._execute(sql, values)[1]

    def value(self, sql: str, *values: object) -> Any:
        """Returns the first value of a query; None where it has no row."""
        rows = self.query(sql, *values)
        return rows[0][0] if rows else None

    def rows(self, sql: str, *values: object) -> Rows:
        """Returns the rows of a query as dicts by column name."""
        names, rows = self._execute(sql, values)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def columns(self, sql: str, *values: object) -> Columns:
        """Returns the columns of a query, numbers only, as float64 arrays (n,); a missing number is NaN."""
        names, rows = self._execute(sql, values)
        table = np.array(rows, dtype=float).reshape(-1, len(names))
        return dict(zip(names, table.T, strict=True))

    def _execute(self, sql: str, values: tuple[object, ...]) -> tuple[list[str], list[tuple[Any, ...]]]:
        try:
            cursor = self._db.execute(sql, values)
            return [about[0] for about in cursor.description], cursor.fetchall()
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: cannot be read: {error}") from None

    def meta(self) -> dict[str, str]:
        """Returns what the run noted of itself: config, seed, versions of software, how it ended."""
        return dict(self.query("SELECT key, value FROM meta"))

    def models(self) -> Rows:
        """Returns the published models in order of version."""
        return self.rows(MODELS)

    def lineages(self) -> dict[int, int]:
        """Returns the target of each version."""
        return dict(self.query("SELECT version, target FROM models WHERE published_at IS NOT NULL"))

    def selected_with(self) -> Rows:
        """Returns the number of items, when they were offered, and the list of versions of each selection."""
        rows = self.rows("SELECT items, offered_at, versions FROM selections WHERE version IS NOT NULL")
        return [{**row, "versions": [int(version) for version in row["versions"].split(",")]} for row in rows]

    def queries(self) -> Rows:
        """Returns a row for each offered id, in order of offering."""
        return self.rows(QUERIES)

    def query_times(self) -> Columns:
        """Returns worker, versions and times of each offered id, in order of offering."""
        return self.columns(QUERY_TIMES)

    def answers(self) -> Columns:
        """Returns item, annotator, label (NaN: could not tell), truth, drawn_at, answered_at and is_check of answers.

        A row for each answer that stands, in order.
        """
        return self.columns(ANSWERS)

    def corrections(self) -> dict[int, tuple[int, int | None]]:
        """Returns who corrected each image that was, by item, and the label it is to have; None: none at all."""
        sql = "SELECT item, annotator, label, max(arrival) FROM answers WHERE kind = 'correction' GROUP BY item"
        return {item: (annotator, label) for item, annotator, label, _ in self.query(sql)}

    def bought_labels(self) -> dict[int, int]:
        """Returns the label of each image that was bought, by item."""
        return dict(self.query("SELECT item, label FROM labels WHERE label IS NOT NULL"))

    def confidences(self) -> dict[int, float]:
        """Returns for each bought label, by item, how sure it is, from 0 to 1."""
        return dict(self.query("SELECT item, confidence FROM labels WHERE label IS NOT NULL"))

    def retired(self) -> int:
        """Returns how many images are to have no label."""
        return int(self.value("SELECT count(*) FROM retired"))

    def waits(self) -> Columns:
        """Returns annotator, asked_at and got_at of every draw."""
        return self.columns("SELECT annotator, asked_at, got_at FROM waits WHERE asked_at IS NOT NULL")

    def selections(self) -> Columns:
        """Returns worker, batch, version, items, started_at, offered_at of each selection, by worker, then by time."""
        return self.columns(SELECTIONS)

    def grants(self) -> Rows:
        """Returns when and why selections were granted, in order of time; none in older records."""
        return self.rows(GRANTS) if self._has("grants") else []

    def redundancy(self) -> Columns:
        """Returns waiting, within and against of the batches whose redundancy was measured."""
        return self.columns(
            REDUNDANCY if self._has("redundancy") else "SELECT 0 AS waiting, 0 AS within, 0 AS against LIMIT 0"
        )

    def withdrawn(self) -> dict[str, int]:
        """Returns how many offers were `withdrawn`, and how many of their ids were `chosen_again`."""
        none = {"withdrawn": 0, "chosen_again": 0}
        return self.rows(WITHDRAWN)[0] if self._has("withdrawals") else none

    def pool_changes(self) -> Columns:
        """Returns at which times S grew or shrank, and by how much; nothing in older records."""
        return self.columns(POOL_CHANGES if self._has("grants") else "SELECT 0 AS at, 0 AS change LIMIT 0")

    def workers(self) -> Rows:
        """Returns for each worker its strategies, batches and queries."""
        return self.rows(WORKERS)

    def breaks(self) -> Rows:
        """Returns the interruptions that the run was resumed from."""
        return self.rows("SELECT stopped_at, ended FROM breaks ORDER BY resumed_at")

    def epochs(self) -> Columns:
        """Returns version, epoch, loss and validation accuracy of every epoch; none in older records."""
        sql = "SELECT version, epoch, loss, val_accuracy AS accuracy FROM epochs ORDER BY version, epoch"
        return self.columns(sql if self._has("epochs") else "SELECT 1 version, 1 epoch, 1 loss, 1 accuracy LIMIT 0")

    def confusion(self, version: int) -> Rows:
        """Returns truth, predicted and images of each pair of classes that occurs in the test of a model."""
        if not self._has("confusion"):
            return []
        return self.rows("SELECT truth, predicted, images FROM confusion WHERE version = ?", version)

    def annotators(self) -> Rows:
        """Returns for each annotator its labels, how many of their true labels are known, and how many it got right."""
        return self.rows(ANNOTATORS)

    def answers_by_class(self) -> Rows:
        """Returns for each known true label the labels bought of it, and how many of them are right."""
        return self.rows(ANSWERS_BY_CLASS)

    def local_trainings(self) -> Columns:
        """Returns client, started_at and delivered_at of each local training that has ended, by client."""
        return self.columns(LOCAL_TRAININGS)

    def client_work(self) -> Rows:
        """Returns for each client its trainings, and the weight and staleness of its local models."""
        return self.rows(CLIENT_WORK)

    def clients(self) -> Rows:
        """Returns for each client and true class how many images are its own, and how many of these are labelled."""
        return self.rows(CLIENTS)

    def _has(self, table: str) -> bool:
        return bool(self.value("SELECT count(*) FROM sqlite_master WHERE name = ?", table))

    def labels(self) -> Rows:
        """Returns a row for each label of L: the initial ones by id, then the bought ones in order of arrival.

        `path` is that of the source file, relative to `data_dir`; None where the set has no files. `batch` counts the
        batches of the worker that chose the id, from 0; None for initial labels.
        """
        columns = {name for (name,) in self.query("SELECT name FROM pragma_table_info('examples')")}
        return self.rows(LABELS.format(path="path" if "path" in columns else "NULL"))  # older records have no paths

    def paths(self) -> dict[int, str]:
        """Returns the source file of every example that has one, relative to `data_dir`, by id."""
        columns = {name for (name,) in self.query("SELECT name FROM pragma_table_info('examples')")}
        return dict(self.query("SELECT item, path FROM examples WHERE path IS NOT NULL")) if "path" in columns else {}

    def examples(self) -> list[tuple[int, str, int | None, int, str | None]]:
        """Returns id, part, worker, true label and what it is held out for of every example, by id."""
        return self.query("SELECT item, part, worker, truth, held_out FROM examples ORDER BY item")

    def held_out(self) -> dict[int, str]:
        """Returns the examples that are held out, by item, and for what: test or validation."""
        return dict(self.query("SELECT item, held_out FROM examples WHERE held_out IS NOT NULL"))

    def test_images(self) -> dict[int, int]:
        """Returns on how many images each version was tested."""
        if not self._has("confusion"):
            return {}
        return dict(self.query("SELECT version, sum(images) FROM confusion GROUP BY version"))

    def classes(self) -> list[str]:
        """Returns the name of each label; empty where the run did not note them."""
        try:
            return [str(name) for name in json.loads(self.meta().get("classes", "[]"))]
        except (ValueError, TypeError):
            raise UserError(f"{self.path}: the names of the classes in its table meta are damaged") from None

    def initial_labels(self) -> int:
        """Returns how many examples were labelled at the start."""
        return int(self.value("SELECT count(*) FROM examples WHERE part = 'initial'"))

    def label_errors(self) -> int:
        """Returns how many answers differ from a known true label."""
        return int(self.value(LABEL_ERRORS))
