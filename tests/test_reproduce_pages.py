"""What the pages say of runs that were made up, so that the truth is known."""

import pathlib
import re
from collections.abc import Callable

import numpy as np
import pytest

from aal.app.experiments.aal_2021 import accuracy, query_times
from aal.app.experiments.aal_2021.checks import check, concluded
from aal.app.experiments.aal_2021.page import compose
from aal.app.experiments.aal_2021.plans import Run, Setup, plan_of, single
from aal.app.experiments.aal_2021.results import Result, read_results
from aal.config.errors import UserError
from tests.builders import finished_run

pytestmark = pytest.mark.unit
SCALE = ("tiny", "digits", "data/downloads")
TAKEN = {"figure2": 61.0, "AAL-async-batch5000-seed0": 7300.0}
COSTS = {"per_image_trained": 0.001, "per_image_scored": 0.0, "per_selection": 1.0, "per_model_published": 0.0}


def made(plan: list[Run], runs: pathlib.Path, accuracies: Callable[[Run], list[float]]) -> list[Result]:
    for run in plan:
        finished_run(run, runs, accuracies(run))
    return read_results(plan, runs)


def tight(text: str) -> str:
    """A page or table without what only aligns its columns."""
    return re.sub(r" +", " ", text)


def curve(run: Run, gain: float) -> list[float]:
    """All curves of a seed begin at one point; then the methods differ by their gain, about 1 % more each seed."""
    start, gain = 0.5 + 0.01 * run.seed, gain * (0.99 + 0.01 * run.seed)
    return [start, *(start + 0.05 * number + gain for number in range(1, len(run.grid)))]


def test_figure2_tells_which_claims_hold(tmp_path: pathlib.Path) -> None:
    setup = Setup(*SCALE, 3, ("random", "entropy", "AAL"), (1000, 5000))
    gains = {(1000, "random"): 0.0, (1000, "entropy"): 0.02, (1000, "AAL"): 0.05}
    gains |= {(5000, "random"): 0.0, (5000, "entropy"): 0.05, (5000, "AAL"): -0.04}
    results = made(plan_of("figure2", setup), tmp_path, lambda run: curve(run, gains[run.batch, run.method]))
    story = accuracy.figure2(setup, results)
    assert [(claim.verdict, claim.runs) for claim in story.claims] == [
        ("holds", "3 seeds"),
        ("holds", "3 seeds"),
        ("does not hold", "3 seeds"),  # AAL is below random
        ("does not hold", "3 seeds"),
    ]
    # The initial point is shared, so 0.05 at the last of four equal steps, 7/8 of it in the area.
    assert "AAL - Entropy: +2.63" in story.claims[1].evidence
    assert len(story.rows) == 3 * 2 * 3 * 5
    assert {row["batch"] for row in story.rows} == {1000, 5000} and story.rows[1]["labels"] == 120
    found = [*check(results), concluded(results, story.claims)]
    page = compose("figure2", story, setup, results, found, "the command", TAKEN)
    page = tight(page)
    assert "in brackets the paper's" not in page, "of digits the paper has none"
    for told in (
        "| Batch size 5,000: random sampling is below Entropy, AAL | **does not hold** | Entropy +4.3",
        "![Test accuracy against labels, mean and standard deviation over seeds; curves are shifted a little, so that",
        "| 100 | 51.0 ± 1.0 | 51.0 ± 1.0 | 51.0 ± 1.0 |",
        "The sweep took 1 min 1 s; its runs 2 h 1 min together",
        "\n the command\n",
        "Hardware: a machine.",
        "| python | 3.11.9 |",
        "| All runs of a seed have the same test, validation and initial images | kept | 3 seeds |",
        "| Every conclusion about accuracy is from at least two seeds | kept | 4 claims, 3 seeds |",
        "chosen on the very runs",
    ):
        assert told in page
    assert "failed" not in page and "nan" not in page


def test_one_seed_and_missing_methods_tell_nothing(tmp_path: pathlib.Path) -> None:
    setup = Setup(*SCALE, 1, ("entropy", "AAL"), (5000,))
    results = made(plan_of("figure2", setup), tmp_path, lambda run: curve(run, 0.0))
    story = accuracy.figure2(setup, results)
    assert [claim.verdict for claim in story.claims] == ["not tried here", "cannot be told from this many runs"]
    assert "one seed, no interval" in story.claims[1].evidence
    told = concluded(results, story.claims)
    page = tight(compose("figure2", story, setup, results, [told], "the command", TAKEN))
    promise = "Every conclusion about accuracy is from at least two seeds"
    assert f"| {promise} | one seed: nothing is concluded | 2 claims, 1 seed |" in page


def test_the_papers_values_stand_beside_ours(tmp_path: pathlib.Path) -> None:
    setup = Setup("tiny", "cifar-10", "data/downloads", 2, ("random", "AAL"), (5000,))
    story = accuracy.figure2(setup, made(plan_of("figure2", setup), tmp_path, lambda run: curve(run, 0.0)))
    assert "(86.8)" in story.tables[0] and "(64.4)" in story.tables[0]
    assert "in brackets the paper's at the same training" in story.tables[0]
    lines = [np.asarray(line.get_xdata())[0] for line in story.picture.axes[0].get_lines() if line.get_marker() in "s^"]
    assert len(set(lines)) == 2, "the bars of two curves are beside one another"
    assert [row["paper_accuracy"] for row in story.rows if row["method"] == "AAL"][:5] == [
        0.644,
        0.754,
        0.806,
        0.840,
        0.868,
    ]


def test_figure3_pairs_runs_at_the_same_number_of_labels(tmp_path: pathlib.Path) -> None:
    setup = Setup(*SCALE, 3, ("entropy", "margin"), (2500,))
    gains = {("entropy", "async"): 0.001, ("margin", "async"): 0.032}
    results = made(plan_of("figure3", setup), tmp_path, lambda run: curve(run, gains.get((run.method, run.mode), 0.0)))
    story = accuracy.figure3(setup, results)
    assert [claim.verdict for claim in story.claims] == ["holds", "does not hold", "does not hold", "holds"]
    assert "asynchronous - synchronous: +3.20 [+3.12, +3.28]" in story.claims[1].evidence
    assert "the largest 3.2" in story.claims[3].evidence
    assert story.tables[0].count("\n| ") == 1 + 2 * 4  # without the initial models
    # With the initial models, as in figure 2: 7/8 of the gain is in the area.
    assert "| Margin | 2,500 | 61.0 ± 1.0 | 63.8 ± 1.0 | +2.80 [+2.73, +2.87] |" in tight(story.tables[1])
    assert "paper_accuracy" not in story.rows[0]


def test_table1_has_two_means_that_may_differ(tmp_path: pathlib.Path) -> None:
    setup = Setup(*SCALE, 3, ("AAL",), ())

    def bent(run: Run) -> list[float]:  # all curves are one and the same, which rises steeply at first
        return [0.9 - 40 / labels + 1e-3 * run.seed * (1 + 0.01 * run.servers) for labels in run.grid]

    story = accuracy.table1(setup, made(plan_of("table1", setup), tmp_path, bent))
    nothing = "cannot be told from this many runs"
    assert [claim.verdict for claim in story.claims] == ["holds", "holds", nothing, nothing]
    assert "4 - 2: +0.00" in story.claims[2].evidence
    assert "paper_accuracy" not in story.rows[0]
    # In these runs each model chooses a round: half a round is unseen in the mean, and the first is an eighth of all.
    assert "| 4 | 9.0 | 24 | 12 % | 0.5 |" in tight(story.tables[4])
    assert "points higher than at their own" in story.tables[3]
    assert "| AAL | 69.7 ± 0.1 |" in tight(story.tables[1])


def test_figure4_tells_times_for_both_bounds(tmp_path: pathlib.Path) -> None:
    setup = Setup(*SCALE, 1, (), ())
    plan = plan_of("figure4", setup, COSTS)
    for run in plan:
        seconds = 500 + run.batch / 10 if run.mode == "sync" else 100.0 if run.bound is None else 400 + run.batch / 10
        first = seconds - 300 if (run.mode, run.bound) == ("async", 1) else None
        finished_run(run, tmp_path, [None] * 5, every_s=seconds, first_s=first)
    results = read_results(plan, tmp_path)
    story = query_times.figure4(setup, results)
    found, given = ["does not hold", "does not hold"], "by construction"
    assert [claim.verdict for claim in story.claims] == [given, *found, given, given, "holds", *found, "holds", "holds"]
    assert "| 1,000 | 600 | 400 | 100 | 740 | 129 |" in tight(story.tables[0])
    assert "| 1,000 | 600 | 500 | 100 |" in tight(story.tables[1])  # the longest
    assert "740" not in story.tables[2]
    assert {row["bound"] for row in story.rows} == {1, ""}
    assert (story.rows[4]["interval_s"], story.rows[4]["longest_s"]) == (400, 500)
    page = compose("figure4", story, setup, results, [], "the command", {})
    assert "nothing that could leak" in page and "24 runs, 1 seed." in page
    assert "Data: no images, only the counts of cifar-10. Scale: tiny." in page
    assert setup.size.differs not in page and "on images of digits" in page
    for told in (
        "three intervals",
        "the first of the three is free",
        "No conclusion about accuracy",
        "which share cores",
    ):
        assert told in page.replace("\n", " ")


def test_a_range_of_the_paper_stays_one(tmp_path: pathlib.Path) -> None:
    setup = Setup("tiny", "mini-imagenet", "data/downloads", 1, (), ())
    plan = plan_of("figure4", setup, COSTS)
    for run in plan:
        finished_run(run, tmp_path, [None] * 5, every_s=100.0)
    assert "150 to 175" in query_times.figure4(setup, read_results(plan, tmp_path)).tables[0]


def test_a_curve_that_is_too_short_is_reported(tmp_path: pathlib.Path) -> None:
    setup = Setup(*SCALE, 1, ("AAL",), (5000,))
    run = single(setup, "AAL", "async", 5000, 0)
    finished_run(run, tmp_path, [0.5, 0.6])
    with pytest.raises(UserError, match="from 100 to 200 labels says nothing"):
        accuracy.figure2(setup, read_results([run], tmp_path))
