"""What the roles tell one another: small frozen records, ids and numbers only, never images or tensors.

What goes from process to process by the thousand, asks and answers, goes as columns: lists of numbers get there ten
times as fast as records.

Times are seconds since the run began. An item is the row of an image in the prepared arrays.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A published model; `target` numbers the models that a run trains side by side, 0 where there is one."""

    version: int
    path: str
    labels: int
    target: int = 0


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The right to train once, on the first `labels` answers of L (the initial ones included).

    Attributes:
        number: of the job.
        labels: how many.
        kind: what it computes, the name of a trainer.
        target: of the model that it trains.
        owner: the worker whose labels it may read; None: all of L.
        start: the model whose weights it starts from; None: new ones.
    """

    number: int
    labels: int
    kind: str = "fit"
    target: int = 0
    owner: int | None = None
    start: ModelRef | None = None


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a server tells of the model that it trained for a ticket."""

    ticket: int
    server: int
    model: str
    path: str
    epoch: int
    started_at: float
    val_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True, slots=True)
class SelectionGrant:
    """A worker's right to offer a batch of at most `count` items, and the models to choose them with, one a target."""

    batch: int
    count: int
    models: tuple[ModelRef, ...]


@dataclass(frozen=True, slots=True)
class Computing:
    """How many trainings and selections go on at this moment."""

    trainings: int
    selections: int


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """A batch that a worker chose for its turn; `started_at` is when it began to choose."""

    worker: int
    batch: int
    items: list[int]
    strategy: str
    version: int
    started_at: float


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is, for the progress bar; `failure` is why it cannot go on."""

    seconds: float
    labels: int
    budget: int
    waiting: int
    idle_annotators: int
    version: int | None
    test_accuracy: float | None
    finished: bool
    failure: str | None
