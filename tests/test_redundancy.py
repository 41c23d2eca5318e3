"""What others have chosen: how a batch is measured against it, and how strategies stay away from it."""

import io
import pathlib

import numpy as np
import pytest

from aal.app import main
from aal.config.loading import resolve
from aal.coordination.query_pool import QueryPool
from aal.reporting.progress import Progress
from aal.strategies.pool import CandidatePool
from aal.strategies.redundancy import redundancy_of
from aal.strategies.strategy import build_strategy
from aal.training.outputs import Outputs
from tests.builders import query

RANDOM = np.random.RandomState
NOTHING = np.empty(0, np.int64)


class Confident:
    """A model of two classes that finds all images alike; embeddings are their features."""

    is_coarse = False

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        probabilities = np.full((len(ids), 2), 0.5, np.float32)
        return Outputs(probabilities, probabilities, self.rows[ids])

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        raise NotImplementedError

    def votes(self, ids: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@pytest.mark.unit
def test_the_measure_is_the_mean_cosine_to_the_nearest_neighbour() -> None:
    random = RANDOM(0)
    batch, waiting = random.normal(size=(1100, 3)), random.normal(size=(7, 3))
    own, others = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (batch, waiting))
    within = own @ own.T
    np.fill_diagonal(within, -2)
    found = redundancy_of(batch.astype(np.float32), waiting.astype(np.float32))
    assert found.waiting == 7 and found.within is not None and found.against is not None
    np.testing.assert_allclose(found.within, within.max(axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(found.against, (own @ others.T).max(axis=1).mean(), rtol=1e-5)


@pytest.mark.unit
def test_one_alone_and_an_empty_pool_have_no_measure() -> None:
    one, none = np.zeros((1, 3), np.float32), np.zeros((0, 3), np.float32)
    found = redundancy_of(one, none)
    assert (found.waiting, found.within, found.against) == (0, None, None)
    assert redundancy_of(none, one).against is None


@pytest.mark.unit
@pytest.mark.parametrize("name", ["coreset", "typiclust", "badge"])
def test_what_is_chosen_already_is_not_chosen_again(name: str) -> None:
    """Of eight far clusters others have chosen in six; both of a batch go to the other two."""
    labels = np.repeat(np.arange(8), 20)
    rows = (50 * np.eye(8)[labels] + RANDOM(1).normal(size=(160, 8))).astype(np.float32)
    waiting = np.arange(0, 120, 20)
    free = np.setdiff1d(np.arange(160), waiting)

    def chosen_by(seed: int, others: np.ndarray | None) -> list[int]:
        pool = CandidatePool(free, [Confident(rows)], lambda: (NOTHING, NOTHING), waiting=others)
        return sorted(labels[free[build_strategy(name, {}).select(pool, 2, RANDOM(seed))]])

    assert all(chosen_by(seed, waiting) == [6, 7] for seed in range(5))
    assert any(chosen_by(seed, None) != [6, 7] for seed in range(5))


@pytest.mark.unit
def test_what_a_batch_replaces_does_not_stay_chosen() -> None:
    queries = QueryPool(10, seed=0)
    queries.offer([1, 2, 3], version=0)
    (leased,) = queries.draw([0], deadline=1.0)
    queries.offer([4], version=1)
    assert sorted(queries.unanswered()) == [1, 2, 3, 4]
    assert sorted(queries.unanswered(version=1)) == sorted([leased, 4])


@pytest.mark.parametrize("count_waiting", [False, True])
def test_a_run_tells_how_redundant_its_batches_are(tmp_path: pathlib.Path, count_waiting: bool) -> None:
    np.save(tmp_path / "f.npy", RANDOM(0).normal(size=(1797, 5)))
    tree = {
        **{"data_type": "digits", "engine": "simulated", "models": "linear", "features": str(tmp_path / "f.npy")},
        **{"initial_size": 20, "val_size": 10, "worker_num": 3, "worker_query_num": 3, "query_batch": 10},
        **{"server_train_threshold": 30, "assignment_type": "DA", "query_strategy": "coreset"},
        **{"max_staleness": None, "count_waiting": count_waiting, "training": {"epochs": 1}},
        **{"prepared_dir": str(tmp_path / "prepared"), "annotators": {"seconds_per_label": 9.0}},
    }
    out, result = main.start(resolve(tree, "test"), str(tmp_path / "run"), Progress(io.StringIO()))
    assert result.exit_code == 0, result.cause
    rows = query(out, "SELECT waiting, within, against FROM redundancy JOIN selections USING (worker, batch)")
    assert len(rows) == 9 and rows[0][0] == 0 and rows[0][2] is None
    assert all(-1 <= within <= 1 for _, within, _ in rows) and sum(against is not None for *_, against in rows) >= 5
    page = (out / "report" / "report.md").read_text()
    assert "## Redundancy of the batches" in page and ("counted the latter" in page) == count_waiting


def test_batches_of_a_run_without_features_are_measured_on_embeddings(tmp_path: pathlib.Path) -> None:
    tree = {
        **{"data_type": "digits", "engine": "simulated", "models": "cnn", "query_strategy": "margin"},
        **{"initial_size": 50, "val_size": 10, "worker_num": 2, "worker_query_num": 4, "query_batch": 10},
        **{"server_train_threshold": 40, "assignment_type": "DA", "max_staleness": None, "training": {"epochs": 1}},
        **{"prepared_dir": str(tmp_path / "prepared"), "annotators": {"seconds_per_label": 9.0}},
    }
    out, result = main.start(resolve(tree, "test"), str(tmp_path / "run"), Progress(io.StringIO()))
    assert result.exit_code == 0, result.cause
    rows = query(out, "SELECT waiting, within, against FROM redundancy")
    assert 4 <= len(rows) <= 8 and all(-1 <= within <= 1 + 1e-6 for _, within, _ in rows)
    assert sum(against is not None for *_, against in rows) >= 2
    assert "the embeddings of the model that chose" in (out / "report" / "report.md").read_text()
