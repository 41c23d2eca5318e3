"""The figures of a run, from its record."""

import json
from typing import Any

import numpy as np

from aal.coordination.interval import interval
from aal.reporting.answers import answers_summary
from aal.reporting.curves import aubc
from aal.reporting.freshness import random_queries, when_answered, when_offered
from aal.reporting.labels import round_of
from aal.reporting.record import Record, column, final_model, present
from aal.reporting.targets import of_targets
from aal.storage.run_reader import Column, Rows


def summary_of(record: Record) -> dict[str, Any]:
    """Returns what `summary.json` holds; what an unfinished run does not know yet is null.

    - labels: `initial` from the start, `bought` = answered queries, `total` = both.
    - answers: what annotators said; see `answers_summary`.
    - trainings: published models.
    - curve: the models in order of version. `labels` are those that were there, of which the ones that are held out are
      not trained on, `queries` those of them that were bought, `seconds` the time of publication; `test_images` is the
      size of the test set, `test_low` and `test_high` the 95 % interval that it leaves.
      In a federation most versions are not tested; the figures that follow are of the last tested one of each number
      of labels, at the end of its cycle.
    - final_test_accuracy: of the model of most labels; of several, of the newest.
    - mean_curve_accuracy: mean of the test accuracies of the curve.
    - aubc: area under test accuracy against labels by the trapezoid rule, divided by the span of labels. Models with
      equally many labels count as one with their mean accuracy; where all have equally many, it is that mean.
    - annotator_wait_s: from asking for a query to having one, over all draws.
    - annotators_waited: share of the annotators' time, from 0 to 1: all waits, divided by all waits and all times from
      draw to answer.
    - query_interval_s: between two consecutive batches offered by the same worker, over all such pairs of all workers.
    - staleness: the newest version when a query was offered, minus the version that chose it, over all offered queries.
    - staleness_when_answered: by how many versions the model that chose a query was behind the newest one when it was
      answered, and for how many seconds a newer model had been there, 0 where there was none; over all answered
      queries. One that no model chose counts as of the version before the first.
    - queries: how many were `random`, because there was no model yet, how many were `held_out` for testing and
      validation, how many were `withdrawn` for those of a newer model, and how many of these were `chosen_again`.
    - labels_per_s: labels bought, divided by the time from the first offer to the last answer.
    - rounds_ahead: how many rounds of labelling a batch was ahead of the model that chose it, over all batches; this is
      what a number for `max_staleness` bounds; null under `auto`.
    - wall_s: seconds that the run took; virtual ones of a simulated run, like all its times.
    - eval_precision: in which the accuracies were computed; null of a run of an earlier version.
    - networks: the curve and its figures for each network by itself, and the queries that its models chose; only where
      the run trained several.
    - targets, target_std: of a run with several target models, see `of_targets`; top-level figures are means over them.
    """
    bought = int(record.answered.sum())
    curve = [
        {
            **{key: model[key] for key in ("version", "server", "labels")},
            "queries": model["labels"] - record.initial,
            **{key: model[key] for key in ("test_accuracy", "val_accuracy")},
            "seconds": model["published_at"],
            **_test_set(model["test_accuracy"], record.test_images.get(model["version"], 0)),
        }
        for model in record.models
    ]
    stale, (late, late_s) = when_offered(record), when_answered(record)
    waits = record.waits["got_at"] - record.waits["asked_at"]
    same_worker = np.diff(record.selections["worker"]) == 0
    return {
        **{key: record.config.get(key) for key in ("data_type", "mode", "engine", "seed")},
        "labels": {"initial": record.initial, "bought": bought, "total": record.initial + bought},
        "answers": answers_summary(record),
        "trainings": len(curve),
        "curve": curve,
        **_figures(_at_the_end(curve) if record.config.get("federated") else curve),
        "annotator_wait_s": _distribution(waits),
        "annotators_waited": record.waited,
        "query_interval_s": _distribution(np.diff(record.selections["offered_at"])[same_worker]),
        "staleness": {
            "mean": float(stale.mean()) if stale.size else None,
            "max": int(stale.max()) if stale.size else None,
        },
        "staleness_when_answered": {
            "versions": {"mean": float(late.mean()), "max": int(late.max())}
            if late.size
            else {"mean": None, "max": None},
            "seconds": _distribution(late_s),
        },
        "queries": {"random": random_queries(record), "held_out": int(record.is_held_out.sum()), **record.withdrawn},
        "labels_per_s": _rate(record),
        "wall_s": record.wall_s,
        "rounds_ahead": _rounds_ahead(record),
        "eval_precision": record.config.get("eval_precision"),
        **(of_targets(record, curve, _figures) or _networks(record, curve)),
    }


def _test_set(accuracy: float | None, images: int) -> dict[str, float | None]:
    low, high = (None, None) if accuracy is None or not images else interval(accuracy, images)
    return {"test_images": images or None, "test_low": low, "test_high": high}


def _at_the_end(curve: Rows) -> Rows:
    """The last tested point of each number of labels."""
    tested = [point for point in curve if point["test_accuracy"] is not None]
    return list({point["labels"]: point for point in tested}.values())


def _figures(curve: Rows) -> dict[str, float | None]:
    """The figures of a curve; null where none of its models was tested."""
    tested = [point for point in curve if point["test_accuracy"] is not None]
    if not tested:
        return dict.fromkeys(("final_test_accuracy", "mean_curve_accuracy", "aubc"))
    accuracy = column(tested, "test_accuracy")
    last = final_model(tested)
    return {
        "final_test_accuracy": last["test_accuracy"] if last else None,
        "mean_curve_accuracy": float(accuracy.mean()),
        "aubc": aubc(column(tested, "labels"), accuracy),
    }


def _networks(record: Record, curve: Rows) -> dict[str, Rows]:
    """The entry `networks` of a run with several networks; nothing for a run with one."""
    names = [model["model"] for model in record.models]
    if len(set(names)) < 2:
        return {}
    curves = {
        name: [point for point, its in zip(curve, names, strict=True) if its == name] for name in sorted(set(names))
    }
    chosen = np.array(names)[present(record.queries["version"]).astype(int)]
    return {
        "networks": [
            {
                "name": name,
                "trainings": len(own),
                "queries": int((chosen == name).sum()),
                "curve": own,
                **_figures(own),
            }
            for name, own in curves.items()
        ]
    }


def _rounds_ahead(record: Record) -> dict[str, float | None]:
    """A batch of round r that version v chose is r - v rounds ahead; where more models came than rounds, it is not."""
    rounds = [round_of(int(batch), record.config) for batch in record.selections["batch"]]
    if not rounds or None in rounds:
        return {"mean": None, "max": None}
    ahead = np.maximum(np.array(rounds) - record.selections["version"], 0)
    return {"mean": float(ahead.mean()), "max": int(ahead.max())}


def _distribution(seconds: Column) -> dict[str, float | None]:
    seconds = present(seconds)
    if not seconds.size:
        return dict.fromkeys(("mean", "p50", "p95", "p99", "max"))
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return {"mean": float(seconds.mean()), "p50": p50, "p95": p95, "p99": p99, "max": float(seconds.max())}


def _rate(record: Record) -> float | None:
    answered, offered = record.queries["answered_at"][record.answered], present(record.queries["offered_at"])
    span = answered.max() - offered.min() if answered.size and offered.size else 0.0
    return float(answered.size / span) if span > 0 else None


def summary_bytes(summary: dict[str, Any]) -> bytes:
    """Returns the content of `summary.json`."""
    return (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode()
