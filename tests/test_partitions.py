"""Partitions of a federation: every image is one client's, every client has some, from the random numbers alone."""

import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from aal.app.data.partitions import divide_among
from aal.config.errors import UserError
from aal.config.registry import PARTITIONS
from aal.coordination.partition import Partition
from aal.reporting import plots
from aal.reporting.client_plots import clients as picture
from aal.reporting.pictures import draw, images_of_clients
from aal.reporting.record import read
from aal.reporting.words import split_words
from tests.builders import CONFIG, make_run

pytestmark = pytest.mark.unit
# The published split, alpha0-1_cifar10_10clients.json of the authors' repository: images of each client and class.
PUBLISHED = np.array(
    [
        *([417, 135, 0, 0, 0, 116, 0, 3752, 548, 53], [0, 384, 19, 0, 276, 0, 2797, 0, 0, 1080]),
        *([123, 0, 298, 0, 2748, 5, 1834, 0, 0, 0], [283, 0, 0, 104, 1093, 242, 0, 8, 2301, 983]),
        *([0, 17, 2458, 365, 0, 1, 0, 574, 2150, 0], [0, 0, 1532, 0, 0, 4294, 0, 0, 0, 0]),
        *([4015, 344, 262, 0, 150, 91, 315, 0, 0, 0], [0, 0, 0, 4530, 6, 2, 0, 648, 0, 0]),
        *([148, 4119, 0, 0, 0, 248, 7, 0, 0, 0], [14, 1, 431, 1, 727, 1, 47, 18, 1, 2884]),
    ]
)


def owners(name: str, labels: np.ndarray, clients: int, seed: int = 0, **options: Any) -> np.ndarray:
    return divide_among(clients, labels, np.random.RandomState(seed), name, options)


def table(found: np.ndarray, labels: np.ndarray, clients: int) -> np.ndarray:
    """Images of each client and class."""
    counts = np.zeros((clients, labels.max() + 1), int)
    np.add.at(counts, (found, labels), 1)
    return counts


def distance(counts: np.ndarray) -> float:
    """How far the classes of a client are from those of all, in the mean: the total variation distance, from 0 to 1."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.abs(shares - counts.sum(axis=0) / counts.sum()).sum(axis=1).mean() / 2)


@settings(max_examples=80)
@given(
    data=st.data(),
    name=st.sampled_from(["iid", "dirichlet", "labels", "quantity"]),
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_client_has_images_and_every_image_a_client(
    data: st.DataObject, name: str, sizes: list[int], seed: int
) -> None:
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    clients, options = data.draw(st.integers(1, len(labels))), dict[str, Any]()
    present = len(set(labels.tolist()))
    if name in ("dirichlet", "quantity"):
        options["alpha"] = data.draw(st.sampled_from([1e-6, 0.01, 0.1, 1.0, 1e6]))
    if name == "labels":
        options["classes_per_client"] = data.draw(st.integers(-(-present // clients), present))
    found = owners(name, labels, clients, seed, **options)
    assert found.shape == labels.shape and found.dtype == np.int64
    assert set(found.tolist()) == set(range(clients))
    np.random.seed(1)  # which is not where the random numbers come from
    assert np.array_equal(found, owners(name, labels, clients, seed, **options))


def test_the_seed_matters() -> None:
    labels = np.arange(300) % 10
    for name in PARTITIONS.entries:
        assert not np.array_equal(owners(name, labels, 5, seed=0), owners(name, labels, 5, seed=1)), name


def test_the_published_split_is_one_of_those_that_dirichlet_gives() -> None:
    labels = np.arange(50_000) % 10
    drawn = [table(owners("dirichlet", labels, 10, seed), labels, 10) for seed in range(40)]
    assert PUBLISHED.sum() == 50_000 and (PUBLISHED.sum(axis=0) == 5000).all()
    for measure in (distance, lambda counts: np.std(counts.sum(axis=1)), lambda counts: (counts > 0).sum()):
        found = [measure(one) for one in drawn]
        assert min(found) < measure(PUBLISHED) < max(found), found
    assert all((one.sum(axis=0) == 5000).all() for one in drawn)


def test_alpha_says_how_much_clients_differ() -> None:
    labels = np.repeat(np.arange(10), np.arange(200, 1200, 100))  # a class with six times as many as another
    found = [
        np.mean([distance(table(owners("dirichlet", labels, 8, seed, alpha=a), labels, 8)) for seed in range(10)])
        for a in (0.01, 0.1, 1.0, 1e6)
    ]
    assert found == sorted(found, reverse=True) and found[0] > 0.6 and found[-1] < 0.01


@pytest.mark.parametrize("relative_std", [0.0, 0.5])
def test_sizes_of_dirichlet_differ_as_asked(relative_std: float) -> None:
    labels = np.arange(20_000) % 20
    sizes = np.bincount(owners("dirichlet", labels, 40, alpha=1.0, relative_std=relative_std))
    assert np.log(sizes).std() == pytest.approx(relative_std, abs=0.1)


@pytest.mark.parametrize(("clients", "classes"), [(10, 2), (5, 2), (7, 3), (100, 2), (2, 10)])
def test_by_label_each_client_has_so_many_classes(clients: int, classes: int) -> None:
    labels = np.random.RandomState(0).permutation(np.arange(5000) % 10)
    counts = table(owners("labels", labels, clients, classes_per_client=classes), labels, clients)
    assert ((counts > 0).sum(axis=1) == classes).all()
    holders = (counts > 0).sum(axis=0)
    assert holders.min() >= 1 and holders.max() - holders.min() <= 1
    for column in counts.T:
        assert column[column > 0].max() - column[column > 0].min() <= 1, "who has a class has as much of it as another"


def test_by_label_some_cannot_be_divided() -> None:
    labels = np.arange(100) % 10
    with pytest.raises(
        UserError, match=r"^federated: 2 classes for each of 3 clients leave some of the 10 classes to nob"
    ):
        owners("labels", labels, 3, classes_per_client=2)
    with pytest.raises(UserError, match=r"^federated: classes_per_client 11 is more than the 10 classes$"):
        owners("labels", labels, 3, classes_per_client=11)


def test_by_quantity_clients_differ_in_size_alone() -> None:
    labels = np.arange(20_000) % 4
    counts = table(owners("quantity", labels, 10, alpha=0.5), labels, 10)
    large = counts[counts.sum(axis=1) > 400]
    assert distance(large) < 0.05 and counts.sum(axis=1).max() > 5 * np.median(counts.sum(axis=1))
    even = np.bincount(owners("quantity", labels, 10, alpha=1e6))
    assert even.max() - even.min() < 0.02 * 2000


def test_iid_clients_are_alike() -> None:
    labels = np.arange(20_001) % 4
    counts = table(owners("iid", labels, 10), labels, 10)
    assert distance(counts) < 0.05 and np.ptp(counts.sum(axis=1)) == 1


def test_a_partition_of_ones_own_is_checked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownpartition.py").write_text(
        "def last(labels, clients, random, missing: int = 0):\n    return 0 * labels + clients - 1 + missing\n"
        "def none():\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    assert np.bincount(owners("ownpartition:last", np.zeros(10, int), 3)).tolist() == [1, 1, 8]
    with pytest.raises(
        UserError, match=r"^federated\.partition: ownpartition:last: must return 10 numbers from 0 to 2$"
    ):
        owners("ownpartition:last", np.zeros(10, int), 3, missing=1)
    with pytest.raises(UserError, match=r"^federated\.partition: ownpartition:none: TypeError: none\(\) takes 0 "):
        owners("ownpartition:none", np.zeros(10, int), 3)
    with pytest.raises(UserError, match=r"^federated\.alpha: no such option; there are: missing$"):
        owners("ownpartition:last", np.zeros(10, int), 3, alpha=1)
    with pytest.raises(UserError, match=r"^federated\.partition: must be iid, dirichlet, labels, quantity or package"):
        owners("dirichelt", np.zeros(10, int), 3)


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (10, 10), (100, 10), (30, 120)])
def test_any_federation_draws(tmp_path: pathlib.Path, clients: int, classes: int) -> None:
    labels = np.arange(4000) % classes
    images = table(owners("dirichlet", labels, clients), labels, clients)
    figure = picture(images, images // 3, [f"class {number}" for number in range(classes)])
    plots.save(figure, tmp_path / "clients")
    bars, circles = figure.axes
    heights = [bar.get_height() for bar in bars.patches if isinstance(bar, Rectangle)]
    assert sum(heights[:clients]) == 4000 and sum(heights[clients:]) == (images // 3).sum()
    has, labelled = circles.collections
    drawn = [len(np.asarray(one.get_offsets())) for one in (has, labelled)]
    assert drawn == [(images > 0).sum(), (images >= 3).sum()]


def test_a_report_draws_the_clients_of_its_record(tmp_path: pathlib.Path) -> None:
    owned = [(0, "initial", 0, 1), (1, "shard", 0, 1), (2, "shard", 0, 0), (3, "shard", 1, 1), (4, "test", None, 0)]
    tables: dict[str, Any] = {"examples": owned, "answers": [(0, 3, 0, 0, 1.0)], "meta": [("classes", '["a", "b"]')]}
    record = read(make_run(tmp_path / "run", {**CONFIG, "mode": "federated"}, **tables))
    images, labelled = images_of_clients(record)
    assert images.tolist() == [[1, 2], [0, 1]] and labelled.tolist() == [[0, 1], [0, 1]]
    assert "clients" in draw(record)
    assert "clients" not in draw(read(make_run(tmp_path / "other", CONFIG, **tables)))


def test_a_client_of_next_to_no_images_is_seen_at_the_start() -> None:
    none, pixels = np.empty(0, np.int64), np.zeros(1, np.float32)
    shards = [np.arange(2, 3), np.arange(3, 2003)]
    begun = Partition(none, none, np.array([0, 1]), shards, pixels, pixels, initial_owner=np.array([1, 1]))
    assert split_words(begun) == ["images of a client: 1 to 2,002 (federated.partition)"]
    assert not split_words(Partition(none, none, np.array([0, 1]), shards, pixels, pixels))
