"""What a client chooses by its own model and the server's: KSAS, LoGo, and the others by either or both."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aal.config.errors import UserError
from aal.config.registry import STRATEGIES
from aal.strategies import clustering
from aal.strategies.ensemble import ChosenBy, Ensemble, models_of
from aal.strategies.ksas import specialised_divergence
from aal.strategies.logo import uncertain_of_each
from aal.strategies.pool import CandidatePool, Outputs
from aal.strategies.strategy import ScoreStrategy, build_strategy, select_checked
from tests.test_strategies import rng

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
NUMBERS = st.floats(-8, 8, width=32)


class Given:
    """A model whose logits and embeddings are given; notes the precision of each pass."""

    def __init__(self, logits: np.ndarray, is_coarse: bool = False) -> None:
        self.logits, self.is_coarse = logits.astype(np.float32), is_coarse
        powers = np.exp(self.logits)
        self.probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        self.passes: list[str] = []

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        self.passes.append(precision)
        return Outputs(self.logits[ids], self.probabilities[ids], self.logits[ids] if with_embeddings else None)

    def votes(self, ids: np.ndarray) -> np.ndarray:
        return self.logits[ids].argmax(axis=1)[None]

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        return np.repeat(self.probabilities[None, ids], passes, axis=0)


def drawn(number: int, classes: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randn(number, classes).astype(np.float32) * 3


def pool_of(*models: Any, number: int = 30) -> CandidatePool:
    """So many candidates, four labels of class 0, one of class 1, two of class 2."""
    labels = np.repeat(np.arange(3), (4, 1, 2))
    return CandidatePool(np.arange(number), models, lambda: (np.arange(len(labels)), labels))


def plain_divergence(local: list[float], server: list[float], counts: list[int]) -> float:
    """The formula term by term, with the absent classes left out."""
    own = [n * math.exp(s) for n, s in zip(counts, local, strict=True)]
    other = [n * math.exp(t) for n, t in zip(counts, server, strict=True)]
    p, q = [value / sum(own) for value in own], [value / sum(other) for value in other]
    forward = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True) if a > 0 and b > 0)
    backward = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0 and b > 0)
    return (forward + backward) / 2


@settings(max_examples=40)
@given(data=st.data(), classes=st.integers(1, 6))
def test_the_divergence_is_the_published_one(data: st.DataObject, classes: int) -> None:
    rows = st.lists(NUMBERS, min_size=classes, max_size=classes)
    counts = data.draw(st.lists(st.integers(0, 500), min_size=classes, max_size=classes).filter(any))
    local, server = data.draw(rows), data.draw(rows)
    rows_of = np.array([local], np.float32), np.array([server], np.float32)
    found = specialised_divergence(rows_of[0], rows_of[1], np.array(counts))
    assert found[0] == pytest.approx(plain_divergence(local, server, counts), rel=1e-6, abs=1e-9)
    back = specialised_divergence(rows_of[1], rows_of[0], np.array(counts))
    assert found[0] == pytest.approx(back[0], rel=1e-9, abs=1e-12) and found[0] >= 0


def test_classes_without_labels_have_no_say() -> None:
    local, server, counts = drawn(5, 4, 0), drawn(5, 4, 1), np.array([3, 0, 5, 0])
    found = specialised_divergence(local, server, counts)
    other = local.copy()
    other[:, [1, 3]] = 100.0
    np.testing.assert_array_equal(specialised_divergence(other, server, counts), found)
    assert (specialised_divergence(local, server, np.array([0, 7, 0, 0])) == 0).all(), "one class is always right"
    assert (specialised_divergence(local, server, np.zeros(4, int)) == 0).all()
    twice = specialised_divergence(local, server, 2 * counts)
    np.testing.assert_allclose(twice, found)


def test_ksas_takes_the_largest_divergences_in_float32() -> None:
    local, server = Given(drawn(30, 3, 0), is_coarse=True), Given(drawn(30, 3, 1), is_coarse=True)
    strategy = build_strategy("ksas", {})
    assert isinstance(strategy, ScoreStrategy)
    chosen = select_checked(strategy, "ksas", pool_of(local, server), 6, rng())
    wanted = [
        plain_divergence(a.tolist(), b.tolist(), [4, 1, 2]) for a, b in zip(local.logits, server.logits, strict=True)
    ]
    assert set(chosen) == set(np.argsort(wanted)[-6:])
    assert local.passes == server.passes == ["float32"]


@pytest.mark.parametrize("name", ["ksas", "logo"])
def test_those_that_compare_say_what_they_need(name: str) -> None:
    assert STRATEGIES.facts(name)["local_and_global"]
    with pytest.raises(
        UserError, match=f"^query_strategy: {name} compares a client's model with the server's; it needs"
    ):
        select_checked(build_strategy(name, {}), name, pool_of(Given(drawn(30, 3, 0))), 2, rng())


# ---------------------------------------------------------------------- LoGo


def published_micro_step(clusters: list[int], entropies: list[float]) -> set[int]:
    """The first loop of the authors' code: of each cluster the largest entropy by the global model."""
    chosen = set()
    for cluster in set(clusters):
        members = [position for position, own in enumerate(clusters) if own == cluster]
        chosen.add(max(members, key=lambda position: entropies[position]))
    return chosen


@settings(max_examples=40)
@given(data=st.data(), number=st.integers(1, 30))
def test_one_of_each_cluster_is_chosen_before_a_second(data: st.DataObject, number: int) -> None:
    clusters = data.draw(st.lists(st.integers(0, 5), min_size=number, max_size=number))
    entropies = data.draw(st.permutations([float(value) for value in range(number)]))
    different = len(set(clusters))
    found = uncertain_of_each(np.array(clusters), np.array(entropies), different)
    assert set(found.tolist()) == published_micro_step(clusters, entropies)
    count = data.draw(st.integers(1, number))
    more = uncertain_of_each(np.array(clusters), np.array(entropies), count)
    assert len(set(more.tolist())) == count
    taken = np.bincount(np.array(clusters)[more], minlength=6)
    sizes = np.bincount(clusters, minlength=6)
    assert all(taken[c] >= min(sizes[c], taken.max() - 1) for c in range(6)), "no cluster is passed over"
    for cluster in range(6):
        own = sorted((entropies[p] for p in range(number) if clusters[p] == cluster), reverse=True)
        assert sorted((entropies[p] for p in more if clusters[p] == cluster), reverse=True) == own[: taken[cluster]]


def test_logo_clusters_by_the_clients_model_and_asks_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    local, server = Given(drawn(40, 3, 0)), Given(drawn(40, 3, 1))
    seen = []

    def kept(rows: torch.Tensor, number: int, rng: np.random.RandomState) -> torch.Tensor:
        seen.append((rows.numpy().copy(), number))
        return torch.arange(40) % number

    monkeypatch.setattr(clustering, "k_means", kept)
    chosen = select_checked(build_strategy("logo", {}), "logo", pool_of(local, server, number=40), 5, rng())
    gradients = local.logits * (1 - local.probabilities.max(axis=1, keepdims=True))
    np.testing.assert_allclose(seen[0][0], gradients, rtol=1e-6)
    entropies = -(server.probabilities * np.log(server.probabilities)).sum(axis=1)
    assert seen[0][1] == 5 and set(chosen) == published_micro_step((np.arange(40) % 5).tolist(), entropies.tolist())


def test_logo_takes_as_many_as_wanted_where_images_are_equal() -> None:
    same = Given(np.ones((20, 3), np.float32))
    assert len(select_checked(build_strategy("logo", {}), "logo", pool_of(same, same, number=20), 7, rng())) == 7


# ---------------------------------------------------------------------- which model chooses


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence", "coreset", "badge", "random"])
def test_any_strategy_chooses_by_the_local_the_global_model_or_both(name: str) -> None:
    models = Given(drawn(30, 3, 0)), Given(drawn(30, 3, 1))

    def chosen(*of: Any) -> list[int]:
        return select_checked(build_strategy(name, {}), name, pool_of(*of), 5, rng(3)).tolist()

    ways: list[ChosenBy] = ["local", "global", "both"]
    by = {way: chosen(*models_of(models, way, compares_both=False)) for way in ways}
    assert by["local"] == chosen(models[0]) and by["global"] == chosen(models[1])
    if name != "random":
        assert len({tuple(sorted(found)) for found in by.values()}) == 3
    assert models_of(models, "local", compares_both=True) == models


def test_only_the_model_that_chooses_scores() -> None:
    local, server = Given(drawn(30, 3, 0)), Given(drawn(30, 3, 1))
    select_checked(
        build_strategy("entropy", {}), "entropy", pool_of(*models_of((local, server), "global", False)), 5, rng()
    )
    assert local.passes == [] and server.passes == ["auto"]


def test_both_are_the_mean_of_probabilities_and_embeddings_side_by_side() -> None:
    local, server = Given(drawn(6, 3, 0)), Given(drawn(6, 3, 1), is_coarse=True)
    both, ids = Ensemble([local, server]), np.array([4, 1])
    found = both.outputs(ids, "auto", with_embeddings=True)
    mean = (local.probabilities[ids] + server.probabilities[ids]) / 2
    np.testing.assert_allclose(found.probabilities, mean, rtol=1e-6)
    np.testing.assert_allclose(np.exp(found.logits), mean, rtol=1e-5)
    assert found.embeddings is not None
    np.testing.assert_array_equal(found.embeddings, np.hstack([local.logits[ids], server.logits[ids]]))
    assert both.outputs(ids, "auto", with_embeddings=False).embeddings is None and both.is_coarse
    assert both.monte_carlo_probabilities(ids, 2, 0).shape == (2, 2, 3)
    assert both.votes(ids).tolist() == [local.votes(ids)[0].tolist(), server.votes(ids)[0].tolist()]
    alone = Ensemble([local]).outputs(ids, "auto", with_embeddings=True)
    np.testing.assert_allclose(alone.probabilities, local.probabilities[ids])
