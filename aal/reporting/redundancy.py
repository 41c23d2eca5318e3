"""How much query batches repeat themselves, and what other workers had chosen."""

import numpy as np

from aal.reporting.record import Record, present
from aal.reporting.tables import markdown_table
from aal.storage.run_reader import Column

ABOUT = """\
The cosine of an image to its nearest neighbour, the mean over each batch: among the other images of the batch, and
among those that were chosen and not answered yet, by whichever worker. {rule} It is measured on {on}.
The batches are in the table `redundancy` of run.db.
"""
ON_EMBEDDINGS = "the embeddings of the model that chose, and not of every batch where it would slow selection down"
COUNTED = "Under `count_waiting` coreset, typiclust and badge counted the latter as chosen already."
NOT_COUNTED = "No worker looked at the latter when it chose (`count_waiting: false`)."


def redundancy_section(record: Record) -> str:
    """Returns the section of a report on redundancy; empty where it was not measured."""
    measured = record.redundancy
    if not measured["waiting"].size:
        return ""
    on = "the features" if record.config.get("features") else ON_EMBEDDINGS
    about = ABOUT.format(rule=COUNTED if record.config.get("count_waiting") else NOT_COUNTED, on=on)
    rows = [
        ("Within the batch", *_quantiles(measured["within"])),
        ("Against what was chosen before and not answered", *_quantiles(measured["against"])),
    ]
    mean = f"On average {measured['waiting'].mean():.0f} were chosen and not answered.\n"
    head = ("nearest-neighbour cosine", "batches", "mean", "p5", "p50", "p95")
    return f"## Redundancy of the batches\n\n{about}\n{markdown_table(head, rows)}\n{mean}"


def _quantiles(values: Column) -> tuple[str, ...]:
    known = present(values)
    if not known.size:
        return ("0", "-", "-", "-", "-")
    return (str(known.size), *(f"{value:.3f}" for value in (known.mean(), *np.quantile(known, (0.05, 0.5, 0.95)))))
