"""Scores against hand-made numbers, the choice of the best, and what a strategy sees of a pool."""

import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from aal.config.errors import UserError
from aal.config.registry import STRATEGIES
from aal.coordination.messages import ModelRef, SelectionGrant
from aal.storage.model_files import load_model, model_payload, save_model
from aal.strategies.assignment import RA_CHOICE, assign
from aal.strategies.pool import CandidatePool, Outputs
from aal.strategies.strategy import ScoreStrategy, build_strategy, select_checked, top_k
from aal.training import scorer as scorer_module
from aal.training.cost import selection_cost
from aal.training.images import ImageBank
from aal.training.inference import predict
from aal.training.networks import Architecture
from aal.training.scorer import ModelScorer
from tests.test_hub import make_settings

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
P = np.array([[0.5, 0.5, 0.0], [0.9, 0.05, 0.05], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]], np.float32)
CPU = torch.device("cpu")
PLAIN = {"mean": [0.5], "std": [0.25]}


class Fixed:
    """A model whose outputs are given; notes each pass."""

    def __init__(self, probabilities: np.ndarray, is_coarse: bool = False) -> None:
        self.probabilities, self.is_coarse = probabilities, is_coarse
        self.passes: list[tuple[int, str, bool]] = []

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        self.passes.append((len(ids), precision, with_embeddings))
        found = self.probabilities[ids]
        return Outputs(np.log(found + 1e-9), found, 10 * found if with_embeddings else None)

    def votes(self, ids: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        self.passes.append((len(ids), f"{passes} by {seed}", False))
        return np.repeat(self.probabilities[None, ids], passes, axis=0)


def labelled() -> tuple[np.ndarray, np.ndarray]:
    return np.array([0, 2]), np.array([1, 1])


def pool_of(probabilities: np.ndarray = P, **words: Any) -> CandidatePool:
    return CandidatePool(np.arange(len(probabilities)), [Fixed(probabilities)], labelled, **words)


def score(name: str, probabilities: np.ndarray = P) -> np.ndarray:
    strategy = build_strategy(name, {})
    assert isinstance(strategy, ScoreStrategy)
    return strategy.score(pool_of(probabilities))


def rng(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


# ---------------------------------------------------------------------- the built-in strategies


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
        chosen = top_k(score(name, broken), 2, rng())
        assert len(set(chosen)) == 2
        half = np.concatenate([broken, P[:, [0, 1, 2, 2]]])
        assert set(top_k(score(name, half), 4, rng())) == {3, 4, 5, 6}, "a broken row ranks below all others"


def test_top_k_takes_the_largest_and_breaks_ties_by_the_seed() -> None:
    scores = np.array([1.0, 3.0, 2.0, 2.0, 2.0, 0.0])
    for seed in range(20):
        chosen = top_k(scores, 3, rng(seed))
        assert 1 in chosen and set(chosen) <= {1, 2, 3, 4} and len(set(chosen)) == 3
    assert {tuple(top_k(scores, 3, rng(seed))) for seed in range(40)} == {(1, 2, 3), (1, 2, 4), (1, 3, 4)}
    assert (top_k(scores, 3, rng(5)) == top_k(scores, 3, rng(5))).all()
    assert top_k(scores, 10, rng()).tolist() == list(range(6))


def test_random_is_uniform_and_asks_nothing_of_the_model() -> None:
    counts, strategy, pool = np.zeros(10), build_strategy("random", {}), pool_of(np.ones((10, 1)))
    for seed in range(2000):
        counts[strategy.select(pool, 3, rng(seed))] += 1
    assert abs(counts - 600).max() < 110  # five deviations
    assert pool._models[0].passes == []  # type: ignore[attr-defined]


def test_names_of_the_published_readme() -> None:
    for alias, name in (
        *(("UncertaintyEntropy", "entropy"), ("Uncertainty", "least_confidence")),
        *(("UncertaintyMargin", "margin"), ("Random", "random")),
    ):
        assert STRATEGIES.canonical(alias) == name
    assert {"entropy", "least_confidence", "margin", "random"} < STRATEGIES.entries.keys()


def test_assignment() -> None:
    fixed = make_settings(assignment_type="DA", query_strategy="margin")
    assert assign(fixed, 3) == ["margin"] * 3
    drawn = assign(make_settings(seed=1), 300)
    assert drawn == assign(make_settings(seed=1), 300)
    assert all(70 < drawn.count(name) < 130 for name in RA_CHOICE)
    assert assign(make_settings(seed=0), 4) == ["margin", "margin", "margin", "least_confidence"]


@pytest.mark.parametrize(("name", "scored"), [("random", 0), ("entropy", 50), ("mine:Own", 50)])
def test_only_strategies_that_score_cost_scoring(name: str, scored: int) -> None:
    grant = SelectionGrant(2, 10, (ModelRef(0, "", 0),))
    assert selection_cost(1, grant, name, 50).scored == scored


# ---------------------------------------------------------------------- the pool


def test_a_pool_computes_once_and_only_when_asked() -> None:
    model = Fixed(P)
    pool = CandidatePool(np.array([3, 1]), [model], labelled)
    assert (len(pool), pool.ids.tolist(), pool.is_coarse, model.passes) == (2, [3, 1], False, [])
    assert pool.probabilities.tolist() == P[[3, 1]].tolist()
    assert pool.embeddings.tolist() == (10 * P[[3, 1]]).tolist()
    assert pool.logits.shape == (2, 3)
    assert model.passes == [(2, "auto", True)], "logits and embeddings are of one pass"
    part = pool.subset(np.array([1]))
    assert part.ids.tolist() == [1] and part.probabilities.tolist() == P[[1]].tolist()
    assert model.passes == [(2, "auto", True)]
    assert pool.subset(np.array([0]), precision="float32").probabilities.tolist() == P[[3]].tolist()
    assert model.passes[1:] == [(1, "float32", True)]


def test_embeddings_that_were_not_kept_are_computed_when_asked_for() -> None:
    pool = pool_of(keep_embeddings=False)
    model: Any = pool._models[0]
    assert pool.probabilities.shape == (4, 3) and model.passes == [(4, "auto", False)]
    assert pool.embeddings.shape == (4, 3) and model.passes[1:] == [(4, "auto", True)]


def test_a_pool_knows_what_is_labelled_and_asks_for_it_once() -> None:
    asked = []

    def known() -> tuple[np.ndarray, np.ndarray]:
        asked.append(1)
        return labelled()

    pool = CandidatePool(np.array([1, 3]), [Fixed(P), Fixed(P[::-1])], known, seed=5)
    assert not asked
    assert pool.labelled_ids.tolist() == [0, 2] and pool.labels.tolist() == [1, 1]
    assert pool.class_counts().tolist() == [0, 2, 0]
    assert pool.labelled_embeddings.tolist() == (10 * P[[0, 2]]).tolist()
    assert pool.subset(np.array([0])).labels.tolist() == [1, 1] and len(asked) == 1
    assert pool.model_count == 2 and pool.probabilities_of(1).tolist() == P[[2, 0]].tolist()
    assert pool.monte_carlo_probabilities(4).shape == (4, 2, 3)
    pool.monte_carlo_probabilities(2, seed=9)
    model: Any = pool._models[0]
    assert [one[1] for one in model.passes if "by" in one[1]] == ["4 by 5", "2 by 9"]


class Returning:
    """A strategy that returns what it was given."""

    def __init__(self, chosen: Any) -> None:
        self.chosen = chosen

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        return self.chosen


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ([0, 0], "returned a position more than once"),
        ([0, 4], "returned a position outside 0 to 3"),
        ([0, -1], "returned a position outside 0 to 3"),
        ([0, 1, 2], "returned 3 positions where 2 were asked for"),
        ([0.5], "must return a list of whole numbers, not float64"),
        ([[0], [1]], "must return a list of whole numbers, not int64 of shape"),
        ([0], "returned 1 positions where 2 were asked for"),
        ([], "returned 0 positions where 2 were asked for"),
    ],
)
def test_what_is_no_selection_is_reported_with_the_strategy(chosen: Any, text: str) -> None:
    with pytest.raises(UserError) as caught:
        select_checked(Returning(chosen), "mine:Own", pool_of(), 2, rng())
    (line,) = caught.value.problems
    assert line.startswith("query_strategy: mine:Own: select ") and text in line


def test_what_is_a_selection_is_taken() -> None:
    assert select_checked(Returning([3, 1]), "x", pool_of(), 2, rng()).tolist() == [3, 1]
    assert select_checked(Returning(np.array([2, 0], np.int32)), "x", pool_of(), 2, rng()).dtype == np.int64


# ---------------------------------------------------------------------- a pool over a real model


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, ImageBank, pathlib.Path]:
    """A network with dropout, images, and its file."""
    path = tmp_path_factory.mktemp("pool") / "m.pt"
    architecture = Architecture("vgg16", 10, 1, 32, {"width": 0.1})
    network = architecture.build(0)
    payload = model_payload(
        make_settings(), state_dict=network.state_dict(), architecture=architecture.as_dict(), normalisation=PLAIN,
        class_names=[str(number) for number in range(10)], images="", labels=1, epoch=1,
    )  # fmt: skip
    save_model(path, payload)
    images = np.random.RandomState(0).randint(0, 256, (400, 32, 32, 1)).astype(np.uint8)
    return network, ImageBank(images, CPU), path


def test_outputs_are_those_of_the_network(scored: tuple[Any, ImageBank, pathlib.Path]) -> None:
    network, bank, path = scored
    ids = np.arange(5, 305)  # more than one batch
    found = ModelScorer(path, bank).outputs(ids, "float32", True)
    logits = predict(network, bank, ids, normalisation=PLAIN)
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, torch.softmax(logits, 1), atol=1e-5)
    assert found.embeddings is not None and found.embeddings.shape == (300, network.head.in_features)
    with torch.no_grad():
        np.testing.assert_allclose(network.head(torch.from_numpy(found.embeddings)), logits, atol=1e-5)
    assert ModelScorer(path, bank).outputs(ids, "float32", False).embeddings is None


def test_monte_carlo_passes_differ_and_repeat_themselves(scored: tuple[Any, ImageBank, pathlib.Path]) -> None:
    _, bank, path = scored
    scorer, ids = ModelScorer(path, bank), np.arange(20)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first = scorer.monte_carlo_probabilities(ids, 3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (3, 20, 10) and first.dtype == np.float32
    np.testing.assert_allclose(first.sum(axis=2), 1, rtol=1e-4)
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first, scorer.monte_carlo_probabilities(ids, 3, seed=1))
    again = scorer.outputs(ids, "float32", False).logits
    assert np.array_equal(again, scorer.outputs(ids, "float32", False).logits), "dropout is off again"


def test_a_seed_draws_the_same_networks_for_a_part_of_a_pool(
    scored: tuple[Any, ImageBank, pathlib.Path],
) -> None:
    _, bank, path = scored
    pool = CandidatePool(np.arange(60), [ModelScorer(path, bank)], labelled, seed=3)
    whole = pool.monte_carlo_probabilities(3)
    part = pool.subset(np.arange(20, 40)).monte_carlo_probabilities(3)
    np.testing.assert_allclose(part, whole[:, 20:40], atol=0.02)  # bf16 may round otherwise in another batch
    assert abs(whole[0] - whole[1]).max() > 0.02


def test_each_device_and_place_keeps_its_model(
    scored: tuple[Any, ImageBank, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bank, path = scored
    other = ImageBank(np.zeros((4, 32, 32, 1), np.uint8), torch.device("cpu", 0))  # for PyTorch another device
    read: list[pathlib.Path] = []

    def noted(file: pathlib.Path) -> dict[str, Any]:
        read.append(file)
        return load_model(file)

    monkeypatch.setattr(scorer_module, "load_model", noted)
    scorer_module._loaded.clear()
    for _ in range(3):
        for scorer in (ModelScorer(path, bank), ModelScorer(path, other), ModelScorer(path, bank, slot=1)):
            scorer.outputs(np.arange(2), "float32", False)
    assert len(read) == 3
    path.touch()
    ModelScorer(path, bank).outputs(np.arange(2), "float32", False)
    assert len(read) == 4, "a file that was replaced is read anew"


def test_a_network_without_dropout_or_linear_layer_is_told_apart(tmp_path: pathlib.Path) -> None:
    architecture = Architecture("cnn", 3, 1, 8, {"width": 0.1})
    payload = model_payload(
        make_settings(), state_dict=architecture.build(0).state_dict(), architecture=architecture.as_dict(),
        normalisation=PLAIN, class_names=["a", "b", "c"], images="", labels=1, epoch=1,
    )  # fmt: skip
    save_model(tmp_path / "m.pt", payload)
    scorer = ModelScorer(tmp_path / "m.pt", ImageBank(np.zeros((4, 8, 8, 1), np.uint8), CPU))
    with pytest.raises(UserError, match="Monte-Carlo passes need a network with dropout"):
        scorer.monte_carlo_probabilities(np.arange(2), 2, 0)


class Scoring(ScoreStrategy):
    """Gives what it was made with as scores."""

    def __init__(self, scores: Any) -> None:
        self._scores = scores

    def score(self, pool: CandidatePool) -> np.ndarray:
        return self._scores


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((4, 2)), np.array(["a", "b", "c", "d"]), None])
def test_scores_that_are_not_one_number_a_candidate_are_reported(scores: Any) -> None:
    with pytest.raises(UserError) as caught:
        select_checked(Scoring(scores), "mine:Own", pool_of(), 2, rng())
    (line,) = caught.value.problems
    assert line.startswith("query_strategy: mine:Own: ") and "score must return 4 numbers" in line
