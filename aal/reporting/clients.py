"""What the clients of a federation did."""

from aal.reporting.record import Record
from aal.reporting.tables import markdown_table
from aal.reporting.units import rounded

HEADS = ("client", "images", "labels", "trainings", "dropped out", "left out", "weight", "staleness")
ABOUT = """\
*Weight* is the mean share of a client's local models in the versions they are in, *staleness* how many versions had
been published since the one that they began with (mean, largest). *Dropped out* are trainings whose weights never came,
*left out* local models that were not finite, of another shape or damaged; why is in the table `rounds` of run.db.
"""


def clients_table(record: Record) -> str:
    """Returns the section of a report on the clients of a federation; empty for other runs."""
    if not record.client_work:
        return ""
    images: dict[int, int] = {}
    labels: dict[int, int] = {}
    for row in record.clients:
        images[row["client"]] = images.get(row["client"], 0) + row["images"]
        labels[row["client"]] = labels.get(row["client"], 0) + row["labelled"]
    rows = []
    for work in record.client_work:
        client, is_merged = work["client"], work["weight"] is not None
        staleness = f"{rounded(work['mean_staleness'])}, {work['max_staleness']}" if is_merged else "-"
        counts = (work["trainings"], work["dropped_out"], work["left_out"])
        own = (images.get(client, 0), labels.get(client, 0))
        rows.append((client, *own, *counts, rounded(work["weight"]) if is_merged else "-", staleness))
    return f"## Clients\n\n{ABOUT}\n{markdown_table(HEADS, rows)}"
