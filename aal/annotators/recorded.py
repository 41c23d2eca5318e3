"""People who answered before: their recorded answers are given again, with their errors and at their speeds."""

import asyncio
import collections
import csv
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aal.annotators.client import AnnotatorClient
from aal.annotators.label_source import LabellingTask
from aal.config.errors import Stopped, UserError
from aal.config.registry import LABEL_SOURCES
from aal.coordination.answers import CANNOT_TELL
from aal.coordination.clock import Clock
from aal.label_studio import read_export

COLUMNS = "path (or item), annotator, label and, if known, seconds"
LONGEST_S = 1e6


class Answer(NamedTuple):
    """A recorded answer.

    Attributes:
        annotator: number of who gave it, from 0 in the order of the names in the file.
        label: place in the classes.
        seconds: that it took.
    """

    annotator: int
    label: int
    seconds: float


class Answers:
    """The answers of a file, by example.

    Args:
        path: of a CSV file with the columns `path` (of the image's file, relative to data_dir; or `item`, the id, from
            0, where there is no path), `annotator` (any name), `label` (the name of a class, or its place from 0) and
            `seconds`; or of a JSON file that Label Studio exported.
        classes: names of the classes.
        paths: source file of every example; None where there are none.
        seconds: of an answer whose time the file does not tell.
        examples: how many there are.

    Attributes:
        names: of the annotators; their numbers are places in it.

    Raises:
        UserError: the file is not there or is no such file; the line, the task or the image is named.
    """

    def __init__(
        self,
        path: str,
        classes: Sequence[str],
        paths: Sequence[str | None] | None,
        seconds: float,
        examples: int,
    ) -> None:
        self._examples = examples
        self._file = pathlib.Path(path).expanduser()
        self._labels = {str(place): place for place in range(len(classes))}
        self._labels |= {name: place for place, name in enumerate(classes)}  # a name comes before a place
        self._seconds = seconds
        self._ids = {name: example for example, name in enumerate(paths or ()) if name is not None}
        rows = list(self._rows())
        self.names = sorted({row[1] for row in rows}, key=lambda name: (not name.isdecimal(), len(name), name))
        numbers = {name: number for number, name in enumerate(self.names)}
        self._of: dict[int, list[Answer]] = {}
        self.number = len(rows)
        for example, name, label, taken in rows:
            self._of.setdefault(example, []).append(Answer(numbers[name], label, taken))

    def of(self, example: int) -> Sequence[Answer]:
        """Returns the answers to an image, in the order of the file."""
        return self._of.get(example, ())

    def _rows(self) -> Iterator[tuple[int, str, int, float]]:
        return self._of_label_studio() if self._file.suffix.lower() == ".json" else self._of_table()

    def _of_label_studio(self) -> Iterator[tuple[int, str, int, float]]:
        try:
            for path, annotations in read_export(self._file, self._ids.__contains__).items():
                for name, label, seconds in annotations:
                    row: dict[str, str | None] = {
                        "path": path,
                        "annotator": name,
                        "label": label,
                        "seconds": str(seconds or ""),
                    }
                    try:
                        yield self._row(row)
                    except ValueError as error:
                        raise ValueError(f"{path}: {error}") from None
        except ValueError as error:
            raise UserError(f"annotators.answers: {self._file}: {error}") from None

    def _of_table(self) -> Iterator[tuple[int, str, int, float]]:
        try:
            with self._file.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                head = set(reader.fieldnames or ())
                if not {"annotator", "label"} <= head or not head & {"item", "path"}:
                    raise UserError(f"annotators.answers: {self._file}: must have the columns {COLUMNS}")
                for row in reader:
                    try:
                        yield self._row(row)
                    except ValueError as error:
                        text = f"line {reader.line_num}: {error}"
                        raise UserError(f"annotators.answers: {self._file}: {text}") from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"annotators.answers: {self._file}: cannot be read: {error}") from None

    def _row(self, row: dict[str, str | None]) -> tuple[int, str, int, float]:
        label, who, taken = row["label"], row["annotator"], row.get("seconds") or ""
        if label is None or who is None:
            raise ValueError(f"must have the columns {COLUMNS}")
        if label.strip() not in self._labels:
            raise ValueError(f"{label.strip()!r} is none of the {len(set(self._labels.values()))} classes")
        try:
            seconds = float(taken or self._seconds)
        except ValueError:
            raise ValueError(f"seconds {taken!r} is no number") from None
        if not 0 <= seconds <= LONGEST_S:
            raise ValueError(f"seconds {seconds} must be from 0 to {LONGEST_S:g}")
        return self._example(row), who.strip(), self._labels[label.strip()], seconds

    def _example(self, row: dict[str, str | None]) -> int:
        """Returns the id of an image: by its file, if one is named, since ids change when files are added."""
        path, item = row.get("path"), row.get("item")
        if path or not item:
            if path not in self._ids:
                raise ValueError(f"{path!r} is no file of this image set")
            return self._ids[path]
        if not item.strip().removeprefix("-").isdecimal():
            raise ValueError(f"item {item!r} is no number of an image")
        if not 0 <= int(item) < self._examples:
            raise ValueError(f"item {int(item)} must be from 0 to {self._examples - 1}")
        return int(item)


def answers_of(task: LabellingTask) -> Answers:
    """Returns the recorded answers that the settings name.

    Raises:
        UserError: there are none, or the file cannot be read.
    """
    people = task.settings
    if people.answers is None:
        raise UserError(f"annotators.answers: must name a CSV file for source recorded: {COLUMNS}")
    return Answers(people.answers, task.classes, task.paths, people.seconds_per_label, len(task.labels))


@LABEL_SOURCES.register("recorded", is_open=True, repeats=True, sees_images=False)
class Recorded:
    """Gives recorded answers again; `annotators.number` people are at work at once.

    Who draws an image passes it on to the first person who answered it, in the order of the file, and has not in this
    run: that person takes the recorded time and gives the recorded answer. Where no such answer is left, the image gets
    none from here, as if somebody could not tell, once those that are being given are in: what it has then decides, and
    without any it is left out.

    Args:
        task: what there is to label.

    Raises:
        UserError: the file of the answers cannot be read.
    """

    def __init__(self, task: LabellingTask) -> None:
        self._number = task.settings.number
        self._answers = answers_of(task)
        self._next: dict[int, int] = {}  # of each id: how many of its answers have been used here
        self._going_on: collections.Counter[int] = collections.Counter()  # answers to each id that are being given
        self._in_vain: dict[int, list[int]] = {}  # of each of these ids: who drew it when no answer was left

    async def annotate(self, client: AnnotatorClient, clock: Clock) -> None:
        """Lets so many people label until the run is over."""
        first = len(self._answers.names)  # numbers of those who draw, which are nobody's in the file
        async with asyncio.TaskGroup() as group:
            for place in range(self._number):
                group.create_task(self._label(first + place, client, clock))

    async def _label(self, drawer: int, client: AnnotatorClient, clock: Clock) -> None:
        try:
            while True:
                example = await client.draw(drawer)
                answer = self._passed_on(example, drawer, client)
                if answer is None:
                    self._in_vain.setdefault(example, []).append(drawer)
                else:
                    self._going_on[example] += 1
                    await clock.sleep(answer.seconds)
                    await client.answer(example, answer.annotator, answer.label)
                    self._going_on[example] -= 1
                if not self._going_on[example]:
                    for other in self._in_vain.pop(example, ()):
                        await client.answer(example, other, CANNOT_TELL)
        except Stopped:
            return

    def _passed_on(self, example: int, drawer: int, client: AnnotatorClient) -> Answer | None:
        """Passes an image on to somebody whose answer is recorded; returns it, None where none is left."""
        answers = self._answers.of(example)
        while (place := self._next.get(example, 0)) < len(answers):
            self._next[example] = place + 1
            if client.pass_on(example, drawer, answers[place].annotator):
                return answers[place]
        return None
