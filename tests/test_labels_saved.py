"""`reproduce.py strategies`: the plan, how savings are measured, the page, and mistakes in its words."""

import dataclasses
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aal.app import reproduce
from aal.app.experiments.aal_2021.statistics import Verdict
from aal.app.experiments.labels_saved import page, savings
from aal.app.experiments.labels_saved.plans import FOLDER, METHODS, MODES, NEEDS_FEATURES, SETTINGS, Run, Setup, plan_of
from aal.app.experiments.labels_saved.savings import Result

pytestmark = pytest.mark.unit
SETUP = Setup(("frozen", "balanced"), ("random", "margin"), MODES, 3, "data/downloads", {"frozen": "f.npy"})
LABELS = np.array([100.0, 200.0, 300.0, 400.0])
SLOW, FAST = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.4, 0.5, 0.6])


def result(run: Run, accuracy: np.ndarray) -> Result:
    noise = 0.001 * np.random.RandomState(run.seed).normal(size=4)
    summary = {"annotator_wait_s": {"mean": 0.1}, "labels_per_s": 2.0, "staleness": {"mean": 0.5}, "wall_s": 36.0}
    return Result(run, LABELS, accuracy + noise, summary, {"hardware": "a machine", "version_python": "3.11"})


def results() -> list[Result]:
    return [result(run, FAST if run.method == "margin" else SLOW) for run in plan_of(SETUP)]


def test_every_run_of_the_plan_is_right() -> None:
    features = dict.fromkeys(NEEDS_FEATURES, "f.npy")
    plan = plan_of(dataclasses.replace(SETUP, settings=tuple(SETTINGS), methods=METHODS, features=features))
    assert len({run.name for run in plan}) == len(plan) == len(SETTINGS) * len(METHODS) * 2 * 3
    for run in plan:
        settings = run.settings  # which are checked
        assert settings.budget % settings.server_train_threshold == 0, run.name
        assert settings.server_train_threshold % settings.round_size == 0, run.name
        assert (settings.features is not None) == run.setting.startswith("frozen")
        assert (settings.imbalance is not None) == run.setting.endswith("long-tailed")


@given(accuracy=st.lists(st.floats(0, 1), min_size=2, max_size=12), target=st.floats(0, 1))
def test_the_share_is_where_the_rising_curve_passes_the_target(accuracy: list[float], target: float) -> None:
    labels = np.arange(1.0, len(accuracy) + 1)
    curve = savings.rising(np.array(accuracy))
    assert (np.diff(curve) >= -1e-12).all() and np.isclose(curve.mean(), np.mean(accuracy))
    share = savings.share_needed(labels, np.array(accuracy), target)
    assert (share is None) == (curve[-1] < target)
    if share is not None:
        assert 0 < share <= 1
        reached = np.interp(share * labels[-1], labels, curve)
        assert reached >= target - 1e-9 and (curve[labels < share * labels[-1] - 1e-9] <= target + 1e-9).all()


def test_savings_are_relative_to_random_of_the_same_seed() -> None:
    found = savings.savings_of(SETUP, results(), "frozen", "async")
    assert found["random"].needed.mean == pytest.approx(1.0, abs=0.01) and found["random"].reached == 3
    assert found["margin"].needed.mean == pytest.approx(0.5, abs=0.01) and found["margin"].final > 0.59
    slower = [result(one.run, SLOW - 0.1 * (one.run.method == "margin")) for one in results()]
    assert savings.savings_of(SETUP, slower, "frozen", "async")["margin"].reached == 0


def test_the_page_says_what_holds() -> None:
    found = results()
    claims = page.claims_of(SETUP, found)
    assert [claim.verdict for claim in claims[2:]] == [Verdict.HOLDS] * 2  # fewer labels than random
    text = page.page_of(SETUP, found, claims, "the command", 60.0, (FOLDER / "page.md").read_text(encoding="utf-8"))
    assert "the command" in text and "| margin" in text and "3 of 3" in text and "{" not in text
    assert len(page.rows_of(found)) == len(found) * len(LABELS)
    assert len(page.picture_of(SETUP, found).axes) == 4


def test_all_mistakes_are_reported_at_once(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["strategies", "--settings", "frozen", "odd", "--methods", "bald", "--seeds", "0", "--jobs", "0"]
    words += ["--features", "long-tailed=f.npy"]
    assert reproduce.main([*words, "--out", str(tmp_path / "out")]) == 2
    problems = capsys.readouterr().err.splitlines()
    keys = ("settings odd", "methods bald", "seeds 0", "jobs 0", "features long-tailed", "features")
    assert [line.startswith(f"error: --{key}: ") for line, key in zip(problems, keys, strict=True)] == [True] * 6
    assert not (tmp_path / "out").exists()
