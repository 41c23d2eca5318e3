"""`reproduce.py kafal`: its plan, its claims and page on invented results, and mistakes in its words."""

import dataclasses
import pathlib
import zlib
from typing import Any

import numpy as np
import pytest

from aal.app import reproduce
from aal.app.experiments.aal_2021.statistics import Verdict
from aal.app.experiments.kafal_2023 import page, slow_clients
from aal.app.experiments.kafal_2023.plans import COMPARED, METHODS, SCALES, SPREADS, Run, Setup, plan_of
from aal.app.experiments.kafal_2023.results import Result
from aal.reporting.curves import Floats

pytestmark = pytest.mark.unit
SETUP = Setup("cpu", "data/downloads", 3, ("ksas", "random", "entropy", "logo"), ("0.1", "iid"), "local")


def result(run: Run, gain: dict[str, float]) -> Result:
    """A curve that rises; what a method or update gains is less where clients are alike."""
    noise = 0.001 * np.random.RandomState(zlib.crc32(run.name.encode())).normal()
    share = 0.2 if run.spread == "iid" else 1.0
    more = share * (gain.get(run.method, 0.0) + gain.get(run.update, 0.0))
    labels: Floats = np.array([500.0, 750.0, 1000.0, 1250.0]) + run.seed
    accuracy: Floats = np.asarray([start + more + noise for start in (0.2, 0.23, 0.26, 0.29)], np.float64)
    return Result(run, labels, accuracy, "a machine")


def results(**gain: float) -> list[Result]:
    return [result(run, gain) for run in plan_of(SETUP)]


def verdicts(found: list[Result]) -> dict[str, Verdict]:
    return {claim.text: claim.verdict for claim in page.claims_of(SETUP, found)}


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_of_the_plan_is_right(scale: str) -> None:
    plan = plan_of(dataclasses.replace(SETUP, scale=scale, methods=METHODS, spreads=tuple(SPREADS)))
    assert len({run.name for run in plan}) == len(plan) == 3 * 2 * (len(METHODS) + 2 * len(COMPARED))
    for run in plan:
        settings = run.settings  # which are checked
        assert settings.federated is not None and settings.federated.keep_optimizer
        assert settings.federated.compensation == settings.trainer_options["balanced"] == (run.update == "kcfu")
        assert (settings.federated.partition == "iid") == (run.spread == "iid")
        assert settings.training.epochs * settings.federated.rounds > settings.training.milestones[0] or scale == "tiny"


def test_the_paper_scale_is_the_published_one() -> None:
    run = plan_of(dataclasses.replace(SETUP, scale="paper"))[0]
    s, published = run.settings, run.settings.training
    assert s.federated is not None and (s.federated.rounds, s.federated.fraction, s.federated.alpha) == (50, 0.8, 0.1)
    assert s.federated.all_in_last_round and (s.worker_num, s.initial_size, s.round_size) == (10, 5000, 2500)
    assert (published.epochs, published.batch_size, published.learning_rate, published.momentum) == (40, 128, 0.1, 0.9)
    assert (published.weight_decay, published.decay_all, published.nesterov) == (5e-4, True, False)
    assert (published.schedule, published.milestones, s.networks[0].model) == ("multi_step", [260], "resnet8")
    assert published.precision == "float32"
    assert s.worker_query_num + 1 == 6, "cycles"


def test_claims_are_judged_by_pairs_of_runs() -> None:
    found = verdicts(results(ksas=0.05, kcfu=0.1))
    assert set(found.values()) == {Verdict.HOLDS} and len(found) == 8
    assert "KSAS beats uncertainty, IID clients" in found and "KCFU beats FedAvg, alpha 0.1" in found
    worse = verdicts(results(ksas=-0.05, kcfu=0.1))
    assert worse["KSAS beats random, alpha 0.1"] == worse["KSAS beats uncertainty, alpha 0.1"] == Verdict.FAILS
    assert worse["KCFU beats FedAvg, alpha 0.1"] == Verdict.HOLDS
    assert worse["KSAS gains more over random, under KCFU, the more clients differ"] == Verdict.FAILS
    alone = dataclasses.replace(SETUP, methods=("entropy",), spreads=("iid",))
    assert [claim.text for claim in page.claims_of(alone, results())] == ["KCFU beats FedAvg, IID clients"]


def test_the_page_says_what_holds() -> None:
    found = results(ksas=0.05, kcfu=0.1)
    text = page.page_of(SETUP, found, page.claims_of(SETUP, found), "", "the command", 60.0)
    assert "the command" in text and "**holds**" in text and "{" not in text and "its own model" in text
    assert "No accuracy of the paper could be found" in text
    assert text.count("| logo") == 1, "where clients differ as published alone"
    assert len(page.rows_of(found)) == len(found) * 4
    mixed = [dataclasses.replace(found[0], hardware="another"), *found[1:]]
    assert "a machine." in text and page.MIXED not in text
    assert f"a machine; another.\n\n{page.MIXED}" in page.page_of(SETUP, mixed, [], "", "the command", 60.0)
    figure = page.picture_of(SETUP, found)
    assert [len(axes.lines) for axes in figure.axes] == [4, 3, 4, 3]


def test_all_mistakes_are_reported_at_once(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["kafal", "--alphas", "7", "--methods", "diam", "--seeds", "0", "--jobs", "0"]
    assert reproduce.main([*words, "--out", str(tmp_path / "out")]) == 2
    problems = capsys.readouterr().err.splitlines()
    keys = ("seeds 0", "jobs 0", "methods diam", "alphas 7")
    assert [line.startswith(f"error: --{key}: ") for line, key in zip(problems, keys, strict=True)] == [True] * 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", SCALES)
def test_slow_clients_are_compared_in_rounds_and_without(scale: str) -> None:
    plan = slow_clients.slow_plan(dataclasses.replace(SETUP, scale=scale))
    assert [(run.pace, run.seed) for run in plan[:3]] == [("rounds", 0), ("asynchronous", 0), ("rounds", 1)]
    for run in plan:
        settings = run.settings  # which are checked
        assert settings.federated is not None and settings.costs.client_factors is not None
        assert settings.federated.dropout == 0.1 and (settings.federated.asynchronous is None) == (run.pace == "rounds")
        assert (min(settings.costs.client_factors), max(settings.costs.client_factors)) == (1, 10)
    if scale != "tiny":  # where a round has not twice as many local models as a version without rounds
        models = [_models_between_tests(run.config["federated"], run.config["worker_num"]) for run in plan[:2]]
        assert models == [8, 8], "both are tested after as many trainings"


def _models_between_tests(federated: dict[str, Any], clients: int) -> int:
    of_version = federated.get("asynchronous", {}).get("buffer", round(federated["fraction"] * clients))
    return int(of_version * federated["test_every"])


def test_the_time_to_an_accuracy_is_that_of_the_first_version_that_has_it() -> None:
    run = slow_clients.slow_plan(SETUP)[0]
    figures = {"annotators_waited": 0.25, "labels_per_s": 2.0, "wall_s": 90.0}
    times, accuracies = np.array([10.0, 20.0, 30.0]), np.array([0.2, 0.4, 0.3])
    found = slow_clients.SlowResult(run, times, accuracies, figures)
    assert slow_clients.time_to(0.3, found) == 20.0 and np.isnan(slow_clients.time_to(0.5, found))
    other = slow_clients.SlowResult(slow_clients.slow_plan(SETUP)[1], times / 2, accuracies, figures)
    text = slow_clients.slow_section(SETUP, [found, other])
    assert "time to 32.0 %" in text and "time to 38.0 %" in text
    (row,) = [line for line in text.splitlines() if "without rounds" in line and line.startswith("|")]
    assert "25.0 %" in row and row.count("10 virtual s") == 2
    assert slow_clients.slow_section(SETUP, []) == ""
