"""Markdown tables."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns a Markdown table that ends with a newline.

    Args:
        head: the titles of the columns.
        rows: the cells, shown as `str` makes them; line breaks and bars in them do no harm.
    """
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return tabulate(cells, head, tablefmt="github", disable_numparse=True) + "\n"
