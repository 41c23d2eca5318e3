"""What each role sees of the hub, and what the hub needs of the record: narrow interfaces, one for each."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from aal.coordination.answers import Said
from aal.coordination.clock import Work
from aal.coordination.labelled_pool import Label
from aal.coordination.messages import (
    Computing,
    Decision,
    Pending,
    QueryBatch,
    Redundancy,
    SelectionGrant,
    Status,
    TrainedModel,
    TrainingJob,
)
from aal.coordination.partition import HeldOutLabels


class ServerHub(Protocol):
    """What a server may call. Every call returns at once and may raise `Stopped`."""

    def job(self, server: int) -> TrainingJob | Pending:
        """Gives the idle server that has waited longest a job, when one is due."""
        ...

    def labels(self, start: int, stop: int, owner: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and labels number `start` to `stop` of L, in order of arrival, as int64 arrays (n,).

        Those that are held out are not among them.
        """
        ...

    def held_out(self, stop: int) -> HeldOutLabels:
        """Returns the labels that are held out for testing and validation, of the first `stop` of L."""
        ...

    def publish(self, trained: TrainedModel) -> int:
        """Makes a model whose file is in place the newest; returns its version."""
        ...


class WorkerHub(Protocol):
    """What a worker may call. Every call returns at once and may raise `Stopped`."""

    def remaining(self, worker: int) -> np.ndarray:
        """Returns the ids that are in the worker's shard, int64 (n,)."""
        ...

    def grant(self, worker: int, versions: int = 1) -> SelectionGrant | Pending:
        """Gives a worker the right to offer its next query batch, when the schedule allows it and S has room.

        Args:
            worker: that asks.
            versions: how many of the newest versions of each model the worker selects with.
        """
        ...

    def offer(self, batch: QueryBatch) -> None:
        """Puts a selected query batch into S."""
        ...

    def labels(self, start: int, stop: int, owner: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and labels of L, for strategies that look at what is labelled."""
        ...

    def unanswered(self, worker: int) -> np.ndarray:
        """Returns the ids that are chosen and not answered yet, by whichever worker, int64 (n,)."""
        ...


class AnnotatorHub(Protocol):
    """What label sources may call. Every call returns at once and may raise `Stopped`."""

    def draw(self, annotators: Sequence[int], asked_at: Sequence[float], idle: int) -> list[int]:
        """Leases random queries of S to annotators in the order of asking, as far as S goes.

        `NO_QUERY` stands for somebody who has had all that wait.
        """
        ...

    def answer(self, ids: Sequence[int], annotators: Sequence[int], labels: Sequence[int]) -> list[bool]:
        """Takes answers, `CANNOT_TELL` among them; returns which were taken, when they are on disk."""
        ...

    def undo(self, annotator: int, count: int = 1) -> list[int]:
        """Takes back the last answers of an annotator, who holds their ids again; returns these, the last one first."""
        ...

    def correct(self, ids: Sequence[int], labels: Sequence[int], supervisor: int) -> list[bool]:
        """Lets a supervisor decide labels; returns of each whether there was something to correct."""
        ...

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """Passes a lease on to another annotator; False where that one has had the id, or nobody holds it."""
        ...


class PeopleHub(AnnotatorHub, Protocol):
    """What the page where people label may call. Every call returns at once and may raise `Stopped`."""

    def renew(self, ids: Sequence[int], annotators: Sequence[int]) -> list[bool]:
        """Lets leases last longer; returns for each whether the annotator has it."""
        ...

    def give_back(self, ids: Sequence[int], annotators: Sequence[int]) -> None:
        """Returns leased ids to S without an answer."""
        ...

    def skip(self, ids: Sequence[int], annotators: Sequence[int]) -> None:
        """Returns leased ids to S for other annotators; these have them again when nothing else is to come."""
        ...

    def status(self) -> Status:
        """Returns how far the run is."""
        ...

    def pause(self, is_paused: bool) -> None:
        """Lets nobody have a query until it is called again."""
        ...

    def interrupt(self) -> None:
        """Asks for the end of the run, as Ctrl-C does."""
        ...


class JobRunner(Protocol):
    """What the role of a server computes with: a `Server`, or its stand-in in a simulation."""

    def cost(self, job: TrainingJob) -> Work:
        """Returns how much a training is."""
        ...

    def train(
        self,
        job: TrainingJob,
        ids: np.ndarray,
        labels: np.ndarray,
        started_at: float,
        heartbeat: Callable[[], None],
        held_out: HeldOutLabels | None = None,
    ) -> TrainedModel:
        """Trains a model for a job and puts its file in place."""
        ...


class Selector(Protocol):
    """What the role of a worker computes with: a `Worker`, or its stand-in in a simulation.

    Attributes:
        strategy: its name.
        versions: how many of the newest versions of each model it selects with.
        redundancy: of its last selection, where that was measured.
    """

    strategy: str
    redundancy: Redundancy | None

    @property
    def versions(self) -> int: ...  # noqa: D102 - described above

    def cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection is."""
        ...

    def select(
        self,
        grant: SelectionGrant,
        remaining: np.ndarray,
        labelled: Callable[[], tuple[np.ndarray, np.ndarray]],
        unanswered: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """Returns at most `grant.count` of the remaining ids."""
        ...


class Heart(Protocol):
    """What the process of a role may call besides its part of the hub."""

    def heartbeat(self, name: str) -> Computing:
        """Notes that a process makes progress; returns what is computed at the moment. Raises `Stopped` at the end."""
        ...

    def report_failure(self, name: str, reason: str) -> None:
        """Keeps what a process reports of why it fails."""
        ...


class Monitor(Protocol):
    """What an engine may call."""

    def heartbeats(self) -> dict[str, int]:
        """Returns how many heartbeats each process has given."""
        ...

    def take_failures(self) -> list[str]:
        """Returns, once, what failing processes reported, the first failure first."""
        ...

    def share_cores(self, free_cores: float) -> None:
        """Lets every role know, at its next heartbeat, how many cores other programs leave to the run."""
        ...

    def status(self) -> Status:
        """Returns how far the run is."""
        ...

    def release(self, role: str, index: int) -> None:
        """Takes back what a role held that died."""
        ...

    def stop(self) -> None:
        """Requests shutdown: every role learns of it at its next call."""
        ...

    def close(self, ended: str) -> str | None:
        """Ends the record; returns why it could not be written to its end, or None."""
        ...


class Record(Protocol):
    """The durable record of a run. Writes keep their order and never wait for the disk.

    `flush` returns when all before it is on disk.
    """

    def job_given(self, job: TrainingJob, server: int, at: float) -> None:
        """Records that a training began."""
        ...

    def model_published(self, version: int, job: TrainingJob, trained: TrainedModel, at: float) -> None:
        """Records a model."""
        ...

    def selection_granted(self, worker: int, batch: int, count: int, decision: Decision) -> None:
        """Records why a selection was granted, when its batch is there."""
        ...

    def batch_offered(self, batch: QueryBatch, newest: int | None, at: float) -> None:
        """Records a query batch and its queries; `newest` is the newest version."""
        ...

    def queries_withdrawn(self, ids: Iterable[int], version: int, at: float) -> None:
        """Records queries that went back to their shards when a batch came that a newer version chose."""
        ...

    def queries_drawn(
        self, annotators: Iterable[int], asked_at: Iterable[float | None], got_at: float, ids: Iterable[int]
    ) -> None:
        """Records draws, a column each; None in the place of `asked_at` for what another annotator passed on."""
        ...

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
        ...

    def labels_revised(self, labels: Sequence[Label]) -> None:
        """Records what an aggregation has made anew of answers that were there."""
        ...

    def flush(self) -> None:
        """Waits until everything recorded so far is on disk; raises `RecordFailed` where it cannot be."""
        ...

    def throttle(self) -> None:
        """Waits while more is on its way to the disk than memory should hold."""
        ...

    def close(self, ended: str, wall_s: float, **facts: str) -> None:
        """Records how the run ended and facts of the whole run, writes what is left and closes the record."""
        ...

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more."""
        ...
