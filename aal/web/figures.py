"""The figures that pages show while a run goes on, read at most so often that people do not slow it down."""

import asyncio
import dataclasses
import math
import pathlib
import time
from typing import Any

from aal.aggregation.agreement import Pair, pairs
from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.coordination.interfaces import PeopleHub
from aal.coordination.interval import interval_of_few
from aal.coordination.messages import Status
from aal.storage.live_figures import LiveFigures, live_figures

STATUS_S, RECORD_S = 0.25, 1.5  # how old what is shown may be
NOTHING = LiveFigures([], [], [], {"mean": None, "max": None}, 0, {})


class Figures:
    """Reads the hub's status and the run's record.

    Args:
        run: the run directory.
        settings: of the run.
        hub: for its status.
        held_out: images that people label for testing.
    """

    def __init__(self, run: pathlib.Path, settings: Settings, hub: PeopleHub, held_out: int = 0) -> None:
        self.run, self._settings, self._hub, self._held_out = run, settings, hub, held_out
        self._status: Status | None = None
        self._record = NOTHING
        self._pairs: list[Pair] = []
        self._status_at = self._record_at = -RECORD_S
        self._reading: asyncio.Task[None] | None = None

    def status(self) -> Status:
        """Returns how far the run is."""
        now = time.monotonic()
        if self._status is None or now - self._status_at >= STATUS_S:
            self._status, self._status_at = self._hub.status(), now
        return self._status

    async def record(self) -> LiveFigures:
        """Returns what is on record; the first time it is waited for, later on a new reading goes on beside."""
        if time.monotonic() - self._record_at >= RECORD_S and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read(self.status().seconds))
        if self._record is NOTHING and self._reading is not None:
            await self._reading
        return self._record

    async def _read(self, now: float) -> None:
        try:
            self._record = await asyncio.to_thread(live_figures, self.run, now)
            self._pairs = await asyncio.to_thread(_agreement, self._record)
        except UserError:  # the record begins just now, or is busy
            return
        finally:
            self._record_at = time.monotonic()

    async def progress(self, annotator: int) -> dict[str, Any]:
        """Returns what who labels is shown."""
        record, status = await self.record(), self.status()
        mine = next((row["labels"] for row in record.annotators if row["annotator"] == annotator), 0)
        return {
            "labels": status.labels,
            "budget": status.budget,
            "mine": mine,
            "queries": status.waiting,
            "accuracy": _accuracy(record),
            "held_out": self._held_out,
            "next_model": self._next_model(record, status),
            "paused": status.paused,
            "finished": status.finished,
        }

    def _next_model(self, record: LiveFigures, status: Status) -> dict[str, Any]:
        """What the next model waits for: `seconds` of a training, where that can be told, or new `labels`."""
        if status.trainings:
            training = status.trainings[0]
            newest = record.curve[-1] if record.curve else None
            seconds = None
            if newest and newest["labels"]:
                took = newest["published_at"] - newest["started_at"]
                seconds = max(0.0, took * training.labels / newest["labels"] - training.seconds)
            return {"trains_on": training.labels, "seconds": seconds, "labels": None}
        s = self._settings
        step = s.server_train_threshold if record.trained_on else min(s.query_batch, s.server_train_threshold)
        missing = record.trained_on + step - status.initial - status.labels
        return {"trains_on": None, "seconds": None, "labels": max(0, min(missing, status.budget - status.labels))}

    async def everything(self) -> dict[str, Any]:
        """Returns what who watches the run is shown."""
        record, status = await self.record(), self.status()
        return {
            "status": dataclasses.asdict(status),
            "curve": [{**row, "interval": _interval(row)} for row in record.curve],
            "annotators": record.annotators,
            "waited": record.waited,
            "staleness": record.staleness,
            "pairs": [pair._asdict() | {"kappa": _number(pair.kappa)} for pair in self._pairs],
            "accuracy": _accuracy(record),
            "held_out": self._held_out,
            "next_model": self._next_model(record, status),
            "settings": {"name": self._settings.name, "lease_s": self._settings.annotators.lease_s},
        }


def _agreement(record: LiveFigures) -> list[Pair]:
    answers = record.answers
    return pairs(answers["item"], answers["annotator"], answers["label"])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _accuracy(record: LiveFigures) -> dict[str, Any] | None:
    """Returns the newest test accuracy, or where there is no test set the newest of validation."""
    for kind in ("test", "val"):
        measured = [row for row in record.curve if row[f"{kind}_accuracy"] is not None]
        if measured:
            newest = measured[-1]
            found = {"of": kind, "value": newest[f"{kind}_accuracy"], "model": newest["version"]}
            of_test = {"images": newest["test_images"] or None, "interval": _interval(newest)}
            return found | (of_test if kind == "test" else {"images": None, "interval": None})
    return None


def _interval(model: dict[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of a test accuracy, where it is of few images."""
    return interval_of_few(model["test_accuracy"], model["test_images"])
