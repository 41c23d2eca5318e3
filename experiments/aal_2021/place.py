"""Where a reproduction keeps what it has, and what it estimates of the runs to come."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from aal.app.experiments.aal_2021.plans import OUTSIDE_TEST, Run
from aal.config.errors import UserError
from aal.storage.atomic import claimed, write_whole

IMAGES = {"digits": 1438}  # outside the test set
TRAINED = 3  # learning from an image takes about three times as long as scoring it
BEGIN = 20_000  # so many images could be scored while a run begins and ends


@dataclass(frozen=True)
class Place:
    """The folder `out`: figures, runs, their configs, what they print, and in `sweep.json` how long they took."""

    out: pathlib.Path

    def notes(self) -> dict[str, Any]:
        """Returns what was noted: real seconds by figure and by run, measured costs."""
        path = self.out / "sweep.json"
        notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {"figures": {}, "runs": {}, "costs": {}, **notes}

    def note(self, kind: Literal["figures", "runs", "costs"], name: str, value: Any) -> None:
        """Notes something; it is on disk afterwards."""
        notes = self.notes()
        notes[kind][name] = value
        write_whole(self.out / "sweep.json", (json.dumps(notes, indent=2) + "\n").encode())

    def add_seconds(self, kind: Literal["figures", "runs"], name: str, seconds: float) -> None:
        """Adds to the real seconds that something took, over all calls of the command."""
        self.note(kind, name, round(self.notes()[kind].get(name, 0.0) + seconds, 1))

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the folder for this program alone; raises UserError where it cannot be made or another holds it."""
        with contextlib.ExitStack() as stack:
            try:
                for name in ("runs", "configs", "logs"):
                    (self.out / name).mkdir(parents=True, exist_ok=True)
                stack.enter_context(claimed(self.out, f"--out {self.out}: another reproduce.py works in this folder"))
            except OSError as error:
                raise UserError(f"--out {self.out}: cannot be used: {error.strerror}") from None
            yield


def work_of(run: Run) -> float:
    """Returns about how much a run computes; the unit is one image scored."""
    s = run.settings
    if s.compute == "none":
        return float(BEGIN + s.budget)
    pool = IMAGES.get(s.data_type, OUTSIDE_TEST) - s.initial_size - s.val_size
    selections = s.worker_query_num if s.mode == "async" else s.budget // s.server_train_threshold
    scored = 0 if s.query_strategy == "random" else selections * pool
    return float(BEGIN + TRAINED * s.training.epochs * sum(run.grid) + scored)
