"""Who answers: the protocol of label sources, a base class for those that answer by a function, and their role."""

import abc
import asyncio
import contextlib
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aal.annotators.client import AnnotatorClient
from aal.config.errors import RunFailed, Stopped, UserError, innermost
from aal.config.registry import LABEL_SOURCES, check_options
from aal.config.settings import AnnotatorSettings
from aal.context import Context
from aal.coordination.clock import Clock
from aal.coordination.interfaces import AnnotatorHub


@dataclass(frozen=True)
class LabellingTask:
    """What there is to label.

    Attributes:
        settings: of the annotators.
        seed: of the run.
        labels: (n,) int64 true label of every example, -1 where it is unknown.
        classes: names of the classes; an answer is a place in them.
        images: file of the (n, H, W, C) uint8 images; None in a run without images.
        paths: source file of every example, relative to data_dir; None where there are none.
    """

    settings: AnnotatorSettings
    seed: int
    labels: np.ndarray
    classes: Sequence[str]
    images: pathlib.Path | None = None
    paths: Sequence[str | None] | None = None


class LabelSource(Protocol):
    """Who answers queries. Register a class with `@LABEL_SOURCES.register("name")`, or name it as `module:Class`.

    It is built with a `LabellingTask`; the further typed parameters of its constructor are its options
    (`annotators.options`).
    """

    async def annotate(self, client: AnnotatorClient, clock: Clock) -> None:
        """Draws queries and answers them, until `client` raises `Stopped`.

        Args:
            client: `draw` and `answer` of the hub.
            clock: the run's time; all waiting goes through it.
        """
        ...


class PacedLabelSource(abc.ABC):
    """Base of label sources that know how long an answer takes: `annotators.number` annotators label at once.

    Args:
        task: what there is to label.
    """

    def __init__(self, task: LabellingTask) -> None:
        self.task = task

    @abc.abstractmethod
    def respond(self, annotator: int, example: int) -> tuple[float, int]:
        """Returns the seconds that an annotator takes for an example, and the label: a place in `task.classes`."""

    async def annotate(self, client: AnnotatorClient, clock: Clock) -> None:
        """Runs all annotators until the run is over."""
        async with asyncio.TaskGroup() as group:
            for annotator in range(self.task.settings.number):
                group.create_task(self._label(annotator, client, clock))

    def _checked(self, answer: object, example: int) -> tuple[float, int]:
        """Returns what `respond` gave.

        Raises:
            UserError: it is not a time and a place in the classes.
        """
        if isinstance(answer, tuple) and len(answer) == 2:
            seconds, label = answer
            is_time = isinstance(seconds, int | float | np.number) and 0 <= seconds < float("inf")
            if is_time and isinstance(label, int | np.integer) and 0 <= label < len(self.task.classes):
                return float(seconds), int(label)
        raise UserError(
            f"annotators.source: respond must return (seconds, label), a time and a place in the "
            f"{len(self.task.classes)} classes, not {answer!r} for image {example}"
        )

    async def _label(self, annotator: int, client: AnnotatorClient, clock: Clock) -> None:
        """One annotator: draw a random query, take the time it needs, answer, again and again."""
        try:
            while True:
                example = await client.draw(annotator)
                seconds, label = self._checked(self.respond(annotator, example), example)
                await clock.sleep(seconds)
                await client.answer(example, annotator, label)
        except Stopped:
            return


def build(
    context: Context[AnnotatorHub],
    labels: pathlib.Path | np.ndarray,
    classes: Sequence[str],
    images: pathlib.Path | None,
    paths: Sequence[str | None] | None,
    shards: Sequence[np.ndarray] = (),
) -> LabelSource:
    """Builds the label source that the settings name.

    Args:
        context: of the role.
        labels: (n,) true labels, or their file.
        classes: names of the classes.
        images: file of the images; None where there are none.
        paths: source files.
        shards: ids of each client, whose annotators know the labels of these alone; none where all label everything.
    """
    settings = context.settings.annotators
    known = labels if isinstance(labels, np.ndarray) else np.load(labels, mmap_mode="r")
    if shards:
        own = shards[context.index]
        of_others, known = known, np.full(len(known), -1, np.int64)
        known[own] = of_others[own]
    task = LabellingTask(settings, context.settings.seed, known, classes, images, paths)
    made = LABEL_SOURCES.load(settings.source)
    source: LabelSource = made(task, **check_options(made, settings.options, ("task",), "annotators.options"))
    return source


async def annotate(source: LabelSource, context: Context[AnnotatorHub]) -> None:
    """The role of all annotators: their label source beside the one client that calls the hub."""
    client = AnnotatorClient(context.hub, context.clock, context.heartbeat, (context.index, context.roles))
    try:
        async with asyncio.TaskGroup() as group:
            labelling = group.create_task(_label(source, client, context.clock))
            await client.run()
            labelling.cancel()
    except BaseExceptionGroup as failures:  # what is wrong, not that it came from a group
        raise innermost(failures) from None


async def _label(source: LabelSource, client: AnnotatorClient, clock: Clock) -> None:
    """Lets a source label; raises `RunFailed` where it ends while queries are still to be answered."""
    with contextlib.suppress(Stopped):
        await source.annotate(client, clock)
        await asyncio.sleep(0)
        if not client.closed:
            raise RunFailed("the label source ended before the run did; annotate() must go on until Stopped is raised")
