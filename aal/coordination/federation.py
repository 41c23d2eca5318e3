"""What the roles and the hub of a federated run exchange: numbers and paths of files, never weights or images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aal.coordination.messages import TrainedModel, TrainingJob

TRAIN_LOCAL, AGGREGATE = "train_local", "aggregate"  # kinds of jobs
CLIENTS = "clients"  # folder, of the run directory, of what clients keep from one training to the next


def kept_with(path: str) -> str:
    """Returns the file of what a client keeps beside a local model, which no other role is given."""
    return f"{CLIENTS}/{path.rpartition('/')[2].replace('local', 'kept', 1)}"


class Facts(NamedTuple):
    """What clients and servers agree on before they begin.

    Attributes:
        classes: names of the labels 0, 1, ...
        channels: of the images.
        image_size: pixels a side.
        images: name of the prepared set, which stands for its content.
        mean: of each channel, pixels scaled to 0..1.
        std: of each channel, the same.
    """

    classes: tuple[str, ...]
    channels: int
    image_size: int
    images: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LocalJob(TrainingJob):
    """A client's right to train once on its own labels; `owner` is the client.

    Attributes:
        version: that comes next when it is given.
        cycle: whose initial weights it begins with, where there is no `start`.
        place: number of the training in the order of rounds and clients; it seeds the training.
        epochs_before: of this client in this cycle.
        previous: file of this client's local model before it in this cycle, whose optimiser may go on; empty for its
            first.
    """

    version: int = 0
    cycle: int = 0
    place: int = 0
    epochs_before: int = 0
    previous: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """Files that the job needs: what the client has kept too, where it has kept any."""
        kept = (kept_with(self.previous),) if self.previous else ()
        return super(LocalJob, self).reads + kept


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What a client sends when it has trained.

    Attributes:
        job: number of the job.
        client: that trained.
        version: that came next when it began.
        labels: of its own that it trained on.
        start: version that it began with; None where it began with new weights.
        path: of the file with its weights, relative to the run directory; empty where there is none.
        started_at: when the training began.
        loss: mean of the last epoch; None where it is not known.
        checksum: that the file holds; None where there is no file.
        dropped_out: whether the client dropped out, so that its weights never came.
    """

    job: int
    client: int
    version: int
    labels: int
    start: int | None
    path: str
    started_at: float
    loss: float | None = None
    checksum: str | None = None
    dropped_out: bool = False

    @property
    def writes(self) -> tuple[str, ...]:
        """Files that are in place; of what the client keeps, only where it keeps any."""
        return () if self.checksum is None else (self.path, kept_with(self.path))


class Contribution(NamedTuple):
    """A local model on its way into a version.

    Attributes:
        model: of the client.
        staleness: versions that were published since the one that it began with.
        start: file of that version; empty where it began with new weights.
    """

    model: LocalModel
    staleness: int
    start: str


@dataclass(frozen=True, slots=True)
class AggregationJob(TrainingJob):
    """A server's right to average once; `start` is the version before, None at the start of a cycle.

    Attributes:
        cycle: whose initial weights stand for `start` where there is none.
        contributions: what it averages; may be none, where every client dropped out.
        obsolete: files of local models, and of what was kept beside them, that nobody will read any more.
    """

    cycle: int = 0
    contributions: tuple[Contribution, ...] = ()
    obsolete: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Files that the average needs."""
        given = [path for one in self.contributions for path in (one.model.path, one.start) if path]
        return tuple(dict.fromkeys((*super(AggregationJob, self).reads, *given)))


class Share(NamedTuple):
    """What became of a local model in an aggregation.

    Attributes:
        client: that sent it.
        job: number of its training.
        weight: share of the average, from 0 to 1.
        staleness: in versions.
        left_out: why it was left out; empty where it was not.
    """

    client: int
    job: int
    weight: float
    staleness: int
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class AggregatedModel(TrainedModel):
    """What a server reports of an average.

    Attributes:
        shares: what became of each local model.
    """

    shares: Sequence[Share] = ()


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """What an evaluator reports of a version.

    Attributes:
        version: that it scored.
        accuracy: on the test set, from 0 to 1; None without test examples.
        confusion: (true class, predicted class, test images) of each pair that occurs.
    """

    version: int
    accuracy: float | None
    confusion: Sequence[tuple[int, int, int]] = ()

    @property
    def test_images(self) -> int:
        """On how many images it was tested."""
        return sum(images for *_, images in self.confusion)


@dataclass(frozen=True)
class FederationState:
    """What the clients of an interrupted run had sent.

    Attributes:
        local_models: in order of arrival.
        merged: numbers of the local trainings that are in each version, those left out among them.
        tested: versions whose test accuracy is known.
    """

    local_models: Sequence[LocalModel] = ()
    merged: Mapping[int, Sequence[int]] = field(default_factory=dict)
    tested: frozenset[int] = frozenset()
