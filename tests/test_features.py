"""Features in the place of images or embeddings: what is refused, what computes them, a run that learns on them."""

import io
import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from aal.app import data, eval, main
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.features import with_features
from aal.reporting.progress import Progress
from aal.storage.model_files import load_model
from aal.strategies.pool import CandidatePool
from aal.strategies.strategy import build_strategy
from aal.training.images import ImageBank
from aal.training.scorer import ModelScorer
from tests.builders import query

ROWS = 1797  # of the digits


def settings_for(tmp_path: pathlib.Path, **changes: Any) -> Settings:
    tree = {
        **{"name": "features", "data_type": "digits", "engine": "simulated", "models": "linear"},
        **{"prepared_dir": str(tmp_path / "prepared"), "initial_size": 50, "val_size": 20, "worker_num": 2},
        **{"worker_query_num": 2, "query_batch": 20, "server_train_threshold": 40, "training": {"epochs": 15}},
        **{"costs": {"per_image_trained": 1e-5}, "annotators": {"number": 4}},
        **changes,
    }
    return resolve(tree, "test")


def pixels() -> np.ndarray:
    from sklearn.datasets import load_digits

    return load_digits().data.astype(np.float32)


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "features.npy"
    np.save(path, pixels())
    return path


def run(settings: Settings, out: pathlib.Path) -> pathlib.Path:
    folder, result = main.start(settings, str(out), Progress(io.StringIO()))
    assert result.exit_code == 0, result.cause
    return folder


def with_value(value: float) -> np.ndarray:
    rows = np.zeros((ROWS, 3))
    rows[17, 1] = value
    return rows


@pytest.mark.unit
@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (np.zeros((ROWS - 1, 3)), f"has {ROWS - 1} rows, and digits has {ROWS} images"),
        (np.zeros(ROWS), "must be of shape (images, numbers), not (1797,)"),
        (np.zeros((ROWS, 0)), "must be of shape"),
        (np.zeros((ROWS, 3), np.int64), "must hold float16, float32, float64 of this machine's byte order, not <i8"),
        (np.zeros((ROWS, 3), ">f4"), "byte order, not >f4"),
        (with_value(np.nan), "row 17 holds a number that is NaN, infinite, or whose square is beyond float32"),
        (with_value(-np.inf), "row 17 holds"),
        (with_value(1e300), "row 17 holds"),
        (with_value(1e20), "row 17 holds"),
        (np.array([{}] * 3), "is no .npy file of numbers"),
    ],
)
def test_a_file_that_is_no_features_is_refused(tmp_path: pathlib.Path, rows: np.ndarray, problem: str) -> None:
    np.save(tmp_path / "bad.npy", rows, allow_pickle=True)
    with pytest.raises(UserError) as caught:
        data.open_features(tmp_path / "bad.npy", ROWS, "digits")
    assert problem in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.unit
def test_what_is_no_npy_file_is_refused(tmp_path: pathlib.Path) -> None:
    text, archive = tmp_path / "text.npy", tmp_path / "archive.npz"
    text.write_text("1,2,3")
    np.savez(archive, a=np.zeros(3))
    for path, problem in ((text, "no .npy"), (archive, "no .npy"), (tmp_path, "no file"), (tmp_path / "x", "no such")):
        with pytest.raises(UserError, match=problem):
            data.open_features(path, 3, "digits")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "models: linear learns on features"),
        ({"features": "f.npy", "models": ["linear", "cnn"]}, "models: cnn learns on images"),
        ({"models": "cnn", "embeddings_from": "features"}, "embeddings_from: features needs features"),
        ({"models": "cnn", "initial_strategy": "coreset"}, "initial_strategy: coreset needs features"),
        ({"features": "resnet18"}, "features: resnet18 comes without weights"),
        ({"features": "f.npy", "compute": "none", "examples": 99}, "features: are of real images"),
    ],
)
def test_settings_without_what_they_need_are_refused(
    tmp_path: pathlib.Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError) as caught:
        settings_for(tmp_path, **changes)
    assert [f"test: {problem}" in one for one in caught.value.problems] == [True]


@pytest.mark.unit
def test_a_pool_gives_features_as_embeddings_and_asks_no_model() -> None:
    rows = np.random.RandomState(0).rand(9, 4).astype(np.float16)
    labelled = np.array([1, 2]), np.array([0, 1])
    pool = CandidatePool(np.array([3, 8, 0]), [], lambda: labelled, features=rows)
    assert pool.embeddings.dtype == np.float32
    np.testing.assert_array_equal(pool.embeddings, rows[[3, 8, 0]])
    np.testing.assert_array_equal(pool.labelled_embeddings, rows[[1, 2]])
    np.testing.assert_array_equal(pool.subset(np.array([2])).embeddings, rows[[0]])
    chosen = build_strategy("coreset", {}).select(pool, 2, np.random.RandomState(0))
    assert len(set(chosen.tolist())) == 2


def test_linear_learns_on_features_and_looks_at_no_image(
    tmp_path: pathlib.Path, file: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(tmp_path, features=str(file))
    images = np.load(data.prepare(settings) / "images.npy", mmap_mode="r+")
    images[:] = 0  # a run that looked at them could learn nothing
    out = run(settings, tmp_path / "run")
    (last, accuracy), *_ = query(out, "SELECT path, test_accuracy FROM models ORDER BY version DESC")
    assert accuracy > 0.8
    assert load_model(out / last)["architecture"]["channels"] == 64
    assert eval.main(["--path", str(out / last), "--data_type", "digits", "--device", "cpu"]) == 0
    assert f"{accuracy:.4f}" in capsys.readouterr().out
    np.save(file, 2 * pixels())
    with pytest.raises(UserError, match="no longer those that the run began with"):
        main.resume(out, ["worker_query_num=3"], Progress(io.StringIO()))


def test_a_model_file_computes_features_once(tmp_path: pathlib.Path) -> None:
    changes = {"models": "cnn", "width": 0.25, "server_train_num": 1, "training": {"epochs": 1}}
    out = run(settings_for(tmp_path, **changes), tmp_path / "run")
    model = next((out / "models").glob("*.pt"))
    settings = settings_for(tmp_path, features=str(model), models="cnn")
    images = data.open_set(data.prepare(settings))
    features = with_features(settings, images).features
    assert features is not None and features.path.parent == images.folder
    made = features.path.stat().st_mtime_ns
    scorer = ModelScorer(model, ImageBank(images.images, torch.device("cpu")))
    embeddings = scorer.outputs(np.arange(40), "float32", True).embeddings
    assert embeddings is not None
    np.testing.assert_allclose(features.rows[:40], embeddings, rtol=1e-4, atol=1e-5)
    again = with_features(settings, images).features
    assert again is not None and again.path.stat().st_mtime_ns == made and again.digest == features.digest
    other = {"data_type": "torchvision:FakeData", "data_options": {"size": 20, "image_size": [3, 16, 16]}}
    resized = data.open_set(data.prepare(settings_for(tmp_path, models="cnn", **other)))
    with pytest.raises(UserError, match="takes images of 8 pixels a side and 1 channels, and these have 16 and 3"):
        with_features(settings, resized)


@pytest.mark.unit
def test_clusters_and_statistics_are_those_of_features(tmp_path: pathlib.Path, file: pathlib.Path) -> None:
    settings = settings_for(tmp_path, features=str(file), split_strategy="DS")
    images = with_features(settings, data.open_set(data.prepare(settings)))
    assert images.images.shape == (ROWS, 1, 1, 64) and images.images.dtype == np.float32
    parts = data.split(images, settings, 2)
    learned = np.sort(np.concatenate([parts.initial, *parts.shards]))
    np.testing.assert_allclose(parts.mean, pixels()[learned].mean(axis=0), rtol=1e-4)
    assert (parts.std > 0).all() and min(map(len, parts.shards)) > 0
    centres = [pixels()[shard].mean(axis=0) for shard in parts.shards]
    own, other = (np.linalg.norm(pixels()[parts.shards[0]] - centre, axis=1) for centre in centres)
    assert (own < other).mean() > 0.95
