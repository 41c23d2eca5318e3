"""Scalars of a run for TensorBoard, read from `run.db` while the run goes on."""

import contextlib
import importlib.util
import logging
import pathlib
import shutil
import time
from collections.abc import Iterator

from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.reporting.progress import Progress
from aal.reporting.record import present
from aal.storage.run_reader import Columns, RunReader

FOLDER = "tensorboard"
EVERY_S = 5.0

log = logging.getLogger("aal")


def check_tensorboard(settings: Settings) -> None:
    """Checks, before a run, that what it asks for is installed.

    Raises:
        UserError: the package is missing.
    """
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("tensorboard: the package is not installed; pip install tensorboard, or leave the setting out")


@contextlib.contextmanager
def scalars(run: pathlib.Path, settings: Settings, progress: Progress) -> Iterator[None]:
    """Writes scalars into `<run>/tensorboard` whenever progress is shown, every few seconds, and once more at the end.

    Args:
        run: the run directory.
        settings: of the run; without `tensorboard: true` nothing is written.
        progress: of the engine that runs meanwhile.
    """
    if not settings.tensorboard:
        yield
        return
    writer = ScalarWriter(run, has_several=len({one.name for one in settings.networks}) > 1)
    progress.follow(writer.update)
    try:
        yield
    finally:
        writer.close()


class ScalarWriter:
    """Writes a point of each scalar for each published model.

    The step is the number of labels in the model's training set. `accuracy/test` and `accuracy/validation` are the
    model's own, with the name of the network after them (`accuracy/test/resnet18`) where the run trains several;
    `labels/bought` counts the answers until its publication; `annotators/mean_wait_s` and `queries/staleness` are means
    over the draws and offers since the model before it.

    Args:
        run: the run directory. Scalars of an earlier attempt are written anew, all from the record.
        has_several: whether it trains several networks.
    """

    def __init__(self, run: pathlib.Path, has_several: bool = False) -> None:
        from tensorboard.summary import DirectoryOutput, Writer

        shutil.rmtree(run / FOLDER, ignore_errors=True)
        self._run = run
        self._has_several = has_several
        self._writer = Writer(DirectoryOutput(str(run / FOLDER)))
        self._origin = time.time()
        self._written = 0  # models
        self._updated_at = -EVERY_S
        self._last_publication = 0.0

    def update(self) -> None:
        """Writes what is new, at most every few seconds; a record that cannot be read now is read later."""
        if time.monotonic() - self._updated_at >= EVERY_S:
            self._updated_at = time.monotonic()
            self._write()

    def close(self) -> None:
        """Writes the rest."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        try:
            with RunReader(self._run) as reader:
                models = reader.models()[self._written :]
                if not models:
                    return
                queries, waits = reader.query_times(), reader.waits()
        except UserError as error:
            log.warning("tensorboard: %s", error)
            return
        for model in models:
            step, published_at = model["labels"], model["published_at"]
            network = f"/{model['model']}" if self._has_several else ""
            accuracies = {"test": model["test_accuracy"], "validation": model["val_accuracy"]}
            points = {f"accuracy/{name}{network}": accuracy for name, accuracy in accuracies.items()}
            points |= self._between(queries, waits, published_at)
            for tag, value in points.items():
                if value is not None:
                    self._writer.add_scalar(tag, value, step, wall_time=self._origin + published_at)
            self._last_publication = published_at
        self._written += len(models)
        self._writer.flush()

    def _between(self, queries: Columns, waits: Columns, until: float) -> dict[str, float | None]:
        """The figures of what happened since the last publication."""
        drawn = (waits["got_at"] > self._last_publication) & (waits["got_at"] <= until)
        offered = (queries["offered_at"] > self._last_publication) & (queries["offered_at"] <= until)
        wait = present((waits["got_at"] - waits["asked_at"])[drawn])
        staleness = present((queries["newest"] - queries["version"])[offered])
        return {
            "labels/bought": float((queries["answered_at"] <= until).sum()),
            "annotators/mean_wait_s": float(wait.mean()) if wait.size else None,
            "queries/staleness": float(staleness.mean()) if staleness.size else None,
        }
