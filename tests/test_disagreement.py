"""Strategies for several targets: votes of snapshots, scaled uncertainties; the votes of a training; the networks."""

import math
import pathlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aal.app.models import build_model
from aal.app.server_train import fit
from aal.config.errors import UserError
from aal.strategies.disagreement import disagreement, vote_entropy
from aal.strategies.pool import CandidatePool
from aal.strategies.strategy import ScoreStrategy, build_strategy, select_checked
from aal.training.images import ImageBank
from aal.training.inference import predict
from aal.training.mobile_networks import MEMBERS, mobilenet_v3, multiply_adds
from aal.training.outputs import Outputs
from aal.training.trainer import TrainingTask
from tests.builders import make_settings

pytestmark = pytest.mark.unit
DOCS = pathlib.Path(__file__).parent.parent / "docs"


class Voters:
    """A model of given probabilities whose snapshots gave given votes."""

    def __init__(self, votes: np.ndarray, probabilities: np.ndarray | None = None, is_coarse: bool = False) -> None:
        self.given, self.probabilities, self.is_coarse = votes, probabilities, is_coarse

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        assert self.probabilities is not None
        found = self.probabilities[ids]
        if self.is_coarse and precision == "auto":
            found = np.round(found, 1)
        return Outputs(found, found, found if with_embeddings else None)

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        raise NotImplementedError

    def votes(self, ids: np.ndarray) -> np.ndarray:
        return self.given[:, ids]


def pool_of(*models: Voters, size: int) -> CandidatePool:
    return CandidatePool(np.arange(size), models, lambda: (np.array([], int), np.array([], int)))


def drawn_votes(seed: int, targets: int, size: int, snapshots: int = 5) -> list[np.ndarray]:
    """Votes (snapshots, size) of each target: a class with a few deviations, on many images none."""
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(targets):
        votes = np.repeat(rng.randint(4, size=size)[None], snapshots, axis=0)
        stray = rng.rand(snapshots, size) < rng.choice([0, 0.3], size)
        found.append(np.where(stray, rng.randint(4, size=votes.shape), votes).astype(np.uint8))
    return found


def published_order(votes: list[np.ndarray]) -> list[tuple[int, float]]:
    """(c, h) of each image, written as the paper has them."""
    keys = []
    for image in range(votes[0].shape[1]):
        columns = [one[:, image].tolist() for one in votes]
        c = sum(len(set(column)) > 1 for column in columns)
        shares = [count / len(column) for column in columns for count in Counter(column).values()]
        keys.append((c, -sum(share * math.log(share) for share in shares)))
    return keys


@settings(max_examples=30)
@given(seed=st.integers(0, 2**16), targets=st.integers(1, 5), size=st.integers(1, 60), count=st.integers(1, 20))
def test_diam_chooses_at_random_from_the_top_by_joint_disagreement_and_vote_entropy(
    seed: int, targets: int, size: int, count: int
) -> None:
    votes, count = drawn_votes(seed, targets, size), min(count, size)
    pool, keys = pool_of(*map(Voters, votes), size=size), published_order(votes)
    ranked = sorted(((c, round(h, 9)) for c, h in keys), reverse=True)

    chosen = select_checked(build_strategy("diam", {"shortlist": 1}), "diam", pool, count, np.random.RandomState(0))
    assert sorted(((keys[i][0], round(keys[i][1], 9)) for i in chosen), reverse=True) == ranked[:count]

    chosen = select_checked(build_strategy("diam", {}), "diam", pool, count, np.random.RandomState(0))
    worst = ranked[min(5 * count, size) - 1]
    assert all((keys[i][0], round(keys[i][1], 9)) >= worst for i in chosen)
    again = select_checked(build_strategy("diam", {}), "diam", pool, count, np.random.RandomState(0))
    assert np.array_equal(chosen, again)


def test_a_committee_of_snapshots_takes_the_largest_vote_entropies() -> None:
    votes = drawn_votes(5, 2, 60)
    expected = np.array([h for _, h in published_order(votes)])
    chosen = build_strategy("snapshot_committee", {}).select(
        pool_of(*map(Voters, votes), size=60), 12, np.random.RandomState(0)
    )
    assert np.sort(expected[chosen]) == pytest.approx(np.sort(expected)[-12:])


def test_vote_entropy_counts_each_class_once() -> None:
    votes = np.array([[0, 1, 2], [0, 1, 1], [0, 1, 1], [0, 0, 0]], np.uint8)
    quarter, half = -0.25 * math.log(0.25), -0.5 * math.log(0.5)
    assert vote_entropy(votes) == pytest.approx([0, quarter - 0.75 * math.log(0.75), 2 * quarter + half])
    assert disagreement(votes).tolist() == [False, True, True]


def test_cal_takes_from_the_union_of_the_regions_and_then_at_random() -> None:
    votes = [np.zeros((3, 10), np.uint8), np.zeros((3, 10), np.uint8)]
    votes[0][1, 2], votes[1][2, 7] = 1, 1
    pool = pool_of(*map(Voters, votes), size=10)
    firsts = {build_strategy("cal", {}).select(pool, 1, np.random.RandomState(seed))[0] for seed in range(30)}
    assert firsts == {2, 7}
    chosen = build_strategy("cal", {}).select(pool, 4, np.random.RandomState(0)).tolist()
    assert set(chosen) >= {2, 7} and len(set(chosen)) == 4


@pytest.mark.parametrize("name", ["entropy", "least_confidence", "margin"])
@pytest.mark.parametrize("is_coarse", [False, True])
def test_uncertainty_of_several_targets_is_the_mean_of_scores_scaled_over_the_pool(name: str, is_coarse: bool) -> None:
    rng = np.random.RandomState(1)
    outputs = [rng.dirichlet(np.full(3, share), 200).astype(np.float32) for share in (0.3, 5.0)]
    no_votes = np.zeros((1, 200), np.uint8)
    strategy = build_strategy(name, {})
    assert isinstance(strategy, ScoreStrategy)
    scaled = []
    for probabilities in outputs:
        one = strategy.score(pool_of(Voters(no_votes, probabilities), size=200))
        scaled.append((one - one.min()) / (one.max() - one.min()))
    expected = np.mean(scaled, axis=0)
    pool = pool_of(*(Voters(no_votes, probabilities, is_coarse) for probabilities in outputs), size=200)
    assert np.allclose(strategy.score(pool), expected, atol=1e-6)
    assert expected.std() > 0.1, "scaled the wrong way round all would be 0"
    chosen = strategy.select(pool, 20, np.random.RandomState(0))
    assert set(chosen) == set(np.argsort(-expected)[:20])


def test_uncertainty_ranks_what_is_broken_last_and_bears_equal_scores() -> None:
    even = np.full((4, 2), 0.5, np.float32)
    broken = np.array([[0.9, 0.1], [np.nan, np.nan], [0.5, 0.5], [0.6, 0.4]], np.float32)
    pool = pool_of(*(Voters(np.zeros((1, 4), np.uint8), one) for one in (even, broken)), size=4)
    assert build_strategy("margin", {}).select(pool, 1, np.random.RandomState(0)).tolist() == [2]
    assert 1 not in build_strategy("margin", {}).select(pool, 3, np.random.RandomState(0))


def test_diam_qp_prefers_disagreement_and_avoids_neighbours() -> None:
    pytest.importorskip("osqp", reason="diam_qp needs OSQP")
    from aal.strategies.quadratic import choose, neighbour_kernel

    rng = np.random.RandomState(0)
    centres = np.repeat(np.arange(10) * 100.0, 20)[:, None]
    kernel = neighbour_kernel([centres + rng.rand(200, 3), centres + rng.rand(200, 2)])
    assert np.linalg.eigvalsh(kernel).min() > -1e-8 and np.allclose(kernel, kernel.T)
    assert set(choose(kernel, np.where(np.arange(200) < 20, 50.0, 0.0), 10) // 20) == {0}
    alike = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert sorted(choose(alike, np.array([1.0, 0.9, 0.8]), 2)) == [0, 2], "1 is worth more than 2, but is as 0"
    votes = drawn_votes(0, 2, 200)
    pool = pool_of(*(Voters(one, rng.rand(200, 3).astype(np.float32)) for one in votes), size=200)
    found = select_checked(build_strategy("diam_qp", {}), "diam_qp", pool, 15, np.random.RandomState(0))
    assert all(published_order(votes)[i][0] > 0 for i in found)


# ---------------------------------------------------------------------- votes of a training


def task_of(images: np.ndarray, epochs: int, snapshots: int) -> TrainingTask:
    training = make_settings(training={"epochs": epochs, "validate_after": 0, "batch_size": 16, "crop_padding": 0})
    return TrainingTask(
        bank=ImageBank(images, torch.device("cpu")),
        ids=np.arange(32),
        labels=np.arange(32) % 3,
        training=training.training,
        normalisation={"mean": [0.5], "std": [0.3]},
        seed=3,
        candidates=np.arange(40, 100),
        snapshots=snapshots,
    )


def test_the_last_epochs_vote_as_shorter_trainings_would() -> None:
    images = np.random.RandomState(0).randint(256, size=(100, 8, 8, 1)).astype(np.uint8)

    def trained(snapshots: int) -> tuple[torch.nn.Module, torch.Tensor | None]:
        model = build_model("cnn", classes=3, channels=1, image_size=8, seed=0, width=0.25)
        return model, fit(model, task_of(images, 4, snapshots)).votes

    model, votes = trained(2)
    assert votes is not None and votes.shape == (2, 60) and votes.dtype == torch.uint8
    task = task_of(images, 4, 0)
    last = predict(model, task.bank, np.arange(40, 100), normalisation=task.normalisation).argmax(1)
    assert torch.equal(votes[-1], last.to(torch.uint8)), "without validation the last epoch is the one that is kept"
    without, none = trained(0)
    assert none is None
    weights = zip(model.state_dict().values(), without.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights), "to vote changes nothing of the training"


# ---------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", ["l", "small_a"])
@pytest.mark.parametrize("side", [8, 28])
def test_a_member_takes_small_images_and_repeats_itself(name: str, side: int) -> None:
    network = build_model(f"mobilenet_v3:{name}", classes=5, channels=1, image_size=side, seed=0)
    again = build_model(f"mobilenet_v3:{name}", classes=5, channels=1, image_size=side, seed=0)
    images = torch.rand(2, 1, side, side)
    assert network.eval()(images).shape == (2, 5)
    assert torch.equal(network(images), again.eval()(images))


def test_members_are_twelve_of_descending_cost_as_the_table_says() -> None:
    table = (DOCS / "diam.md").read_text()
    for names, channels, side in (("abcdefghijkl", 3, 32), ([f"small_{one}" for one in "abcdefghijkl"], 1, 28)):
        costs = []
        for name in names:
            with torch.device("meta"):  # no number is computed
                network = mobilenet_v3(10, channels, side, MEMBERS[name])
                costs.append(multiply_adds(network, channels, side))
            parameters = sum(weight.numel() for weight in network.parameters())
            assert f"| {name} | {parameters:,} | {costs[-1]:,} |" in table
        assert costs == sorted(costs, reverse=True)


def test_options_change_a_member() -> None:
    words = {"classes": 10, "channels": 1, "image_size": 28, "seed": 0}
    deeper = build_model("mobilenet_v3:small_l", **words, depths=[2, 2])
    plain = build_model("mobilenet_v3:small_l", **words)
    count = [sum(weight.numel() for weight in network.parameters()) for network in (plain, deeper)]
    assert count[1] > count[0]
    with pytest.raises(UserError, match=r"kernels.*must be 3, 5 or 7"):
        build_model("mobilenet_v3:small_l", **words, kernels=[4, 3])
    with pytest.raises(UserError, match="1 kernels, 2 expansions, 2 depths"):
        build_model("mobilenet_v3:small_l", **words, kernels=[3])
    with pytest.raises(UserError, match="mobilenet_v3:z: must be one of a, b"):
        build_model("mobilenet_v3:z", **words)
