"""The labels of a run as rows, for tables and data frames."""

import math
import pathlib
from typing import Any

from aal.config.loading import read_config
from aal.storage.run_reader import Rows, RunReader

COLUMNS = [
    *("id", "path", "label", "class", "source", "annotator", "answered_at", "strategy", "version", "round"),
    "confidence",
]
ANSWER_COLUMNS = ["item", "path", "annotator", "label", "seconds"]


def read_labels(run: pathlib.Path) -> Rows:
    """Returns a row of COLUMNS for each label of L: the initial ones by id, then the bought ones in order of arrival.

    `path` is relative to the run's `data_dir`, None where an image has no source file; `source` is initial or
    annotator; `annotator` gave the last answer, `confidence` is how sure the label is, from 0 to 1; `version` is that
    of the model that chose the id, `round` the round of labelling of its batch.

    Args:
        run: the run directory.

    Raises:
        UserError: the directory holds no readable run.
    """
    config = read_config(run / "config.yaml")
    with RunReader(run) as reader:
        reader.check()
        rows, names = reader.labels(), reader.classes()
    for row in rows:
        row["class"] = class_name(row["label"], names)
        row["round"] = round_of(row["batch"], config)
    return [{key: row[key] for key in COLUMNS} for row in rows]


def read_answers(run: pathlib.Path) -> Rows:
    """Returns a row of ANSWER_COLUMNS for each answer that stands, in order, as `annotators.answers` takes them.

    `label` is the name of a class, None where the annotator could not tell; `seconds` is from draw to answer, NaN where
    that is not known. Answers to known images, which are a check, are left out. Of an image that was corrected there is
    the correction alone, behind all others: it stays, whatever others said; None is that of an image without a label.

    Args:
        run: the run directory.
    """
    with RunReader(run) as reader:
        reader.check()
        answers, names, paths, corrected = reader.answers(), reader.classes(), reader.paths(), reader.corrections()
    columns = (answers[key] for key in ("item", "annotator", "label", "drawn_at", "answered_at", "is_check"))
    given = [
        (int(item), int(who), None if label != label else int(label), float(answered_at - drawn_at))
        for item, who, label, drawn_at, answered_at, is_check in zip(*columns, strict=True)
        if not is_check and int(item) not in corrected
    ]
    given += [(item, who, label, math.nan) for item, (who, label) in corrected.items()]
    rows = []
    for item, who, label, seconds in given:
        name = None if label is None else class_name(label, names)
        rows.append(dict(zip(ANSWER_COLUMNS, (item, paths.get(item), who, name, seconds), strict=True)))
    return rows


def class_name(label: int, names: list[str]) -> str:
    """Returns the name of a label; its number where the run did not note names."""
    return names[label] if label < len(names) else str(label)


def round_of(batch: int | None, config: dict[str, Any]) -> int | None:
    """Returns the round of a batch: `server_train_threshold` labels of all workers; under mode sync, each batch.

    None under `max_staleness: auto`, whose batches are of different sizes.

    Args:
        batch: number of the worker's batch, from 0; None for none.
        config: settings of the run.
    """
    if batch is None or config.get("mode") == "sync":
        return batch
    if config.get("max_staleness") == "auto":
        return None
    if not {"worker_num", "query_batch", "server_train_threshold"} <= config.keys():
        return None
    try:
        return int(batch * config["worker_num"] * config["query_batch"] // config["server_train_threshold"])
    except (TypeError, ValueError, ArithmeticError):  # the config was edited
        return None
