"""The Markdown page of a figure, put together from what a figure's own module tells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.checks import Check
from aal.app.experiments.aal_2021.published import TITLES
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.scales import Setup
from aal.app.experiments.aal_2021.stats import Numbers, Verdict, seeds_told

SILENT = (
    "How many runs a curve is the mean of; the published code sets one seed, for the order of CIFAR-10 alone, and the "
    "figures show no spread.",
    "On which images the epoch was chosen: the TensorFlow code keeps the best of 5,000 validation images, the PyTorch "
    "code the best on the test set.",
)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        text: in words.
        verdict: what our runs say of it.
        evidence: the numbers behind it.
        runs: of how many runs, in words.
    """

    text: str
    verdict: Verdict
    evidence: str
    runs: str


@dataclass(frozen=True)
class Story:
    """What a figure's module tells.

    Attributes:
        title: of the page.
        picture: the drawing.
        caption: what it shows.
        rows: of the CSV.
        claims: of the paper, judged.
        rules: how they were judged.
        tables: Markdown with our figures beside the paper's.
        silent: what the paper does not say.
        differs: how the runs differ from the paper beyond the scale.
        data: what the runs are about, where it is not the images that were chosen.
        scale_differs: what the scale changes, where it is not what the scale says of itself.
    """

    title: str
    picture: Figure
    caption: str
    rows: list[dict[str, Any]]
    claims: list[Claim]
    rules: str
    tables: list[str]
    silent: tuple[str, ...]
    differs: str
    data: str | None = None
    scale_differs: str | None = None


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def spread(values: Numbers, published: float | None = None) -> str:
    """Returns mean and standard deviation of accuracies in percent, the paper's in brackets."""
    deviation = f" ± {100 * values.std(ddof=1):.1f}" if values.size > 1 else ""
    beside = "" if published is None else f" ({100 * published:.1f})"
    return f"{100 * values.mean():.1f}{deviation}{beside}"


def named(methods: Iterable[str]) -> str:
    """Returns the titles of methods, listed."""
    return ", ".join(TITLES[method] for method in methods)


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
    count = len({result.run.seed for result in results})
    data, smaller = story.data or setup.data_type, story.scale_differs or setup.size.differs
    parts = [
        f"# {story.title}\n",
        f"Data: {data}. Scale: {setup.scale}. {len(results)} runs, {seeds_told(count)}.\n",
        f"![{story.caption}]({figure}.png)\n",
        f"{story.caption} [PDF]({figure}.pdf), [every number]({figure}.csv).\n",
        "## The paper's claims\n",
        table(
            ("claim", "verdict", "evidence", "from"),
            ((claim.text, f"**{claim.verdict}**", claim.evidence, claim.runs) for claim in story.claims),
        ),
        f"{story.rules}\n",
        "## Our figures beside the paper's\n",
        *story.tables,
        "## Checks\n",
        _checks(checks),
        "## How it was made\n",
        f"    {command}\n",
        f"The sweep took {_long(seconds[0])}; its runs {_long(seconds[1])} together, those that other figures share "
        "included.\n",
        f"Hardware: {_distinct(results, 'hardware')}.\n",
        table(("software", "version"), _versions(results)),
        "## How it differs from the paper\n",
        f"{smaller}\n\n{story.differs}\n",
        "## What the paper does not say\n",
        "\n".join(f"- {line}" for line in story.silent) + "\n",
    ]
    return "\n".join(parts)


def _checks(checks: Sequence[Check]) -> str:
    if not checks:
        return (
            "These runs have neither images nor models, only times: there is nothing that could leak. No conclusion "
            "about accuracy is drawn from them.\n"
        )
    told = (f"**failed**: {', '.join(one.broken)}" if one.broken else one.kept for one in checks)
    rows = ((one.promise, found, one.looked_at) for one, found in zip(checks, told, strict=True))
    head = ("promise", "", "looked at")
    return f"Read from the folders of the runs, after the last had ended.\n\n{table(head, rows)}"


def _versions(results: Sequence[Result]) -> list[tuple[str, str]]:
    keys = sorted({key for result in results for key in result.meta if key.startswith("version_")})
    return [(key.removeprefix("version_"), _distinct(results, key)) for key in keys]


def _distinct(results: Sequence[Result], key: str) -> str:
    return "; ".join(sorted({result.meta.get(key, "unknown") for result in results})).replace("|", "\\|")


def _long(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
