"""What the runs with one, two and three answers an image came to, and what the answers alone come to."""

import json
import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from aal.aggregation.dawid_skene import DawidSkene, dawid_skene
from aal.aggregation.majority import Majority
from aal.annotators.recorded import Answers
from aal.app.data import open_set, prepare
from aal.app.experiments.aal_2021.page import count, mean_and_deviation
from aal.app.experiments.aal_2021.statistics import interval, judge
from aal.app.experiments.people.plans import BASELINE, FOLDER, KINDS, Run, Setup, plan_of
from aal.reporting.answers import answers_summary
from aal.reporting.record import read
from aal.reporting.tables import markdown_table
from aal.reporting.units import percent

MOST = 3  # answers an image
METHODS = ("answers an image", "majority", "Dawid-Skene as published", "`dawid_skene` of a run")


@dataclass(frozen=True)
class Result:
    """What a run left: the plan, its summary, the answers given, the share of wrong labels, its software."""

    run: Run
    summary: dict[str, Any]
    answers: int
    wrong: float
    meta: dict[str, str]

    @property
    def accuracy(self) -> float:
        """Of the final model on the test set."""
        return float(self.summary["final_test_accuracy"])


def read_results(plan: Iterable[Run], runs: pathlib.Path) -> list[Result]:
    """Reads the runs of a plan, which are finished."""
    found = []
    for run in plan:
        record = read(runs / run.name)
        summary = json.loads((runs / run.name / "summary.json").read_text(encoding="utf-8"))
        given, wrong = answers_summary(record)["given"], record.label_errors / summary["labels"]["bought"]
        found.append(Result(run, summary, given, wrong, record.meta))
    return found


def shares_right(setup: Setup) -> list[tuple[float, ...]]:
    """Returns the answers an image, and how many labels are right by majority, by Dawid-Skene, and as runs use that."""
    settings = plan_of(setup)[0].settings
    images = open_set(prepare(settings))
    answers = Answers(setup.answers, images.classes, None, 1.0, len(images.labels))
    truth, rows = np.asarray(images.labels), []
    for most in range(1, MOST + 1):
        given = {item: answers.of(item)[:most] for item in range(len(truth)) if len(answers.of(item)) >= most}
        ids = np.array(list(given))
        majority = Majority(len(images.classes))
        votes = np.array([majority.decide([], [one.label for one in few])[0] for few in given.values()])
        places = np.repeat(np.arange(len(given)), most)
        who, labels = np.array([(one.annotator, one.label) for few in given.values() for one in few]).T
        posterior, _, _ = dawid_skene(places, who, labels, len(images.classes))
        fitted = DawidSkene(len(images.classes)).fit(places, who, labels)
        assert fitted is not None
        found = posterior.argmax(axis=1)
        rows.append((most, *(float((labels == truth[ids]).mean()) for labels in (votes, found, fitted[1]))))
    return rows


def rows_of(results: list[Result]) -> list[dict[str, Any]]:
    """Returns a row for each run."""
    return [
        {
            **{"run": one.run.name, "kind": one.run.kind, "seed": one.run.seed},
            **{"images": one.summary["labels"]["bought"], "answers": one.answers},
            **{"wrong_labels": one.wrong, "test_accuracy": one.accuracy, "wall_s": one.summary["wall_s"]},
            "annotators_waited": one.summary["annotators_waited"],
        }
        for one in results
    ]


def _table(setup: Setup, results: list[Result]) -> Iterator[list[str]]:
    base = {one.run.seed: one.accuracy for one in results if one.run.kind == BASELINE}
    for kind in setup.kinds:
        own = [one for one in results if one.run.kind == kind]
        gained = interval(np.array([one.accuracy - base[one.run.seed] for one in own]))
        bought = np.mean([one.summary["labels"]["bought"] for one in own])
        given = np.mean([one.answers for one in own])
        yield [
            *(KINDS[kind]["title"], f"{bought:,.0f}", f"{given:,.0f}"),
            percent(float(np.mean([one.wrong for one in own]))),
            mean_and_deviation(np.array([one.accuracy for one in own])),
            "-" if kind == BASELINE else f"{gained}: {judge(gained, below=0.0)}",
            percent(float(np.mean([one.summary["annotators_waited"] for one in own]))),
        ]


def page_of(setup: Setup, results: list[Result], shares: list[tuple[float, ...]], command: str, seconds: float) -> str:
    """Returns the Markdown page."""
    keys = ["hardware", *sorted({key for one in results for key in one.meta if key.startswith("version_")})]
    distinct = {key: "; ".join(sorted({one.meta.get(key, "unknown") for one in results})) for key in keys}
    hardware = distinct.pop("hardware")
    alone = ((f"{most:.0f}", *map(percent, found)) for most, *found in shares)
    head = ("answers an image", "images", "answers", "wrong labels", "test accuracy (%)", "points over one answer")
    return (
        (FOLDER / "page.md")
        .read_text(encoding="utf-8")
        .format(
            runs=len(results),
            seeds=count(setup.seeds, "seed"),
            alone=markdown_table(
                ("answers an image", "majority", "Dawid-Skene as published", "`dawid_skene` of a run"), alone
            ),
            table=markdown_table((*head, "annotators waited"), _table(setup, results)),
            command=command,
            minutes=f"{seconds / 60:.0f}",
            hardware=hardware,
            versions=markdown_table(
                ("software", "version"), [(key.removeprefix("version_"), value) for key, value in distinct.items()]
            ),
        )
    )
