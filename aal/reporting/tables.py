"""Tables of the pages that the program writes."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns a Markdown table; the cells stand as they are given."""
    return tabulate([list(row) for row in rows], list(head), tablefmt="github", disable_numparse=True)
