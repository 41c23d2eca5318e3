"""Figure 4: average time between two queries, synchronous and asynchronous, by batch size."""

import itertools
from typing import Any

from aal.app.experiments.aal_2021.lines import KINDS, SOURCES, Kind, Times, draw, line, longest_s, mean_s
from aal.app.experiments.aal_2021.pages import Claim, Story, table
from aal.app.experiments.aal_2021.plans import TIMED_ROUNDS, Run, timed
from aal.app.experiments.aal_2021.published import TIMED_BATCHES, seconds
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.scales import Setup
from aal.app.experiments.aal_2021.stats import certain, given_by

MUCH, FLAT = 2.0, 1.1
FITTED: tuple[Kind, ...] = (("sync", 1), ("async", None))  # lines of the paper's figure that its costs are read off
RULES = f"""\
"Much faster" holds when the synchronous time is at least {MUCH:g} times the asynchronous one at every batch size,
"remains low" when the asynchronous time at the largest batch is at most {FLAT:g} times that at the smallest; the paper
names no numbers (its figure shows 5.7 to 52 times, and 1.0 times). The costs have no spread, so every run with these
settings has these times: chance has no part in it. "By construction" is no finding. The paper's costs are read off its
own figure 4: a selection takes the time of the asynchronous line, a training what was fitted to the synchronous one. So
the synchronous and the unbounded line had to agree with the paper's; only what follows for bound 1 is a finding."""
NOTE = f"""\
**What the bound does.** The published code lets selection run one round ahead of the models (bound 1). The first two
batches are chosen with the initial model, one after the other. From the third batch on, where labels cost nothing as
in that code, a worker waits for nearly a whole training before it chooses, and the time between two queries is that of
a training: it cannot stay as short as figure 4 shows. Unbounded, it is the time of a selection alone, which is what
figure 4 shows, and the unseen labels tell the price: the models that choose have learned from fewer of those there.

**How short the runs are.** A worker offers {TIMED_ROUNDS} batches, for with batches of 10,000 CIFAR-10 has images for
no more, so each time is the mean over three intervals. With bound 1 the first of the three is free, as the second batch
may use the initial model: the mean is lower than that of a longer run, and the longest interval is nearer to it.
*Unseen* is capped by so short a run, for a batch cannot miss more than those before it (1.5 in the mean); it is no
measure of a long one, in which unbounded workers run further ahead."""
DIFFERS = """\
The label counts are the paper's at every scale, for these runs compute nothing: training, scoring and publishing are
only their costs. A query is a batch that a worker offers, and its time that between two such batches. Synchronous is
one worker that scores the whole pool in turn with the training; asynchronous is ten workers that score a tenth each, at
the same time, as if each had cores of its own. The costs are those of an otherwise idle machine: that roles which share
cores slow one another down is not in these times."""


def plan(setup: Setup, measured: dict[str, float]) -> list[Run]:
    """Returns the runs; one seed, for the times do not depend on it."""
    return [
        timed(setup, costs, times, mode, bound, batch)
        for costs, times in (("paper", None), ("measured", measured))
        for mode, bound in KINDS
        for batch in TIMED_BATCHES
    ]


def tell(setup: Setup, results: list[Result]) -> Story:
    """Returns what the runs say."""
    times: Times = {
        (result.run.costs, result.run.mode, result.run.bound, result.run.batch): result for result in results
    }
    data_type = results[0].run.config["data_type"]
    return Story(
        title="Figure 4: average time between two queries",
        picture=draw(data_type, times),
        caption="Average time between two queries by batch size, over three intervals; hollow: the paper's figure 4.",
        rows=[_row(data_type, result) for result in results],
        claims=[claim for costs in SOURCES for claim in _claims(costs, times)],
        rules=RULES,
        tables=[
            *(part for costs in SOURCES for part in (_table(data_type, costs, times), _beside(costs, times))),
            f"{NOTE}\n",
            _costs(results),
        ],
        silent=(
            'What "time between two queries" is: the text gives no definition, and the code measures nothing.',
            "On which hardware, with how many epochs, and over how many queries it is averaged.",
            "What of the time is the code's own waiting (polls of 10 s, a fixed sleep of 20 s, a new process and "
            "prediction on the CPU for every query), which the constant 130 s may well be.",
        ),
        differs=DIFFERS,
        data=f"no images, only the counts of {data_type}",
        scale_differs=f"The measured costs are those of this scale's network on images of {setup.data_type}.",
    )


def _row(data_type: str, result: Result) -> dict[str, Any]:
    run, published = result.run, seconds(data_type, result.run.mode, result.run.batch)
    return {
        **{"run": run.name, "costs": run.costs, "mode": run.mode, "servers": run.servers},
        **{"bound": "" if run.bound is None else run.bound, "batch": run.batch, "seed": run.seed},
        "interval_s": mean_s(result),
        "longest_s": longest_s(result),
        "unseen_labels": result.unseen,
        "paper_least_s": published[0] if published else None,
        "paper_most_s": published[1] if published else None,
    }


def _claims(costs: str, times: Times) -> list[Claim]:
    sync, runs = line(times, costs, ("sync", 1)), "one run each, without chance"
    where = f"With {SOURCES[costs]}"
    verdicts = {kind: given_by if costs == "paper" and kind in FITTED else certain for kind in KINDS}
    rising = all(small < large for small, large in itertools.pairwise(sync))
    told = f"{_short(sync[0])} s to {_short(sync[-1])} s"
    text = f"{where}: the synchronous time grows with the batch size"
    claims = [Claim(text, verdicts["sync", 1](rising), told, runs)]
    for kind, name in list(KINDS.items())[1:]:
        mine, judged = line(times, costs, kind), verdicts[kind]
        ratios = [one / other for one, other in zip(sync, mine, strict=True)]
        grown, faster = mine[-1] / mine[0], f"{min(ratios):,.1f} to {max(ratios):,.1f} times"
        told = f"{_short(mine[0])} s to {_short(mine[-1])} s, {grown:.2f} times"
        claims += [
            Claim(f"{where}: {name}, is much faster in all cases", judged(min(ratios) >= MUCH), faster, runs),
            Claim(f"{where}: {name}, remains low for large batches", judged(grown <= FLAT), told, runs),
        ]
    return claims


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _range(published: tuple[float, float] | None) -> str:
    if published is None:
        return "-"
    low, high = published
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _table(data_type: str, costs: str, times: Times) -> str:
    rows = []
    for batch in TIMED_BATCHES:
        mine = [_short(mean_s(times[costs, *kind, batch])) for kind in KINDS]
        published = [_range(seconds(data_type, mode, batch)) for mode in ("sync", "async") if costs == "paper"]
        rows.append([f"{batch:,}", *mine, *published])
    beside = ["paper, synchronous", "paper, asynchronous"] if costs == "paper" else []
    return (
        f"Mean seconds between two queries with {SOURCES[costs]}.\n\n"
        f"{table(('batch size', *KINDS.values(), *beside), rows)}"
    )


def _beside(costs: str, times: Times) -> str:
    rows = []
    for batch in TIMED_BATCHES:
        mine = [times[costs, *kind, batch] for kind in KINDS]
        aged = (f"{result.unseen / batch:.2f}" for result in mine)
        rows.append([f"{batch:,}", *(_short(longest_s(result)) for result in mine), *aged])
    short = [name.removeprefix("asynchronous, ") for name in KINDS.values()]
    head = ("batch size", *(f"longest, {name}" for name in short), *(f"unseen, {name}" for name in short))
    return (
        f"Longest of the intervals in seconds with {SOURCES[costs]}, and *unseen*: labels in L when a query was drawn "
        f"that the model which had chosen it had not learned from, in batches, the mean.\n\n{table(head, rows)}"
    )


def _costs(results: list[Result]) -> str:
    rows = []
    for costs in SOURCES:
        settings = next(result.run.settings for result in results if result.run.costs == costs)
        values = settings.costs.model_dump()
        network = f"{', '.join(settings.models)}, width {settings.width:g}, {settings.training.epochs} epochs"
        keys = ("per_image_trained", "per_image_scored", "per_selection", "per_model_published")
        rows.append([SOURCES[costs], network, *(f"{values[key]:.3g}" for key in keys)])
    head = ("", "network", "an image and epoch", "an image scored", "a selection", "a model")
    return f"Virtual seconds that work costs:\n\n{table(head, rows)}"
