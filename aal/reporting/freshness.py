"""How old the models were that chose the queries, and what selection just in time decided."""

import numpy as np

from aal.coordination.query_pool import NO_MODEL
from aal.reporting.record import Record, column, present
from aal.reporting.tables import markdown_table
from aal.reporting.units import duration, percent, rounded
from aal.storage.run_reader import Column

ABOUT = """\
A selection is granted when S holds no more than the mark: what annotators draw during a selection, on average, and a
safety in deviations of that, which every selection during which somebody found S empty raises. All decisions are in the
table `grants` of run.db, what was taken back in `withdrawals`.
"""


def when_offered(record: Record) -> Column:
    """Returns by how many versions the model of each query was behind the newest, when it was offered (n,)."""
    return present(record.queries["newest"] - record.queries["version"])


def random_queries(record: Record) -> int:
    """Returns how many queries were offered at random because there was no model yet."""
    return int((np.isnan(record.queries["version"]) & ~record.is_held_out).sum())


def when_answered(record: Record) -> tuple[Column, Column]:
    """Returns how stale each answered query was when it was answered, without those that are held out.

    A query that no model chose counts as one of the version before the first.

    Returns:
        By how many versions its model was behind the newest (a,), and for how many seconds a newer model had been there
        (a,), 0 where there was none.
    """
    versions, published = column(record.models, "version"), column(record.models, "published_at")
    counted = record.answered & ~record.is_held_out
    answered_at = record.queries["answered_at"][counted]
    chosen = np.nan_to_num(record.queries["version"][counted], nan=NO_MODEL)
    newest = np.append(NO_MODEL, versions)[np.searchsorted(published, answered_at, "right")]
    superseded_at = np.append(published, np.inf)[np.searchsorted(versions, chosen, "right")]
    return (newest - chosen).clip(0), (answered_at - superseded_at).clip(0)


def just_in_time(record: Record) -> str:
    """Returns the section of a report on what was decided under `max_staleness: auto`; empty under other rules."""
    if not record.grants:
        return ""
    newer = sum(grant["reason"] == "newer model" for grant in record.grants)
    at_random = random_queries(record)
    withdrawn, again = record.withdrawn["withdrawn"], record.withdrawn["chosen_again"]
    last, marks = record.grants[-1], column(record.grants, "mark")
    rows = [
        ("Selections because S was low", f"{len(record.grants) - newer:,}"),
        ("Selections because a newer model was there", f"{newer:,}"),
        (
            "Queries at random, at the start",
            f"{at_random:,} ({percent(at_random, record.answered.size)})",
        ),
        ("Queries withdrawn for those of a newer model", f"{withdrawn:,}, {again:,} of them chosen again later"),
        ("Mark, queries in S", f"{marks.min():.0f} to {marks.max():.0f}, in the middle {np.median(marks):.0f}"),
        ("Draws a second, at the end", rounded(last["draws_per_s"])),
        ("Time of a selection, at the end", duration(last["selection_s"], record.is_virtual)),
        ("Safety, deviations of the draws during a selection, at the end", rounded(last["deviations"])),
    ]
    return f"## Selection just in time\n\n{ABOUT}\n{markdown_table(('', 'value'), rows)}"
