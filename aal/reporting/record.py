"""What a run left behind, as columns and rows: `run.db` and `config.yaml`."""

import contextlib
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from aal.config.errors import UserError
from aal.storage.run_reader import Column, Columns, Rows, RunReader


@dataclass(frozen=True)
class Record:
    """A run as it was written down; times are seconds since it began, a missing number is NaN in a column.

    `config` and `meta` are what the program noted, `classes` the names of the labels, `initial` counts the labels of
    the start, `label_errors` the answers that are not the true label; `models` are in order of version, `queries` in
    order of offering, `selections` by worker and then by time; `grants` say why selections were granted under
    `max_staleness: auto`, `withdrawn` counts queries that were taken back, `pool_changes` is how S filled and emptied
    then; `redundancy` is of the batches for which it was measured; `workers` sums them up; `breaks` are the
    interruptions; `epochs` are those of all trainings, `confusion` what the final model took the test images for;
    `test_images` is how many images each version was tested on, `held_out` the purpose, `test` or `validation`, of each
    image that people labelled for that, by item; `answers` are those of annotators that stand, in order, `labels` what
    they come to, by id, `confidences` how sure these are, `retired` counts images that are to have no label;
    `annotators` and `answers_by_class` count labels and how many of them are right; with several targets, `lineages` is
    the target of each version and `selected_with` the versions of each selection; `clients` are the images of each
    client and class in a federated run, `local_trainings` when each client trained, `client_work` what became of it.
    """

    config: dict[str, Any]
    meta: dict[str, str]
    initial: int
    label_errors: int
    models: Rows
    test_images: dict[int, int]
    held_out: dict[int, str]
    queries: Columns
    answers: Columns
    labels: dict[int, int]
    confidences: dict[int, float]
    retired: int
    waits: Columns
    selections: Columns
    grants: Rows
    withdrawn: dict[str, int]
    pool_changes: Columns
    redundancy: Columns
    workers: Rows
    breaks: Rows
    classes: list[str]
    epochs: Columns
    confusion: Rows
    annotators: Rows
    answers_by_class: Rows
    lineages: dict[int, int]
    selected_with: Rows
    clients: Rows
    local_trainings: Columns
    client_work: Rows

    @property
    def is_virtual(self) -> bool:
        """Whether its times are those of a simulation."""
        return self.config.get("engine") == "simulated"

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which of the queries have been answered."""
        return ~np.isnan(self.queries["answered_at"])

    @property
    def is_held_out(self) -> npt.NDArray[np.bool_]:
        """Which of the queries are held out for testing or validation."""
        return np.isin(self.queries["item"], list(self.held_out))

    @property
    def wall_s(self) -> float | None:
        """Seconds that the run took: `wall_s` of the meta table, or else the last time in the journal."""
        with contextlib.suppress(KeyError, ValueError):
            return float(self.meta["wall_s"])
        parts = [self.queries[key] for key in ("offered_at", "drawn_at", "answered_at")]
        times = present(np.concatenate([*parts, column(self.models, "published_at")]))
        return float(times.max()) if times.size else None

    @property
    def waited(self) -> float | None:
        """Share of their time that the annotators waited, from 0 to 1; None where they never drew."""
        waited, labelled = (float(seconds.sum()) for seconds in self._waited_and_labelled())
        return waited / (waited + labelled) if waited + labelled > 0 else None

    def waited_by_annotator(self) -> Column:
        """Returns the same of each annotator (annotators,), by number; NaN of those who never answered."""
        waited, labelled = self._waited_and_labelled()
        with np.errstate(invalid="ignore"):
            return np.where(labelled > 0, waited / (waited + labelled), np.nan)

    def _waited_and_labelled(self) -> tuple[Column, Column]:
        """Seconds (annotators,) that each waited, over all draws, and took from draw to answer."""
        done = ~np.isnan(self.answers["drawn_at"])
        labelled = (self.answers["answered_at"] - self.answers["drawn_at"])[done]
        waited = np.nan_to_num(self.waits["got_at"] - self.waits["asked_at"])
        who = (self.waits["annotator"].astype(int), self.answers["annotator"][done].astype(int))
        annotators = np.concatenate([who[0], self.answers["annotator"].astype(int)])
        number = annotators.max(initial=-1) + 1
        return np.bincount(who[0], waited, number).astype(float), np.bincount(who[1], labelled, number).astype(float)


def read(run: pathlib.Path) -> Record:
    """Reads the directory of a run, finished or not.

    Raises:
        UserError: the directory holds no readable run.
    """
    with RunReader(run) as reader:
        config = _config(run)
        reader.check()
        models = reader.models()
        final = final_model([model for model in models if model["test_accuracy"] is not None])
        return Record(
            config=config,
            meta=reader.meta(),
            initial=reader.initial_labels(),
            label_errors=reader.label_errors(),
            models=models,
            test_images=reader.test_images(),
            held_out=reader.held_out(),
            queries=reader.query_times(),
            answers=reader.answers(),
            labels=reader.bought_labels(),
            confidences=reader.confidences(),
            retired=reader.retired(),
            waits=reader.waits(),
            selections=reader.selections(),
            grants=reader.grants(),
            withdrawn=reader.withdrawn(),
            pool_changes=reader.pool_changes(),
            redundancy=reader.redundancy(),
            workers=reader.workers(),
            breaks=reader.breaks(),
            classes=reader.classes(),
            epochs=reader.epochs(),
            confusion=reader.confusion(final["version"]) if final else [],
            annotators=reader.annotators(),
            answers_by_class=reader.answers_by_class(),
            lineages=reader.lineages() if config.get("targets") else {},
            selected_with=reader.selected_with() if config.get("targets") else [],
            clients=reader.clients() if config.get("mode") == "federated" else [],
            local_trainings=reader.local_trainings() if config.get("mode") == "federated" else {},
            client_work=reader.client_work() if config.get("mode") == "federated" else [],
        )


def _config(run: pathlib.Path) -> dict[str, Any]:
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run}: is no run directory, it has no config.yaml")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{path}: cannot be read") from None
    return config if isinstance(config, dict) else {}


def column(rows: Rows, key: str) -> Column:
    """Returns one number of each row."""
    return np.array([row[key] for row in rows], dtype=float)


def final_model(models: Rows) -> dict[str, Any] | None:
    """Returns the model, or point of a curve, of most labels; of several the newest; None of none."""
    return max(models, key=lambda model: (model["labels"], model["version"]), default=None)


def present(values: Column) -> Column:
    """Returns the values that are not missing."""
    return values[~np.isnan(values)]
