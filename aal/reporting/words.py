"""The words of a report: what each figure means, and the headline of a run."""

from typing import Any

from aal.coordination.interval import MANY
from aal.coordination.partition import HeldOut, Partition
from aal.reporting.record import final_model
from aal.reporting.units import duration, percent

VIRTUAL = "All times are virtual: they follow from the costs in the settings below, not from this machine's speed.\n"
TURNS = (
    "Mode sync trains with one server and selects with one worker that owns the whole pool, in turn; `server_num` is "
    "not used, and `worker_num` only counts for the budget.\n"
)
BESIDE = (
    "Beside the classic loop: run the same `config.yaml` with `mode=sync`, then draw both with "
    "`python -m aal.report RUN SYNC`.\n"
)
DEFINITIONS = """\
- *Curve*: the published models in order of version. *Final* is the one of most labels; of several, the newest.
- *AUBC*: area under test accuracy against labels (trapezoids; equally many labels count once, with their mean),
  divided by the span of labels, so from 0 to 1.
- *Annotator wait*: from asking for a query to having one, over all draws.
- *Annotators waited*: all waits, divided by all waits and all times from draw to answer.
- *Query interval*: time between two consecutive batches offered by the same worker, over all workers.
- *Staleness*: how many versions the model that chose a query was behind the newest one, when it was offered and when it
  was answered; in seconds, for how long a newer model had been there when it was answered.
- *Rounds ahead*: the round of labelling that a batch belongs to, minus the version that chose it; this is what a number
  for `max_staleness` bounds, in rounds of `server_train_threshold` labels. Workers that always take the newest model
  have a staleness of 0 when they offer, however many rounds ahead they are.
- *Labels per second*: labels bought, divided by the time from the first offer to the last answer.
- *Labels during training*: answers that came while at least one model was in training.
- *Servers trained*: the time from start to publication of all trainings, divided by servers times wall time.
- *Wall time*, *virtual time* of a simulated run: what the run took. All times are since it began.
"""


def split_words(partition: Partition) -> list[str]:
    """Returns what is said at the start of a run of who has which images: in a federation, or of a test set to come."""
    lines = [_held_out_words(partition.held_out)] if len(partition.held_out.ids) else []
    if partition.initial_owner is not None:
        sizes = [len(partition.owned(client)) for client in range(len(partition.shards))]
        least, most = min(sizes), max(sizes)
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        lines.append(f"images of a client: {each} (federated.partition)")
    return lines


def _held_out_words(held_out: HeldOut) -> str:
    return (
        f"no image is labelled, so there is no test set: {len(held_out.ids)} of the first images that people label are "
        f"set aside at random, {len(held_out.test)} for testing and {len(held_out.validation)} for validation; nothing "
        "is trained on them (people.held_out)"
    )


def in_words(summary: dict[str, Any]) -> str:
    """Returns the headline of a run as one line."""
    accuracy, waited, total = summary["final_test_accuracy"], summary["annotators_waited"], summary["labels"]["total"]
    precision = _interval(summary) + (f" ({summary['eval_precision']})" if summary["eval_precision"] else "")
    tested, labels = "" if accuracy is None else f"test accuracy {accuracy:.3f}{precision} with ", f"{total} labels"
    if fewer := final_labels(summary):
        tested, labels = f"test accuracy {accuracy:.3f}{precision} of the model of {fewer} labels; ", f"{labels} in all"
    took = duration(summary["wall_s"], summary["engine"] == "simulated")
    share = "" if waited is None else f"; annotators waited {percent(waited)} of their time"
    return f"{tested}{labels} after {took}{share}"


def _interval(summary: dict[str, Any]) -> str:
    """The interval of the final accuracy, where it is of few images and of one model alone."""
    final = final_model([point for point in summary["curve"] if point["test_accuracy"] is not None])
    if final is None or "targets" in summary or (final["test_images"] or MANY) >= MANY:
        return ""
    return f" [{final['test_low']:.3f}, {final['test_high']:.3f}]"


def final_labels(summary: dict[str, Any]) -> int | None:
    """Returns how many labels there were for the final model, where they are not all of the run."""
    final = final_model([point for point in summary["curve"] if point["test_accuracy"] is not None])
    return None if final is None or final["labels"] == summary["labels"]["total"] else int(final["labels"])
