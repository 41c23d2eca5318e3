"""A label source of one's own: answers that people gave before, read from a CSV file.

    aal run --config small.yaml annotators.source=mylabels:Recorded annotators.options.answers=answers.csv

The file has a header and a row for each answer: `id` (row of the image in the set), `class` (name of the class) and, if
it is known, `seconds` (how long the answer took). Several rows of one id are the answers of several people.
"""

import csv
import pathlib
from collections import defaultdict

import aal
from aal.annotators.label_source import LabellingTask, PacedLabelSource


class Recorded(PacedLabelSource):
    """Gives recorded answers; of several for an image, each annotator gives another one.

    Args:
        task: what there is to label.
        answers: the CSV file.

    Raises:
        UserError: the file cannot be read, has other columns, or names a class that the set does not have.
    """

    def __init__(self, task: LabellingTask, answers: str) -> None:
        super().__init__(task)
        self.path = pathlib.Path(answers)
        self.answers: dict[int, list[tuple[float, int]]] = defaultdict(list)
        try:
            with self.path.open(newline="") as file:
                for row in csv.DictReader(file):
                    seconds = float(row.get("seconds") or task.settings.seconds_per_label)
                    self.answers[int(row["id"])].append((seconds, list(task.classes).index(row["class"])))
        except (OSError, KeyError, ValueError) as error:
            raise aal.UserError(f"annotators.options.answers: {self.path}: {error}") from None

    def respond(self, annotator: int, example: int) -> tuple[float, int]:
        """Returns the seconds that an answer took, and the label."""
        recorded = self.answers.get(example)
        if not recorded:
            raise aal.UserError(f"annotators.options.answers: {self.path}: has no answer for image {example}")
        return recorded[annotator % len(recorded)]
