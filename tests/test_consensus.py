"""Labels of several answers, and agreement, against published examples and other libraries' figures."""

import numpy as np
import pytest

from aal.aggregation.agreement import cohen_kappa, krippendorff_alpha, pairs
from aal.aggregation.dawid_skene import DawidSkene, dawid_skene
from aal.aggregation.majority import Majority

pytestmark = pytest.mark.unit
# Of DawidSkene(n_iter=10, tol=-1e9) of crowd-kit 1.4.2, for the answers of `answers()`.
LABELS = "011122200011122200011122200011122200011122200011122200011122"
LIKELY = [0.743792, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.986441, 1.0]
PRIOR = [0.316307, 0.34833, 0.335363]
ERRORS_OF_2 = [[0.716219, 0.07665, 0.061527], [0.216941, 0.735521, 0.236888], [0.06684, 0.187829, 0.701586]]


def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items, annotators and labels of 60 images, four of five people each, made of small integers alone."""
    rows = []
    for image in range(60):
        truth = (image * image + image // 3) % 3
        for person in range(5):
            if (image + person) % 5 < 4:
                is_wrong = (7 * image + 5 * person + image * person) % 11 < (1, 2, 3, 5, 2)[person]
                rows.append((image, person, (truth + 1 + (image + person) % 2) % 3 if is_wrong else truth))
    items, people, labels = np.array(rows).T
    return items, people, labels


def test_dawid_skene_finds_what_crowd_kit_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aal.aggregation.dawid_skene.ITERATIONS", 10)
    monkeypatch.setattr("aal.aggregation.dawid_skene.TOLERANCE", -1e9)
    posterior, prior, errors = dawid_skene(*answers(), classes=3)
    assert "".join(map(str, posterior.argmax(axis=1))) == LABELS
    assert posterior.max(axis=1)[: len(LIKELY)] == pytest.approx(LIKELY, abs=1e-5)
    assert prior == pytest.approx(PRIOR, abs=1e-5)
    assert errors[2] == pytest.approx(np.array(ERRORS_OF_2), abs=1e-5)


def test_who_is_often_wrong_counts_less() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    rates = (0.1, 0.1, 0.1, 0.95, 0.95, 0.95, 0.95)
    rows = [
        (image, person, truth[image] if rng.random() > rate else rng.integers(0, 4))
        for image in range(300)
        for person, rate in enumerate(rates)
    ]
    items, people, labels = np.array(rows).T
    found = DawidSkene(4).fit(items, people, labels)
    assert found is not None
    votes = [Majority(4).decide([], labels[items == image].tolist())[0] for image in range(300)]
    assert (found[1] == truth).mean() > (np.array(votes) == truth).mean() + 0.01


def test_before_there_is_anything_to_learn_from_everybody_counts_the_same() -> None:
    both = (Majority(3), DawidSkene(3))
    for aggregation in both:
        assert aggregation.decide([4, 8, 9], [2, 1, 1])[0] == 1
        assert aggregation.decide([4, 8], [2, 1])[0] == 2, "of equals the first"
        assert aggregation.fit(*np.empty((3, 0), np.int64)) is None
    assert Majority(3).decide([4, 8, 9], [2, 1, 1])[1] == 2 / 3
    assert both[1].decide([4], [2])[1] == pytest.approx(0.8) and both[1].decide([4, 8], [2, 2])[1] > 0.9


def test_what_was_learned_decides_the_next_image() -> None:
    aggregation = DawidSkene(2)
    items = np.repeat(np.arange(40), 3)
    people = np.tile([0, 1, 2], 40)
    truth = np.repeat(np.arange(40) % 2, 3)
    labels = np.where(people == 2, 1 - truth, truth)  # the third is always wrong
    aggregation.fit(items, people, labels)
    assert aggregation.decide([2], [1])[1] < 0.5 or aggregation.decide([2, 0], [1, 0])[0] == 0
    label, confidence = aggregation.decide([0, 2], [0, 1])
    assert label == 0 and confidence > 0.95
    assert aggregation.decide([7, 8], [1, 1])[0] == 1, "of people who were not there"


def test_agreement_is_that_of_published_examples() -> None:
    units = {
        **{0: "111", 1: "2232", 2: "3333", 3: "3333", 4: "2222", 5: "1234", 6: "4444", 7: "1121", 8: "2222", 9: "555"},
        **{10: "11", 11: "3"},
    }
    items = np.array([unit for unit, given in units.items() for _ in given])
    labels = np.array([int(label) for given in units.values() for label in given])
    assert krippendorff_alpha(items, labels) == pytest.approx(0.743, abs=0.0005)
    one = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])  # two reviewers of 50 proposals: kappa 0.4
    other = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert cohen_kappa(one, other) == pytest.approx(0.4)
    assert np.isnan(krippendorff_alpha(np.array([1, 2]), np.array([0, 1]))), "nothing to compare"
    assert np.isnan(cohen_kappa(np.zeros(3, int), np.zeros(3, int)))


def test_agreement_is_that_of_other_libraries() -> None:
    items, people, labels = answers()
    assert krippendorff_alpha(items, labels) == pytest.approx(0.42104529373834554)  # krippendorff 0.9.0
    found = {(pair.first, pair.second): pair for pair in pairs(items, people, labels)}
    assert found[0, 1].kappa == pytest.approx(0.5789473684210527) and found[0, 1].images == 36  # scikit-learn 1.9
