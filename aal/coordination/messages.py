"""What roles and hub exchange: small frozen records of ids and numbers, never images or tensors.

What crosses processes by the thousand, draws and answers, travels as columns instead: lists of numbers are pickled ten
times as fast as records. Times are seconds since the run began. An example id is the row of the image in the prepared
arrays.

What names files of the run directory says so: a task that a role is given lists in `reads` those that it needs, a
report in `writes` those that are in place. An engine whose machines share no folder brings and sends them by that.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field


class Change(enum.Flag):
    """What of a run has changed. The hub emits it; a clock may wait for it instead of asking again and again."""

    LABELS = enum.auto()  # L has grown, or a job has come back
    MODELS = enum.auto()  # a version was published
    ROOM = enum.auto()  # S can take more queries
    QUERIES = enum.auto()  # S holds more queries to draw
    LEASES = enum.auto()  # the first lease was taken
    IDLE = enum.auto()  # S is empty and nothing is leased
    UPDATES = enum.auto()  # a client has sent a local model
    STOP = enum.auto()  # the run is over


ANY = ~Change.STOP  # what a rule waits for that does not say more; the end of a run wakes every waiter anyway


@dataclass(frozen=True, slots=True)
class Pending:
    """The answer "not yet": which changes make it worth asking again.

    Attributes:
        until: the changes.
        in_turn: whether those who wait are served in the order in which they came, so that only the first need ask
            again; the next one asks when the first has been served or has left.
        at: when it is worth asking again without a change; None where only a change can make it so.
    """

    until: Change
    in_turn: bool = False
    at: float | None = None


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A published model.

    Attributes:
        version: counted over all models of the run, from 0.
        path: of its file, relative to the run directory.
        labels: that were in L when its training began; those that are held out are not trained on.
        target: which of several target models it is a version of.
    """

    version: int
    path: str
    labels: int
    target: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """Files that whoever is given it needs."""
        return (self.path,)


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The right to train once.

    Attributes:
        number: of the job, from 0; it seeds the training.
        labels: the job reads the first `labels` answers of L, the initial ones included.
        kind: the registered trainer that computes it.
        target: which target model it trains.
        owner: the worker whose labels it may read; None for all of L.
        start: the model whose weights it starts from; None to train from scratch.
        network: which of the networks in `models` it trains.
    """

    number: int
    labels: int
    kind: str = "fit"
    target: int = 0
    owner: int | None = None
    start: ModelRef | None = None
    network: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """Files that the job needs."""
        return (self.start.path,) if self.start else ()


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a server reports of the model that it trained for a job.

    Attributes:
        job: number of the job.
        server: that trained it.
        model: name of the network.
        path: of its file, relative to the run directory; it is in place already.
        epoch: that was kept, from 1.
        started_at: when the training began.
        val_accuracy: of the kept epoch, from 0 to 1; None without validation examples.
        test_accuracy: from 0 to 1; None without test examples.
        history: (epoch, mean loss, validation accuracy) of each epoch, None where unknown.
        confusion: (true class, predicted class, test images) of each pair that occurs.
        warning: what a user should know of its losses; empty where all is well.
        checksum: that the file holds; None where there is no file.
    """

    job: int
    server: int
    model: str
    path: str
    epoch: int
    started_at: float
    val_accuracy: float | None
    test_accuracy: float | None
    history: Sequence[tuple[int, float | None, float | None]] = ()
    confusion: Sequence[tuple[int, int, int]] = ()
    warning: str = ""
    checksum: str | None = None

    @property
    def test_images(self) -> int:
        """On how many images it was tested."""
        return sum(images for *_, images in self.confusion)

    @property
    def writes(self) -> tuple[str, ...]:
        """Files that are in place."""
        return () if self.checksum is None else (self.path,)


@dataclass(frozen=True, slots=True)
class Decision:
    """What led a schedule to a selection, for the record.

    Attributes:
        granted_at: when.
        reason: `low`: S would be empty before the selection is made; `newer model`: to replace queries of older ones.
        waiting: queries in S.
        selecting: ids that other workers were selecting.
        older: queries in S that a newer model may replace.
        mark: queries at which a selection is due.
        draws_per_s: of all annotators together; None while it is not known.
        selection_s: how long a selection takes; None while it is not known.
        deviations: how many deviations of the demand the mark lies above its mean.
    """

    granted_at: float
    reason: str
    waiting: int
    selecting: int
    older: int
    mark: int
    draws_per_s: float | None
    selection_s: float | None
    deviations: float


@dataclass(frozen=True, slots=True)
class SelectionGrant:
    """A worker's right to offer one query batch.

    Attributes:
        batch: number of the worker's batch, from 0.
        count: ids it may hold at most.
        models: the newest version of each target model; where the worker asks for more versions, those before it
            follow each, the newest first.
        decision: why it was given, where the schedule records that.
        local: file of the client's own last model, in a federated run; empty where it has none.
    """

    batch: int
    count: int
    models: tuple[ModelRef, ...]
    decision: Decision | None = None
    local: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """Files that the selection needs."""
        return (*(model.path for model in self.models), *([self.local] if self.local else []))

    @property
    def version(self) -> int:
        """The newest of the versions to select with."""
        return max(model.version for model in self.models)


@dataclass(frozen=True, slots=True)
class Redundancy:
    """How much a batch repeats itself and what was chosen before it: means of cosines to the nearest neighbour.

    Attributes:
        waiting: how many ids were chosen and not answered yet.
        within: of each id of the batch to the others of it; None of one alone.
        against: of each id of the batch to those; None where there were none.
    """

    waiting: int
    within: float | None
    against: float | None


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """The ids that a worker selected for its grant.

    Attributes:
        worker: that selected them.
        batch: number of its grant.
        ids: of the examples.
        strategy: that chose them.
        versions: of the models that chose them; none where they are random.
        started_at: when the selection began.
        redundancy: of the batch, where it was measured.
    """

    worker: int
    batch: int
    ids: list[int]
    strategy: str
    versions: tuple[int, ...]
    started_at: float
    redundancy: Redundancy | None = None


@dataclass(frozen=True, slots=True)
class Computing:
    """How many trainings and selections go on at this moment, and what they may share.

    Attributes:
        trainings: that go on.
        selections: that go on.
        free_cores: cores that other programs leave to the run; None before that is measured.
    """

    trainings: int
    selections: int
    free_cores: float | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """A training that goes on.

    Attributes:
        server: that does it.
        labels: that were in L when it began.
        seconds: since its job was given out.
    """

    server: int
    labels: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is, for the progress bar.

    Attributes:
        seconds: since the run began.
        labels: bought.
        budget: labels to buy.
        waiting: queries in S.
        idle_annotators: that wait for a query.
        version: newest version; None before the first.
        test_accuracy: of the newest version that is tested.
        finished: whether every label is bought and trained on.
        failure: why the record cannot be written; None while it can.
        computing: what goes on.
        warning: the first that a training gave; empty where there was none.
        initial: labels of the start.
        labels_per_s: labels bought, divided by the time from the first offer to the last answer; None before it.
        trainings: that go on, in the order in which they began.
        is_virtual: whether the seconds are those of a simulation.
        clients: of a federation, that train at the moment; None of other runs.
        interrupted: whether somebody has asked for the end of the run.
        paused: whether nobody is given a query.
        test_images: that it was tested on; 0 where that is not known.
        tested_version: which one that is; None where it is the newest of all.
    """

    seconds: float
    labels: int
    budget: int
    waiting: int
    idle_annotators: int
    version: int | None
    test_accuracy: float | None
    finished: bool
    failure: str | None
    computing: Computing = field(default=Computing(0, 0))
    warning: str = ""
    initial: int = 0
    labels_per_s: float | None = None
    trainings: Sequence[Training] = ()
    is_virtual: bool = False
    clients: int | None = None
    interrupted: bool = False
    paused: bool = False
    test_images: int = 0
    tested_version: int | None = None
