"""The Markdown page of a figure: its words and their order from `pages.yaml`, its numbers from the runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.plans import Setup
from aal.app.experiments.aal_2021.published import FOLDER
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.statistics import Numbers, Verdict
from aal.reporting.tables import markdown_table

Seconds = Mapping[str, float]
TEXTS: dict[str, Any] = yaml.safe_load((FOLDER / "pages.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Claim:
    """A claim of the paper in words, what our runs say of it, the numbers behind that, and of how many runs."""

    text: str
    verdict: Verdict
    evidence: str
    runs: str


@dataclass(frozen=True)
class Check:
    """A promise, the runs or claims that break it, how much was looked at, and what to say when it is kept."""

    promise: str
    broken: list[str]
    looked_at: str
    kept: str = "kept"


@dataclass(frozen=True)
class Story:
    """What the runs of a figure say: its picture, the rows of its CSV, the judged claims, tables in Markdown.

    `words` are those of `pages.yaml`, filled in; a figure may add `data`, what its runs are about where it is not the
    images that were chosen, and `scale_differs`, what the scale changes where it does not say so itself.
    """

    picture: Figure
    rows: list[dict[str, Any]]
    claims: list[Claim]
    tables: list[str]
    words: dict[str, str]


def words_of(figure: str, **values: Any) -> dict[str, str]:
    """Returns the words of a figure's page, with values in the place of braces."""
    silent = np.hstack([np.ravel(entry) for entry in TEXTS[figure]["silent"]])
    texts = {**TEXTS[figure], "silent": "\n".join(f"- {line}" for line in silent)}
    return {key: text.format(**values) for key, text in texts.items()}


def titled(caption: str, head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns a Markdown table below a sentence."""
    return f"{caption}\n\n{markdown_table(head, rows)}"


def count(number: int, what: str) -> str:
    """Returns a number of things in words."""
    return f"{number} {what}{'s' * (number != 1)}"


def mean_and_deviation(values: Numbers, paper: float | None = None) -> str:
    """Returns mean and standard deviation of accuracies in percent, the paper's in brackets unless it has none."""
    deviation = f" ± {100 * values.std(ddof=1):.1f}" if values.size > 1 else ""
    beside = "" if paper is None or np.isnan(paper) else f" ({100 * paper:.1f})"
    return f"{100 * values.mean():.1f}{deviation}{beside}"


def compose(
    figure: str, story: Story, setup: Setup, results: list[Result], checks: list[Check], command: str, taken: Seconds
) -> str:
    """Returns the page; `checks` are none for runs without images, `taken` are the seconds of figures and runs."""

    def distinct(key: str) -> str:
        return "; ".join(sorted({result.meta.get(key, "unknown") for result in results}))

    versions = sorted({key for result in results for key in result.meta if key.startswith("version_")})
    software = ((key.removeprefix("version_"), distinct(key)) for key in versions)
    found = [(one, f"**failed**: {', '.join(one.broken)}" if one.broken else one.kept) for one in checks]
    looked = [(one.promise, result, one.looked_at) for one, result in found]
    about = "Read from the folders of the runs, after the last had ended."
    claims = ((claim.text, f"**{claim.verdict}**", claim.evidence, claim.runs) for claim in story.claims)
    parts = {
        **{"figure": figure, "command": command, "scale": setup.scale, "runs": len(results)},
        **{"data": setup.data_type, "scale_differs": setup.size.differs, "hardware": distinct("hardware")},
        "seeds": count(len({result.run.seed for result in results}), "seed"),
        "claims": markdown_table(("claim", "verdict", "evidence", "from"), claims),
        "tables": "\n".join(story.tables),
        "checks": titled(about, ("promise", "", "looked at"), looked) if checks else TEXTS["checks"]["none"] + "\n",
        "versions": markdown_table(("software", "version"), software),
        "sweep_took": _long(taken.get(figure, 0.0)),
        "runs_took": _long(sum(taken.get(result.run.name, 0.0) for result in results)),
        **story.words,
    }
    return str(TEXTS["page"].format(**parts))


def _long(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
