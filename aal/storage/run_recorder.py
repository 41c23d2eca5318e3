"""Writing the database of a run, `run.db`: every statement that changes it stands here."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from aal.coordination.answers import Kind, Said
from aal.coordination.federation import AggregatedModel, EvaluatedModel, LocalModel
from aal.coordination.labelled_pool import NO_LABEL, Label
from aal.coordination.messages import Decision, QueryBatch, TrainedModel, TrainingJob
from aal.storage.journal import Journal

META = "INSERT OR REPLACE INTO meta VALUES(?,?)"
WARNING = "INSERT OR IGNORE INTO meta VALUES('warning',?)"  # the first one stays
EXAMPLES = "INSERT INTO examples VALUES(?,?,?,?,?,?)"
JOBS = "INSERT OR REPLACE INTO jobs VALUES(?,?,?,?,?,?,?,?,?)"
MODELS = """INSERT INTO models VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)
    ON CONFLICT(version) DO UPDATE SET server=excluded.server, val_accuracy=excluded.val_accuracy,
    test_accuracy=excluded.test_accuracy, path=excluded.path, epoch=excluded.epoch, checksum=excluded.checksum"""
EPOCHS = "INSERT INTO epochs VALUES(?,?,?,?)"
CONFUSION = "INSERT INTO confusion VALUES(?,?,?,?)"
FORGET = [f"DELETE FROM {table} WHERE version IN (VALUES(?))" for table in ("epochs", "confusion", "rounds")]  # noqa: S608
GRANTED = "INSERT INTO grants VALUES(?,?,?,?,?,?,?,?,?,?,?,?)"
WITHDRAWN = "INSERT INTO withdrawals VALUES(?,?,?)"
OFFERED = "INSERT INTO offers VALUES(?,?,?,?,?,?)"
REDUNDANCY = "INSERT INTO redundancy VALUES(?,?,?,?,?)"
SELECTIONS = "INSERT INTO selections VALUES(?,?,?,?,?,?,?,?)"
DRAWN = "INSERT INTO waits VALUES(?,?,?,?)"
ANSWERED = "INSERT INTO answers VALUES(?,?,?,?,?,?)"
LABELLED = """INSERT INTO labels VALUES(?,?,?,?,?,?,?) ON CONFLICT(arrival) DO UPDATE SET label=excluded.label,
    confidence=excluded.confidence, annotator=excluded.annotator, changed_at=excluded.changed_at,
    answered_at=CASE WHEN excluded.label IS NULL THEN answered_at ELSE excluded.answered_at END"""
REVISED = """INSERT INTO labels(arrival, item, label, confidence) VALUES(?,?,?,?)
    ON CONFLICT(arrival) DO UPDATE SET label=excluded.label, confidence=excluded.confidence"""
RETIRED = "INSERT OR REPLACE INTO retired VALUES(?,?)"
BACK = "DELETE FROM retired WHERE item IN (VALUES(?))"
DELIVERED = "INSERT INTO local_models VALUES(?,?,?,?,?,?,?,?,?,?,?)"
SHARES = "INSERT INTO rounds VALUES(?,?,?,?,?,?)"
TESTED = """WITH tested(version, accuracy) AS (VALUES(?,?)) UPDATE models
    SET test_accuracy = (SELECT accuracy FROM tested WHERE tested.version = models.version)
    WHERE version IN (SELECT version FROM tested)"""


class RunRecorder:
    """The record of a run on disk; implements `aal.coordination.interfaces.Record`.

    Args:
        path: of `run.db`; created with its tables when absent.
        durable: whether `flush` waits for the disk; a run that can be repeated to the last row need not.
        epoch: that `take_over` raised the record of a resumed run to; None for a new run.
        wal: whether to write ahead; see `Journal`.

    Raises:
        RecordFailed: the file cannot be opened, or another program writes it.
    """

    def __init__(self, path: pathlib.Path, durable: bool = True, epoch: int | None = None, wal: bool = True) -> None:
        self._journal = Journal(path, durable=durable, epoch=epoch, wal=wal)

    def begin(self, examples: Iterable[tuple[Any, ...]], meta: Mapping[str, str]) -> None:
        """Records where every example begins, see `Partition.rows`, and what the run is; on disk then."""
        self._journal.write((EXAMPLES, examples), (META, list(meta.items())))
        self._journal.flush()

    def resume(self, stopped_at: float, resumed_at: float, ended: str | None, meta: Mapping[str, str]) -> None:
        """Records that a run goes on, in the place of how it ended; on disk then."""
        self._journal.write(
            ("DELETE FROM meta WHERE key IN (VALUES(?))", [("ended",), ("wall_s",)]),
            ("INSERT INTO breaks VALUES(?,?,?)", [(stopped_at, resumed_at, ended)]),
            (META, list(meta.items())),
        )
        self._journal.flush()

    def job_given(self, job: TrainingJob, server: int, at: float) -> None:
        """Records that a training began."""
        start = job.start.version if job.start else None
        row = (job.number, server, job.labels, at, job.kind, job.target, job.owner, start, job.network)
        self._journal.write((JOBS, [row]))

    def model_published(self, version: int, job: TrainingJob, trained: TrainedModel, at: float) -> None:
        """Records a model, its epochs, and what it took the test images for.

        One that was trained again, because its file was lost, keeps its times.
        """
        row = (
            *(version, trained.server, job.labels, trained.started_at, at, trained.val_accuracy),
            *(trained.test_accuracy, trained.path, trained.model, trained.epoch, job.number, job.target),
            trained.checksum,
        )
        epochs = [(version, *epoch) for epoch in trained.history]
        pairs = [(version, *pair) for pair in trained.confusion]
        again = [(sql, [(version,)]) for sql in FORGET]
        self._journal.write((MODELS, [row]), *again, (EPOCHS, epochs), (CONFUSION, pairs))
        if isinstance(trained, AggregatedModel):
            self._journal.write((SHARES, [(version, *share[:-1], share.left_out or None) for share in trained.shares]))
        if trained.warning:
            self._journal.write((WARNING, [(f"model v{version}: {trained.warning}",)]))

    def local_model_delivered(self, model: LocalModel, at: float) -> None:
        """Records a local training that has ended."""
        row = (model.job, model.client, model.version, model.labels, model.start, model.started_at, at)
        self._journal.write((DELIVERED, [(*row, model.loss, model.path, model.checksum, model.dropped_out)]))

    def model_tested(self, result: EvaluatedModel) -> None:
        """Records the test accuracy of a version, and what it took the test images for."""
        self._journal.write(
            (FORGET[1], [(result.version,)]),
            (TESTED, [(result.version, result.accuracy)]),
            (CONFUSION, [(result.version, *pair) for pair in result.confusion]),
        )

    def selection_granted(self, worker: int, batch: int, count: int, decision: Decision) -> None:
        """Records why a selection was granted, when its batch is there."""
        self._journal.write((GRANTED, [(worker, batch, count, *dataclasses.astuple(decision))]))

    def queries_withdrawn(self, ids: Iterable[int], version: int, at: float) -> None:
        """Records queries that went back to their shards when a batch came that a newer version chose."""
        self._journal.write((WITHDRAWN, zip(ids, repeat(version), repeat(at))))

    def batch_offered(self, batch: QueryBatch, newest: int | None, at: float) -> None:
        """Records a query batch and its queries; `newest` is the newest version."""
        version = max(batch.versions, default=None)
        origin = (batch.worker, batch.strategy, version, newest, at)
        versions = ",".join(map(str, batch.versions))
        selection = (batch.worker, batch.batch, batch.strategy, version, len(batch.ids))
        self._journal.write(
            (OFFERED, [(example, *origin) for example in batch.ids]),
            (SELECTIONS, [(*selection, batch.started_at, at, versions)]),
        )
        if batch.redundancy is not None:
            self._journal.write((REDUNDANCY, [(batch.worker, batch.batch, *dataclasses.astuple(batch.redundancy))]))

    def queries_drawn(
        self, annotators: Iterable[int], asked_at: Iterable[float | None], got_at: float, ids: Iterable[int]
    ) -> None:
        """Records draws, a column each; None in the place of `asked_at` for what another annotator passed on."""
        self._journal.write((DRAWN, zip(annotators, asked_at, repeat(got_at), ids)))

    def answered(
        self, number: int, said: Sequence[Said], labels: Sequence[Label], retired: Sequence[int], at: float
    ) -> None:
        """Records what annotators said and what it came to.

        Args:
            number: of the first of it, from 0 in the whole run.
            said: by annotators, in order.
            labels: that are new in L, changed, or taken back.
            retired: ids that are to have no label.
            at: when.
        """
        answers = [(number + place, *one[:3], at, one.kind.value) for place, one in enumerate(said)]
        rows = [
            (one.place, one.example, _or_null(one), one.confidence, one.annotator, at, None if one.is_new else at)
            for one in labels
        ]
        back = [(one.example,) for one in said if one.kind in (Kind.UNDO, Kind.CORRECTION)]
        self._journal.write(
            (ANSWERED, answers), (LABELLED, rows), (BACK, back), (RETIRED, [(example, at) for example in retired])
        )

    def labels_revised(self, labels: Sequence[Label]) -> None:
        """Records what an aggregation has made anew of answers that were there."""
        rows = [(one.place, one.example, _or_null(one), one.confidence) for one in labels]
        self._journal.write((REVISED, rows))

    def flush(self) -> None:
        """Waits until everything recorded so far is on disk; raises `RecordFailed` where it cannot be."""
        self._journal.flush()

    def throttle(self) -> None:
        """Waits while more is on its way to the disk than memory should hold."""
        self._journal.throttle()

    def close(self, ended: str, wall_s: float, **facts: str) -> None:
        """Records how the run ended (`finished`, `interrupted`, `failed: why`) and facts of it, and closes."""
        self._journal.write((META, [("ended", ended), ("wall_s", f"{wall_s:.3f}"), *facts.items()]))
        self._journal.close()

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more."""
        return str(self._journal.failure) if self._journal.failure else None


def _or_null(label: Label) -> int | None:
    return None if label.label == NO_LABEL else label.label
