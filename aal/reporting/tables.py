"""Markdown tables."""

import html
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from aal.config.terminal import escaped


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns a Markdown table that ends with a newline.

    Args:
        head: the titles of the columns.
        rows: the cells, shown as `str` makes them; line breaks and bars in them do no harm.
    """
    cells, titles = [[*map(_cell, row)] for row in rows], [*map(_cell, head)]
    return tabulate(cells, titles, tablefmt="github", disable_numparse=True) + "\n"


def _cell(value: object) -> str:
    return plain_text(value).replace("|", "\\|")


def plain_text(value: object) -> str:
    """Returns text from outside for a Markdown page: one line, without HTML."""
    return html.escape(escaped(" ".join(str(value).split())), quote=False)
