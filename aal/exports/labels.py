"""The labels and answers of a run, with the names of people."""

import pathlib
import sys

from aal.config.errors import UserError
from aal.config.terminal import write_line
from aal.reporting.labels import read_answers, read_labels
from aal.storage.run_reader import Rows
from aal.web.people import names_of


class Labels:
    """The labels of a run and the answers behind them.

    People go by their names, where these can be read, and simulated annotators by their numbers.

    Args:
        run: the run directory.

    Attributes:
        run: the run directory.
        rows: of `read_labels`.

    Raises:
        UserError: the run has no labels.
    """

    def __init__(self, run: pathlib.Path) -> None:
        labels = read_labels(run)
        if not labels:
            raise UserError(f"{run}: has no labels yet")
        self._names, trouble = names_of(run)
        if trouble is not None:
            write_line(f"{trouble}; people go by their numbers", sys.stderr)
        self.run = run
        self.rows = self._named(labels)

    def answers(self) -> Rows:
        """Returns the rows of `read_answers`."""
        return self._named(read_answers(self.run))

    def _named(self, rows: Rows) -> Rows:
        return [{**row, "annotator": self._names.get(row["annotator"], row["annotator"])} for row in rows]
