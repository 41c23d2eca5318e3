"""What all engines share: the plan of a run, its result, and how interrupts and errors become a result."""

import abc
import dataclasses
import enum
import importlib
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from aal.config.errors import INTERRUPTED, RecordFailed, Refused, RunFailed, UserError
from aal.config.registry import AGGREGATIONS
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.answers import Answers
from aal.coordination.checks import Checks
from aal.coordination.clock import Now
from aal.coordination.hub import Hub
from aal.coordination.messages import Change, Status
from aal.coordination.partition import Partition
from aal.coordination.schedules import schedule_of
from aal.coordination.schedules.base import Schedule
from aal.engines.signals import collected
from aal.storage.resume_state import ResumeState
from aal.storage.run_recorder import RunRecorder

log = logging.getLogger("aal")


class RunStatus(enum.Enum):
    """How a run ended."""

    FINISHED = enum.auto()
    INTERRUPTED = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True)
class RunResult:
    """How a run ended, and why.

    Attributes:
        status: of the three ways.
        cause: the signal that interrupted it, or why it failed; empty when it finished.
        exit_code: 0, 1 when it failed, 2 when only the user can mend it, 129, 130 or 143 by the signal.
        at_once: whether it ended without a report: a second signal came, or the first one outside of the engine.
    """

    status: RunStatus
    cause: str = ""
    exit_code: int = 0
    at_once: bool = False

    @classmethod
    def interrupted(cls, signal: str, at_once: bool = False) -> "RunResult":
        """Returns the result of a run that a signal ended."""
        return cls(RunStatus.INTERRUPTED, signal, INTERRUPTED[signal], at_once)

    @classmethod
    def failed(cls, error: RunFailed | UserError | RecordFailed) -> "RunResult":
        """Returns the result of a run that an error ended."""
        return cls(RunStatus.FAILED, str(error), 2 if isinstance(error, UserError) else 1)

    @property
    def ended(self) -> str:
        """What the record says of the end."""
        return {
            RunStatus.FINISHED: "finished",
            RunStatus.INTERRUPTED: "interrupted",
            RunStatus.FAILED: f"failed: {self.cause}",
        }[self.status]


@dataclass(frozen=True)
class Role:
    """A kind of role, by the names of its functions: they are imported where the role runs.

    Attributes:
        name: `server`, `worker`, `annotators` or `web`.
        build: `module:function` that makes, from a `Context` and `args`, what the role computes with.
        live: `module:coroutine function` of what was built and its `Context`.
        number: how many of them.
        args: what else `build` takes.
        part: the part of the hub that it sees, one of `aal.coordination.parts.PARTS`; its name by default.
        rows: for each of them, the rows (n,), ascending, that it reads of the `.npy` files among `args`; None for all.
        processes: that they share; None for one each.
        needs_all: whether a run comes to no end without every one of them, so that all must have room at its start.
        asks_for_images: whether it asks for the images that it reads, see `Context.arriving`, so that a machine need
            not hold the others.
        stays: whether it runs on the machine of the command, if the user says nothing else.
    """

    name: str
    build: str
    live: str
    number: int
    args: tuple[Any, ...] = ()
    processes: int | None = None
    part: str = ""
    rows: Sequence[np.ndarray] | None = field(default=None, repr=False, compare=False)
    needs_all: bool = False
    asks_for_images: bool = False
    stays: bool = False

    @property
    def sees(self) -> str:
        """The part of the hub that it sees."""
        return self.part or self.name

    @property
    def slots(self) -> int:
        """How many processes there are."""
        return min(self.processes or self.number, self.number)

    def members(self, slot: int) -> range:
        """Returns the numbers of the roles that share a process."""
        return range(slot, self.number, self.slots)

    def rows_of(self, slot: int) -> np.ndarray | None:
        """Returns the rows that the roles in a process read, ascending; None for all."""
        return None if self.rows is None else np.unique(np.concatenate([self.rows[one] for one in self.members(slot)]))

    def process_name(self, slot: int) -> str:
        """Returns the name of a process, as in the log."""
        return self.name if self.name in ("annotators", "web") else f"{self.name}-{slot}"

    def load(self) -> None:
        """Imports what the role needs, which takes seconds where that is PyTorch."""
        for name in (self.build, self.live):
            _imported(name)

    async def run(self, context: Context[Any]) -> None:
        """Builds and runs one role, in the process in which it is called."""
        build, live = (_imported(name) for name in (self.build, self.live))
        await live(build(context, *self.args), context)


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


@dataclass(frozen=True)
class Plan:
    """All that an engine needs to run.

    Attributes:
        settings: of the run.
        run: the run directory.
        partition: where every example begins.
        labels: (n,) true labels, -1 where unknown.
        classes: number of classes.
        roles: what to start.
        meta: facts for `run.db`.
        paths: source path of every example, relative to data_dir; None where there are none.
        resume: what to go on from; None for a new run.
    """

    settings: Settings
    run: pathlib.Path
    partition: Partition
    labels: np.ndarray
    classes: int
    roles: Sequence[Role]
    meta: Mapping[str, str]
    paths: Sequence[str | None] | None = None
    resume: ResumeState | None = field(default=None, repr=False)

    @property
    def epoch(self) -> int:
        """That of the record when this run goes on from it; 0 for a new run."""
        return self.resume.epoch if self.resume else 0

    @property
    def schedule(self) -> type[Schedule]:
        """The class of the schedule that the settings name."""
        return schedule_of(self.settings)


class Display(Protocol):
    """Where the progress of a run is shown."""

    def show(self, status: Status) -> None:
        """Shows how far the run is; cheap enough to be called several times a second."""
        ...

    def note(self, text: str) -> None:
        """Shows a line of its own."""
        ...

    def close(self) -> None:
        """Ends the display."""
        ...


class Engine(abc.ABC):
    """Base of the engines: `run` is the same for all, `_run` says where roles run."""

    def run(self, plan: Plan, display: Display) -> RunResult:
        """Runs the roles of a plan until every label is bought and trained on.

        The first signal ends the run with its report, a second one at once.

        Args:
            plan: of the run.
            display: where to show how far it is.

        Raises:
            Refused: what the engine needs is not there.
        """
        with collected(2, self._interrupt) as caught:
            try:
                result = self._run(plan, display, caught)
            except Refused:
                raise
            except (RunFailed, UserError, RecordFailed) as error:
                result = RunResult.failed(error)
            finally:
                display.close()
        log.info("ended: %s", result.ended)
        return dataclasses.replace(result, at_once=len(caught) > 1)

    @abc.abstractmethod
    def _run(self, plan: Plan, display: Display, caught: list[str]) -> RunResult:
        """Runs the roles; `caught` fills with the names of the signals that came."""

    def _interrupt(self, caught: list[str]) -> None:  # noqa: B027 - an engine that polls `caught` needs none
        """Called in the handler of each signal."""


def answers_of(settings: Settings, partition: Partition, classes: int, seed: int) -> tuple[Answers, Checks | None]:
    """Returns what is to be made of answers, and the known images to mix in, None for none.

    Args:
        settings: of the run.
        partition: where every example begins.
        classes: number of classes.
        seed: of what is shown when.
    """
    people = settings.annotators
    aggregation = AGGREGATIONS.load(people.aggregation)(classes)
    answers = Answers(aggregation, people.answers_per_item, people.answers_at_most or people.answers_per_item)
    known = np.concatenate([partition.initial, partition.validation])
    return answers, Checks(people.gold_share, known, derive(seed, "checks")) if people.gold_share else None


def open_hub(
    plan: Plan, clock: Now, durable: bool = True, notify: Callable[[Change], None] = lambda change: None
) -> Hub:
    """Returns the hub of a run, new or resumed, with its record in the run directory.

    Args:
        plan: of the run.
        clock: the run's time.
        durable: whether answers wait for the disk.
        notify: called with every change.

    Raises:
        RecordFailed: the record cannot be written.
    """
    settings, state = plan.settings, plan.resume
    seed = derive(settings.seed, "draw", state.draws if state else 0)
    answers, checks = answers_of(settings, plan.partition, plan.classes, seed)
    pools = plan.schedule.make_pools(settings, plan.partition, plan.labels, seed, answers, checks)
    schedule = plan.schedule(settings, pools, **settings.mode_options)
    is_apart = settings.engine == "ray" and "hub" in settings.ray.pins  # from the main process, which reads the record
    record = RunRecorder(plan.run / "run.db", durable, state.epoch if state else None, wal=not is_apart)
    if state is None:
        record.begin(plan.partition.rows(plan.labels, plan.paths), plan.meta)
    else:
        pools.restore(state.labels, state.unanswered, state.said, state.retired)
        schedule.restore(state.batches, state.models, state.jobs, state.lost, state.outdated)
        schedule.recall(state.recent_draws, state.recent_selections)
        schedule.recall_federation(state.federation)
        record.resume(state.seconds, clock.now(), state.ended, plan.meta)
    before = ((state.test_accuracy, state.test_images), state.answering) if state else ()
    return plan.schedule.hub_type()(settings, pools, schedule, plan.classes, record, clock, notify, *before)
