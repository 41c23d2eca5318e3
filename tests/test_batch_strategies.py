"""Strategies that look at candidates together choose what scikit-activeml's, or the authors' formulas, choose."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, pdist
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Badge, CoreSet, TypiClust, _badge
from skactiveml.pool._bald import batch_bald

from aal.strategies import clustering, coreset, distances, joint_entropy
from aal.strategies.bald import mutual_information
from aal.strategies.cluster_margin import in_turn
from aal.strategies.distances import tensor_of
from aal.strategies.pool import CandidatePool, Outputs
from aal.strategies.strategy import build_strategy, select_checked
from tests.test_strategies import rng

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
NAMES = ("coreset", "badge", "typiclust", "bald", "batchbald", "cluster_margin", "committee")


class Given:
    """A model whose outputs are given for every id; the ids from `labelled` on are labelled."""

    is_coarse = False

    def __init__(self, embeddings: np.ndarray, probabilities: np.ndarray, passes: np.ndarray | None = None) -> None:
        self.embeddings, self.probabilities, self.passes = embeddings, probabilities, passes

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        return Outputs(self.probabilities[ids], self.probabilities[ids], self.embeddings[ids])

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        assert self.passes is not None
        return self.passes[:passes, ids]

    def votes(self, ids: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def made(
    candidates: int, labelled: int = 0, d: int = 12, classes: int = 4, seed: int = 0, passes: int = 0
) -> tuple[CandidatePool, Given]:
    """Random embeddings around twenty points, and random probabilities."""
    random, number = rng(seed), candidates + labelled
    rows = random.randn(20, d)[random.randint(20, size=number)] * 2 + random.randn(number, d)
    given = Given(
        rows.astype(np.float32),
        random.dirichlet(np.full(classes, 0.3), number).astype(np.float32),
        random.dirichlet(np.full(classes, 0.5), (passes, number)).astype(np.float32) if passes else None,
    )
    known = np.arange(candidates, number), random.randint(classes, size=labelled)
    return CandidatePool(np.arange(candidates), [given], lambda: known), given


def targets(candidates: int, labelled: int) -> np.ndarray:
    """Labels as scikit-activeml reads them: unknown ones are NaN."""
    return np.concatenate([np.full(candidates, np.nan), np.zeros(labelled)])


# ---------------------------------------------------------------------- coreset


@pytest.mark.parametrize("labelled", [1, 150])
def test_coreset_chooses_what_scikit_activeml_does(labelled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, given = made(3000, labelled)
    expected = CoreSet(random_state=0).query(given.embeddings, targets(3000, labelled), batch_size=60)
    assert build_strategy("coreset", {}).select(pool, 60, rng()).tolist() == expected.tolist()
    monkeypatch.setattr(distances, "BLOCK", 500)
    monkeypatch.setattr(coreset, "CACHED_BYTES", 0)
    assert build_strategy("coreset", {}).select(pool, 60, rng()).tolist() == expected.tolist(), "in other blocks"


def test_every_choice_of_coreset_is_the_farthest_one() -> None:
    pool, given = made(4000, 0, d=3, seed=1)
    chosen = build_strategy("coreset", {}).select(pool, 700, rng(5))
    assert chosen[0] == rng(5).randint(4000), "without labels the first one is random"
    rows = given.embeddings.astype(np.float64)
    nearest = cdist(rows, rows[chosen[:1]])[:, 0]
    for one in chosen[1:]:
        assert nearest[one] == pytest.approx(nearest.max(), rel=1e-4)
        nearest = np.minimum(nearest, cdist(rows, rows[[one]])[:, 0])


# ---------------------------------------------------------------------- badge


class Told(SkactivemlClassifier):
    """A classifier whose probabilities are given."""

    def __init__(self, probabilities: np.ndarray | None = None, classes: Any = None) -> None:
        super().__init__(classes=classes)
        self.probabilities = probabilities

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "Told":  # noqa: N803 - scikit-learn's names
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        assert self.probabilities is not None
        return self.probabilities[: len(X)]


def test_badge_draws_what_scikit_activeml_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    distances_of = _badge._d_2

    def from_chosen(gradients: Any, chosen: Any, latest: Any = None) -> Any:
        """As in the authors' code; scikit-activeml's second choice also counts the distance from a gradient of zero."""
        is_second = latest is not None and np.array_equal(latest, (gradients**2).sum(axis=1))
        return distances_of(gradients, chosen, np.full(len(gradients), np.inf) if is_second else latest)

    monkeypatch.setattr(_badge, "_d_2", from_chosen)
    monkeypatch.setattr("skactiveml.base.check_random_state", lambda *_: rng(7))
    pool, given = made(1500, seed=2)
    expected = Badge(random_state=7).query(
        given.embeddings, targets(1500, 0), Told(given.probabilities, [0, 1, 2, 3]), fit_clf=False, batch_size=50
    )
    assert build_strategy("badge", {}).select(pool, 50, rng(7)).tolist() == expected


# ---------------------------------------------------------------------- typiclust


class Clusters:
    """Ours, as scikit-activeml asks for them."""

    def __init__(self, n_clusters: int = 2) -> None:
        self.n_clusters = n_clusters

    def fit_predict(self, rows: np.ndarray) -> np.ndarray:
        return clustering.k_means(tensor_of(rows), self.n_clusters, rng(3)).numpy()


def test_typiclust_takes_from_the_same_clusters_what_scikit_activeml_takes() -> None:
    pool, given = made(2000, 6, seed=3)
    found = TypiClust(cluster_algo=Clusters, random_state=0, k=5).query(
        given.embeddings, targets(2000, 6), batch_size=12
    )
    strategy = build_strategy("typiclust", {"neighbours": 5, "smallest_cluster": 0})
    assert strategy.select(pool, 12, rng(3)).tolist() == found.tolist()


def authors_typiclust(rows: np.ndarray, clusters: np.ndarray, candidates: int, count: int) -> list[int]:
    """The loop of the authors' code (TypiClust/deep-al), with their constants 5 and 20."""
    sizes, labels = np.bincount(clusters), clusters.copy()
    existing = np.bincount(clusters[candidates:], minlength=len(sizes))
    order = [place for place in np.lexsort((-sizes, existing)) if sizes[place] > 5]
    labels[candidates:] = -1
    chosen: list[int] = []
    for number in range(count):
        indices = np.flatnonzero(labels == order[number % len(order)])
        near = np.sort(cdist(rows[indices], rows[indices]), axis=1)[:, 1 : min(20, len(indices) // 2) + 1]
        chosen.append(int(indices[np.argmax(1 / (near.mean(axis=1) + 1e-5))]))
        labels[chosen[-1]] = -1
    return chosen


def test_typiclust_is_the_authors_loop() -> None:
    pool, given = made(1500, 10, seed=4)
    rows = given.embeddings
    clusters = clustering.k_means(tensor_of(rows), 25, rng(9)).numpy()
    chosen = build_strategy("typiclust", {"most_clusters": 25}).select(pool, 60, rng(9))
    assert chosen.tolist() == authors_typiclust(rows, clusters, 1500, 60), "more are chosen than there are clusters"


def test_k_means_finds_clusters_that_lie_apart() -> None:
    random = rng(0)
    truth = random.randint(30, size=4000)
    rows = random.randn(30, 8)[truth] * 20 + random.randn(4000, 8)
    found = clustering.k_means(tensor_of(rows), 60, rng(1)).numpy()
    assert all(len(set(truth[found == one])) <= 1 for one in range(60))


# ---------------------------------------------------------------------- bald and batchbald


def test_bald_is_that_of_scikit_activeml() -> None:
    pool, given = made(500, passes=10)
    assert given.passes is not None
    expected = batch_bald(given.passes.astype(np.float64).copy(), 1)[0]
    np.testing.assert_allclose(mutual_information(given.passes), expected, atol=1e-5)
    chosen = build_strategy("bald", {"passes": 10}).select(pool, 30, rng())
    assert np.sort(expected[chosen]) == pytest.approx(np.sort(expected)[-30:], abs=1e-5)


def test_batchbald_chooses_what_scikit_activeml_does_while_all_labels_count() -> None:
    pool, given = made(400, classes=3, passes=8)
    assert given.passes is not None
    utilities = batch_bald(given.passes.astype(np.float64).copy(), 7, n_MC_samples=3**6)
    expected = np.nanargmax(utilities, axis=1)
    strategy = build_strategy("batchbald", {"passes": 8, "samples": 3**6})
    assert strategy.select(pool, 7, rng()).tolist() == expected.tolist()


def test_drawn_labels_stand_for_all_of_them() -> None:
    _, given = made(300, classes=3, passes=8)
    assert given.passes is not None
    probabilities = torch.from_numpy(given.passes)
    exact, drawn = joint_entropy.Joint(8, 3**7, rng()), joint_entropy.Joint(8, 80_000, rng())
    drawn._is_drawn, drawn._logs = True, torch.zeros(80_000, 8)
    for one in range(7):
        exact.add(probabilities[:, one])
        drawn.add(probabilities[:, one])
    first, second = (
        joint_entropy.expected_entropy(joint.posterior, joint.weights, probabilities) for joint in (exact, drawn)
    )
    np.testing.assert_allclose(first, second, atol=0.005)


def test_labels_are_drawn_of_all_that_is_chosen_once_there_are_too_many() -> None:
    _, given = made(40, classes=3, passes=8)
    assert given.passes is not None
    probabilities = torch.from_numpy(given.passes)
    exact, drawn = joint_entropy.Joint(8, 3**11, rng()), joint_entropy.Joint(8, 80_000, rng())
    for one in range(11):
        exact.add(probabilities[:, one])
        drawn.add(probabilities[:, one])
    assert len(exact.posterior) == 3**11 and len(drawn.posterior) == 80_000
    first, second = (
        joint_entropy.expected_entropy(joint.posterior, joint.weights, probabilities[:, 20:])
        for joint in (exact, drawn)
    )
    np.testing.assert_allclose(first, second, atol=0.01)


def test_the_best_candidate_is_found_without_looking_at_all() -> None:
    _, given = made(2000, classes=5, passes=12, seed=6)
    assert given.passes is not None
    probabilities = torch.from_numpy(given.passes)
    joint = joint_entropy.Joint(12, 600, rng())
    for one in range(10):
        joint.add(probabilities[:, one])
    own = torch.special.entr(probabilities).sum(dim=2).mean(dim=0)
    own[:10] = torch.inf
    gains = joint_entropy.expected_entropy(joint.posterior, joint.weights, probabilities) - own
    assert joint_entropy.largest_gain(joint, probabilities, own) == int(gains.argmax())


# ---------------------------------------------------------------------- cluster_margin


def test_average_linkage_makes_the_clusters_of_scipy() -> None:
    _, given = made(700, seed=8)
    expected = fcluster(linkage(pdist(given.embeddings.astype(np.float64)), "average"), 70, "maxclust")
    found = clustering.average_linkage(tensor_of(given.embeddings), 70)
    assert len(set(zip(found, expected, strict=True))) == len(set(found)) == len(set(expected)) == 70


def test_more_rows_than_are_held_at_once_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "LARGEST", 50)
    _, given = made(301, seed=9)
    for number in (1, 30, 301):
        found = clustering.average_linkage(tensor_of(given.embeddings), number)
        assert len(set(found)) == max(number, 8) == found.max() + 1, "each part has a cluster"


def test_clusters_take_turns_the_smallest_first() -> None:
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 2, 3, 3])
    for count in range(1, 11):
        expected = [turn for turn in (1, 3, 2, 0, 3, 2, 0, 2, 0, 0)][:count]  # the paper's algorithm 3, by hand
        chosen = in_turn(labels, count, rng(count))
        assert labels[chosen].tolist() == expected and len(set(chosen)) == count
    assert {int(in_turn(labels, 4, rng(seed))[3]) for seed in range(40)} == {0, 1, 2, 3}, "at random within a cluster"


def test_cluster_margin_takes_the_smallest_margins_from_every_cluster() -> None:
    pool, given = made(900, seed=10)
    top = np.sort(given.probabilities, axis=1)
    near = np.argsort(top[:, -1] - top[:, -2])[:200]
    clusters = fcluster(linkage(pdist(given.embeddings[near].astype(np.float64)), "average"), 40, "maxclust")
    chosen = build_strategy("cluster_margin", {"cluster_size": 5}).select(pool, 20, rng())
    assert set(chosen) <= set(near)
    assert len({clusters[near == one][0] for one in chosen}) == 20


# ---------------------------------------------------------------------- what can go wrong with any


def odd(kind: str) -> CandidatePool:
    """A pool of thirty candidates that is odd in some way."""
    pool, given = made(30, 0 if kind == "nothing labelled" else 5, passes=20, classes=1 if kind == "one class" else 4)
    assert given.passes is not None
    if kind == "equal":
        given.embeddings[:], given.probabilities[:], given.passes[:] = 1, 0.25, 0.25
    if kind == "broken":
        given.embeddings[:20], given.probabilities[:20], given.passes[:, :20] = np.nan, np.nan, np.nan
    if kind == "certain":
        given.probabilities[:] = np.eye(4)[0]
        given.passes[:] = np.eye(4)[0]
    if kind == "read only":
        given.embeddings.flags.writeable = False
    return pool


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["usual", "one class", "nothing labelled", "equal", "broken", "certain", "read only"])
def test_an_odd_pool_is_chosen_from(name: str, kind: str) -> None:
    options = {"most_clusters": 3} if name == "typiclust" else {}  # so that a batch is larger than a cluster
    for count in (1, 29, 30, 99):
        first, second = (
            select_checked(build_strategy(name, options), name, odd(kind), count, rng(1)).tolist() for _ in range(2)
        )
        assert len(set(first)) == min(count, 30) and first == second, "the seed decides"


@pytest.mark.parametrize("name", ["cluster_margin", "bald", "batchbald", "badge", "coreset", "typiclust"])
def test_a_candidate_of_a_broken_network_ranks_below_all_others(name: str) -> None:
    for seed in range(5):
        chosen = select_checked(build_strategy(name, {}), name, odd("broken"), 10, rng(seed))
        assert set(chosen) == set(range(20, 30))


@pytest.mark.parametrize("name", ["coreset", "typiclust"])
def test_a_common_offset_of_all_embeddings_changes_nothing(name: str) -> None:
    pool, given = made(600, labelled=20)
    given.embeddings = np.round(given.embeddings * 64) / 64  # so that the sum below is exact
    near = build_strategy(name, {}).select(pool, 30, rng())
    given.embeddings = given.embeddings + np.float32(4096)
    far = build_strategy(name, {}).select(CandidatePool(pool.ids, [given], pool._labelled), 30, rng())
    assert len(set(near)) == 30 and far.tolist() == near.tolist()


def test_typiclust_takes_from_small_clusters_before_a_large_one_is_used_up() -> None:
    rows = np.concatenate([rng().randn(40, 2), 100 + 50 * np.arange(20)[:, None] + 0.1 * rng(1).randn(20, 2)])
    given = Given(rows.astype(np.float32), np.full((60, 2), 0.5, np.float32))
    pool = CandidatePool(np.arange(60), [given], lambda: (np.empty(0, np.int64), np.empty(0, np.int64)))
    chosen = build_strategy("typiclust", {"most_clusters": 21}).select(pool, 50, rng())
    assert set(range(40, 60)) <= set(chosen.tolist()), (
        "before the large one gives its last image, each small one gives its own"
    )
