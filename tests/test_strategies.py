"""Scores against hand-made numbers, and the choice of the best."""

import numpy as np
import pytest

from aal.strategies import RA_CHOICE, STRATEGIES, assign, choose
from tests.test_hub import make_settings

pytestmark = pytest.mark.unit
P = np.array([[0.5, 0.5, 0.0], [0.9, 0.05, 0.05], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]], np.float32)


def score(name: str, probabilities: np.ndarray = P) -> np.ndarray:
    return STRATEGIES[name].score(len(probabilities), probabilities=probabilities)


def test_entropy_is_the_entropy_of_all_classes() -> None:
    expected = [np.log(2), -(0.9 * np.log(0.9) + 0.1 * np.log(0.05)), 0.0, -(0.4 * np.log(0.4) + 0.6 * np.log(0.3))]
    assert score("entropy") == pytest.approx(expected, abs=1e-6)
    assert np.argmax(score("entropy")) == 3


def test_least_confidence_and_margin() -> None:
    assert score("least_confidence") == pytest.approx([0.5, 0.1, 0.0, 0.6])
    assert score("margin") == pytest.approx([0.0, -0.85, -1.0, -0.1])
    assert np.argmax(score("margin")) == 0
    many = np.full((1, 100), 0.001, np.float32)
    many[0, [7, 93]] = 0.5, 0.4
    assert score("margin", many) == pytest.approx([-0.1])  # the true two largest of 100


def test_one_class_and_broken_outputs_do_not_crash() -> None:
    one = np.ones((2, 1), np.float32)
    broken = np.full((3, 4), np.nan, np.float32)
    for name in RA_CHOICE:
        assert len(score(name, one)) == 2
        chosen = choose(score(name, broken), 2, seed=0)
        assert len(set(chosen)) == 2
        half = np.concatenate([broken, P[:, [0, 1, 2, 2]]])
        assert set(choose(score(name, half), 4, seed=0)) == {3, 4, 5, 6}, "a broken row ranks below all others"


def test_choice_takes_the_largest_and_breaks_ties_by_the_seed() -> None:
    scores = np.array([1.0, 3.0, 2.0, 2.0, 2.0, 0.0])
    for seed in range(20):
        chosen = choose(scores, 3, seed)
        assert 1 in chosen and set(chosen) <= {1, 2, 3, 4} and len(set(chosen)) == 3
    assert {tuple(choose(scores, 3, seed)) for seed in range(40)} == {(1, 2, 3), (1, 2, 4), (1, 3, 4)}
    assert (choose(scores, 3, 5) == choose(scores, 3, 5)).all()
    assert choose(scores, 10, 0).tolist() == list(range(6))


def test_random_is_uniform() -> None:
    counts = np.zeros(10)
    for seed in range(2000):
        counts[choose(STRATEGIES["random"].score(10), 3, seed)] += 1
    assert abs(counts - 600).max() < 110  # five deviations


def test_assignment() -> None:
    fixed = make_settings(assignment_type="DA", query_strategy="margin")
    assert [strategy.name for strategy in assign(fixed, 3)] == ["margin"] * 3
    drawn = [strategy.name for strategy in assign(make_settings(seed=1), 300)]
    assert drawn == [strategy.name for strategy in assign(make_settings(seed=1), 300)]
    assert all(70 < drawn.count(name) < 130 for name in RA_CHOICE)
