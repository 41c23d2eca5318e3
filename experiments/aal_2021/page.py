"""The Markdown page of a figure: its words from `pages.yaml`, its numbers from the figure's definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.plans import Setup
from aal.app.experiments.aal_2021.published import FOLDER
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.statistics import Numbers, Verdict
from aal.reporting.tables import markdown_table

if TYPE_CHECKING:
    from aal.app.experiments.aal_2021.checks import Check

TEXTS: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "pages.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Claim:
    """A claim of the paper in words, what our runs say of it, the numbers behind that, and of how many runs."""

    text: str
    verdict: Verdict
    evidence: str
    runs: str


@dataclass(frozen=True)
class Story:
    """What the runs of a figure say.

    Attributes:
        picture: the drawing.
        rows: of the CSV.
        claims: of the paper, judged.
        tables: Markdown with our figures beside the paper's.
        words: of `pages.yaml`, filled in: title, caption, rules, differs, silent; and `data`, what the runs are about
            where it is not the images that were chosen; `scale`, what the scale changes where it does not say itself.
    """

    picture: Figure
    rows: list[dict[str, Any]]
    claims: list[Claim]
    tables: list[str]
    words: dict[str, str] = field(default_factory=dict)


def words_of(figure: str, **values: Any) -> dict[str, str]:
    """Returns the words of a figure's page, with values in the place of braces."""
    silent = np.hstack([np.ravel(entry) for entry in TEXTS[figure]["silent"]])
    texts = {**TEXTS[figure], "silent": "\n".join(f"- {line}" for line in silent)}
    return {key: text.format(**values) for key, text in texts.items()}


def titled(caption: str, head: Sequence[str], rows: Any) -> str:
    """Returns a Markdown table below a sentence."""
    return f"{caption}\n\n{markdown_table(head, rows)}\n"


def count(number: int, what: str) -> str:
    """Returns a number of things in words."""
    return f"{number} {what}{'s' * (number != 1)}"


def mean_and_deviation(values: Numbers, published: float | None = None) -> str:
    """Returns mean and standard deviation of accuracies in percent, the paper's in brackets."""
    deviation = f" ± {100 * values.std(ddof=1):.1f}" if values.size > 1 else ""
    beside = "" if published is None else f" ({100 * published:.1f})"
    return f"{100 * values.mean():.1f}{deviation}{beside}"


def compose(
    figure: str,
    story: Story,
    setup: Setup,
    results: Sequence[Result],
    checks: Sequence[Check],
    command: str,
    seconds: tuple[float, float],
) -> str:
    """Returns the page.

    Args:
        figure: names the files beside it.
        story: of the figure.
        setup: what was chosen.
        results: of its runs.
        checks: of its runs; none for runs without images.
        command: that made it.
        seconds: real ones of the sweep, and of its runs together.
    """
    words, seeds = story.words, count(len({result.run.seed for result in results}), "seed")
    claims = [(claim.text, f"**{claim.verdict}**", claim.evidence, claim.runs) for claim in story.claims]
    versions = sorted({key for result in results for key in result.meta if key.startswith("version_")})
    parts = [
        f"# {words['title']}\n",
        f"Data: {words.get('data', setup.data_type)}. Scale: {setup.scale}. {len(results)} runs, {seeds}.\n",
        f"![{words['caption']}]({figure}.png)\n",
        f"{words['caption']} [PDF]({figure}.pdf), [every number]({figure}.csv).\n",
        "## The paper's claims\n",
        markdown_table(("claim", "verdict", "evidence", "from"), claims) + "\n",
        f"{words['rules']}\n",
        "## Our figures beside the paper's\n",
        *story.tables,
        "## Checks\n",
        _checked(checks),
        "## How it was made\n",
        f"    {command}\n",
        f"The sweep took {_long(seconds[0])}; its runs {_long(seconds[1])} together, those that other figures share "
        "included.\n",
        f"Hardware: {_distinct(results, 'hardware')}.\n",
        markdown_table(
            ("software", "version"), [(key.removeprefix("version_"), _distinct(results, key)) for key in versions]
        )
        + "\n",
        "## How it differs from the paper\n",
        f"{words.get('scale', setup.size.differs)}\n\n{words['differs']}\n",
        "## What the paper does not say\n",
        f"{words['silent']}\n",
    ]
    return "\n".join(parts)


def _checked(checks: Sequence[Check]) -> str:
    if not checks:
        return (
            "These runs have neither images nor models, only times: there is nothing that could leak. No conclusion "
            "about accuracy is drawn from them.\n"
        )
    found = [f"**failed**: {', '.join(one.broken)}" if one.broken else one.kept for one in checks]
    rows = [(one.promise, said, one.looked_at) for one, said in zip(checks, found, strict=True)]
    return titled("Read from the folders of the runs, after the last had ended.", ("promise", "", "looked at"), rows)


def _distinct(results: Sequence[Result], key: str) -> str:
    return "; ".join(sorted({result.meta.get(key, "unknown") for result in results})).replace("|", "\\|")


def _long(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
