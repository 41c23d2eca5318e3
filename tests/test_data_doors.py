"""Image sets from elsewhere: torchvision's, a function of one's own, folders with unlabelled images."""

import gzip
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aal.app import data
from aal.app.data import torchvision_catalogue, torchvision_sets
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def settings_for(data_type: str, data_dir: Path, **changes: Any) -> Settings:
    tree = {"data_type": data_type, "data_dir": str(data_dir), "models": "cnn", "initial_size": 4, "val_size": 2}
    return resolve({**tree, **changes}, "test")


def opened(settings: Settings) -> data.ImageSet:
    return data.open_set(data.prepare(settings))


def error_of(data_type: str, data_dir: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        data.prepare(settings_for(data_type, data_dir, **changes))
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem.removeprefix("test: ")  # found among the settings, or later, when the set is prepared


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder that is the current one; what was imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def own(here: Path, name: str, body: str) -> str:
    """Writes a module with a function `load` and returns its data_type."""
    source = f"import pathlib\nimport numpy as np\nfrom PIL import Image\n\ndef load({body.strip()}\n"
    (here / f"{name}.py").write_text(source)
    return f"{name}:load"


# ---------------------------------------------------------------- a function of one's own


@pytest.mark.unit
def test_the_example_of_the_docs_with_some_labels_unknown(here: Path) -> None:
    shutil.copy(ROOT / "docs" / "examples" / "mydata.py", here)
    settings = settings_for("mydata:load", here, data_options={"digits": [3, 5, 8], "labelled": 100}, worker_num=3)
    images = opened(settings)
    assert images.images.shape[1:] == (8, 8, 1) and images.classes == ("a 3", "a 5", "a 8")
    assert set(images.labels[:100]) == {0, 1, 2} and set(images.labels[100:]) == {-1}
    assert images.paths is None and images.test is None
    parts = data.split(images, settings, 3)
    assert max(parts.test.max(), parts.validation.max(), parts.initial.max()) < 100 and len(parts.test) == 20
    assert np.array_equal(
        np.sort(np.concatenate([parts.test, parts.validation, parts.initial, *parts.shards])),
        np.arange(len(images.labels)),
    )
    unknown = [int((shard >= 100).sum()) for shard in parts.shards]
    assert min(unknown) > 100  # mixed among the shards
    assert data.prepare(settings) == images.folder
    every = opened(settings_for("mydata:load", here))
    assert len(every.labels) == 1797 and every.labels.min() == 0


@pytest.mark.unit
def test_too_few_known_labels_are_reported_with_figures(here: Path) -> None:
    shutil.copy(ROOT / "docs" / "examples" / "mydata.py", here)
    settings = settings_for("mydata:load", here, data_options={"labelled": 6})
    with pytest.raises(UserError, match=r"4 \+ 2 is more than the 5 labelled images \(and 1791 unlabelled ones\)"):
        data.split(opened(settings), settings, 1)


@pytest.mark.unit
def test_pictures_of_all_kinds_become_one_array(here: Path) -> None:
    paths = []
    for number, (mode, size) in enumerate([("L", (20, 10)), ("RGB", (9, 9)), ("RGB", (30, 30))]):
        (here / "scans").mkdir(exist_ok=True)
        Image.new(mode, size, 50 * number if mode == "L" else (50 * number,) * 3).save(here / "scans" / f"{number}.png")
        paths.append(f"scans/{number}.png")
    (here / "scans" / "1b.png").write_text("not a picture")
    name = own(
        here,
        "scans_of_mine",
        """data_dir: pathlib.Path):
    files = sorted((data_dir / "scans").glob("*.png"))
    return files, ["b", "a", "unread", "a"]""",
    )
    images = opened(settings_for(name, here, image_size=8))
    assert images.images.shape == (3, 8, 8, 3) and images.images[:, 4, 4, 0].tolist() == [0, 50, 100]
    assert images.labels.tolist() == [1, 0, 0] and images.paths == paths and images.skipped == 1
    assert "image_size: the images are not square (20 x 10 pixels)" in error_of(name, here)
    Image.new("L", (9, 9)).save(here / "scans" / "0.png")
    assert "image_size: the images have several sizes (9 x 9 and 30 x 30 pixels)" in error_of(name, here)


@pytest.mark.unit
def test_grey_pictures_stay_grey_and_arrays_keep_their_test_rows(here: Path) -> None:
    name = own(
        here,
        "arrays_of_mine",
        """level: int = 7, rows: list[int] = []):
    images = np.full((6, 12, 12), level, np.uint8)
    return {"images": images, "labels": np.arange(6) % 2, "test": np.arange(6) % 3 == 1,
            "paths": ["a.png", None, "/far/b.png", None, None, None]}""",
    )
    images = opened(settings_for(name, here))
    assert images.images.shape == (6, 12, 12, 1) and images.classes == ("0", "1")
    assert images.test is not None and images.test.tolist() == [1, 4]
    assert images.paths == ["a.png", None, "/far/b.png", None, None, None]
    settings = settings_for(name, here, initial_size=1, val_size=1)
    assert data.split(images, settings, 2).test.tolist() == [1, 4]
    with pytest.raises(UserError, match="test_share: arrays_of_mine:load has its own test set"):
        data.split(images, settings_for(name, here, test_share=0.5), 2)
    other = opened(settings_for(name, here, data_options={"level": 9}))
    assert other.folder != images.folder and other.images[0, 0, 0, 0] == 9
    problem = error_of(name, here, data_options={"level": "high"})
    assert problem == "data_options.level: must be a whole number, not high"
    problem = error_of(name, here, data_options={"lvl": 1})
    assert problem == "data_options.lvl: no such option; there are: level, rows"


@pytest.mark.unit
def test_a_changed_function_gives_a_new_preparation(here: Path) -> None:
    body = "):\n    return [Image.new('L', (8, 8), {}) for _ in range(9)], [0, 1, 2] * 3"
    first = opened(settings_for(own(here, "changing", body.format(1)), here))
    del sys.modules["changing"]
    shutil.rmtree(here / "__pycache__", ignore_errors=True)
    second = opened(settings_for(own(here, "changing", body.format(20)), here))
    assert first.folder != second.folder and second.images[0, 0, 0, 0] == 20


@pytest.mark.unit
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", "returned images as NoneType"),
        ("np.zeros((4, 8, 8))", "returned images as float64; they must be an array of uint8"),
        ("np.zeros((4, 8), np.uint8)", "of shape 4 x 8; they must be (N, H, W)"),
        ("[1, 2]", "a list with a int"),
        ("np.zeros((1, 8, 8), np.uint8), [0]", "returned 1 images"),
        ("np.zeros((4, 8, 8), np.uint8), [0, 1]", "returned 4 images and 2 labels"),
        ("np.zeros((4, 8, 8), np.uint8)", "neither labels nor classes"),
        ("np.zeros((2, 8, 8), np.uint8), np.eye(2)", "neither all whole numbers nor all names"),
        ("np.zeros((2, 8, 8), np.uint8), ['a', 1]", "neither all whole numbers nor all names"),
        ("np.zeros((2, 8, 8), np.uint8), ['a', 'b'], ['a']", "the label b, which is none of its classes"),
        ("np.zeros((2, 8, 8), np.uint8), [0, 5], ['a']", "labels from 0 to 5 of 1 classes"),
        ("np.zeros((2, 8, 8), np.uint8), [0, 1], None, [True]", "neither 2 booleans nor a range"),
        ("{'pictures': 3}", "something else than images, (images, labels) or a dict of images, labels, classes"),
        ("1 / 0", "failed with ZeroDivisionError: division by zero"),
        ("['nowhere.png', 'nor-here.png'], [0, 1]", "0 of the 2 images can be read"),
    ],
)
def test_what_a_function_returns_is_checked_in_one_line(here: Path, returned: str, message: str) -> None:
    problem = error_of(own(here, "wrong", f"):\n    return {returned}"), here)
    assert problem.startswith("data_type: wrong:load: ") and message in problem


@pytest.mark.unit
def test_an_unlabelled_official_test_set_is_an_error(here: Path) -> None:
    name = own(here, "half", "):\n    return np.zeros((9, 8, 8), np.uint8), [0, 1, None] * 3, None, range(5, 9)")
    settings = settings_for(name, here, initial_size=1, val_size=1)
    with pytest.raises(UserError, match="2 of the 4 test images of half:load have no label"):
        data.split(opened(settings), settings, 1)


@pytest.mark.unit
def test_a_missing_module_or_function_is_reported(here: Path) -> None:
    assert "there is no module nowhere" in error_of("nowhere:load", here)
    (here / "empty.py").touch()
    assert "defines no load" in error_of("empty:load", here)


# ---------------------------------------------------------------- folders


@pytest.mark.unit
def test_a_folder_of_unlabelled_images_is_no_class(tmp_path: Path) -> None:
    for folder, number in (("cat", 10), ("dog", 10), ("Unlabeled", 30)):
        (tmp_path / folder).mkdir()
        for i in range(number):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / folder / f"{i:02}.png")
    (tmp_path / "cat" / "03.png").write_text("not a picture")
    settings = settings_for("folder", tmp_path, image_size=8, split_strategy="DS")
    images = opened(settings)
    assert images.classes == ("cat", "dog") and np.bincount(images.labels + 1).tolist() == [30, 9, 10]
    assert images.paths is not None
    for path, label in zip(images.paths, images.labels, strict=True):
        assert path is not None and path.split("/")[0] == ("cat", "dog", "Unlabeled")[label]
    parts = data.split(images, settings, 4)
    labelled = np.concatenate([parts.test, parts.validation, parts.initial])
    assert (images.labels[labelled] >= 0).all() and len(parts.test) == 4
    assert (images.labels[np.concatenate(parts.shards)] < 0).sum() == 30
    rows = list(parts.rows(images.labels, images.paths))
    assert len(rows) == 49 and all(row[4] == images.paths[row[0]] for row in rows)


# ---------------------------------------------------------------- torchvision


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes the format of MNIST's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def mnist_like(raw: Path, train: int = 20, test: int = 10, prefix: str = "") -> None:
    random = np.random.RandomState(0)
    for part, number in (("train", train), ("t10k" if not prefix else "test", test)):
        images = random.randint(0, 256, (number, 28, 28)).astype(np.uint8)
        write_idx(raw / f"{prefix}{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{prefix}{part}-labels-idx1-ubyte", (np.arange(number) % 10).astype(np.uint8))


@pytest.mark.unit
@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST", "mnist"])
def test_sets_with_a_training_and_a_test_part(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = {"mnist": "MNIST"}.get(name, name)
    mnist_like(tmp_path / folder / "raw")
    settings = settings_for(f"torchvision:{name}", tmp_path)
    images = opened(settings)
    assert images.images.shape == (30, 28, 28, 1) and len(images.classes) == 10
    assert images.labels.tolist() == [*range(10)] * 3 and images.paths is None
    assert data.split(images, settings, 2).test.tolist() == [*range(20, 30)]
    raw = (tmp_path / folder / "raw" / "train-images-idx3-ubyte").read_bytes()
    assert images.images[:20].tobytes() == raw[16:]
    assert capsys.readouterr().out == ""
    if name == "FashionMNIST":
        assert images.classes[0] == "T-shirt/top"


@pytest.mark.unit
def test_a_prepared_set_of_torchvision_is_opened_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist_like(tmp_path / "KMNIST" / "raw")
    settings = settings_for("torchvision:KMNIST", tmp_path)
    first = data.prepare(settings)
    with monkeypatch.context() as patched:
        patched.setattr(torchvision_sets.TorchvisionSet, "fetch", None)
        assert data.prepare(settings) == first
    assert data.prepare(settings_for("torchvision:KMNIST", tmp_path, image_size=14)) != first
    mnist_like(tmp_path / "KMNIST" / "raw", train=15)
    assert len(opened(settings).labels) == 25


@pytest.mark.unit
def test_options_choose_a_part_of_a_set(tmp_path: Path) -> None:
    mnist_like(tmp_path / "EMNIST" / "raw", prefix="emnist-letters-")
    settings = settings_for("torchvision:EMNIST", tmp_path, data_options={"split": "letters"})
    images = opened(settings)
    assert images.images.shape == (30, 28, 28, 1) and images.classes[1] == "a"
    assert "data_options.split: must be given" in error_of("torchvision:EMNIST", tmp_path)
    problem = error_of("torchvision:EMNIST", tmp_path, data_options={"split": "lettres"})
    assert "data_options: EMNIST: Unknown value 'lettres'" in problem
    problem = error_of("torchvision:EMNIST", tmp_path, data_options={"splitt": "letters", "split": "letters"})
    assert problem == "data_options.splitt: no such option; there are: split"


@pytest.mark.unit
def test_a_set_that_is_made_up_has_no_test_part(tmp_path: Path) -> None:
    options = {"size": 30, "image_size": [3, 12, 12], "num_classes": 3}
    settings = settings_for("torchvision:FakeData", tmp_path, data_options=options, initial_size=5)
    images = opened(settings)
    assert images.images.shape == (30, 12, 12, 3) and images.test is None and images.classes == ("0", "1", "2")
    assert len(data.split(images, settings, 2).test) == 6
    small = opened(settings_for("torchvision:FakeData", tmp_path, data_options=options, image_size=8))
    assert small.images.shape == (30, 8, 8, 3) and np.array_equal(small.labels, images.labels)


@pytest.mark.unit
def test_sets_of_files_give_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, number in (("AnnualCrop", 3), ("Forest", 2)):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(folder / f"{name}_{i}.jpg")
    images = opened(settings_for("torchvision:EuroSAT", Path()))
    assert images.images.shape == (5, 16, 16, 3) and images.classes == ("AnnualCrop", "Forest")
    assert images.test is None and images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.paths is not None and images.paths[3] == "eurosat/2750/Forest/Forest_0.jpg"


@pytest.mark.unit
def test_sets_with_splits_join_those_that_are_not_for_testing(tmp_path: Path) -> None:
    for split, level in (("train", 0), ("valid", 50), ("test", 100)):
        for country in ("AD", "FR"):
            folder = tmp_path / "country211" / split / country
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (20, 20 + i), (level,) * 3).save(folder / f"{i}.png")
    images = opened(settings_for("torchvision:Country211", tmp_path, image_size=8))
    assert images.images[:, 0, 0, 0].tolist() == [0] * 6 + [50] * 6 + [100] * 6
    assert images.test is not None and images.test.tolist() == [*range(12, 18)]
    only = opened(settings_for("torchvision:Country211", tmp_path, image_size=8, data_options={"split": "train"}))
    assert only.images[:, 0, 0, 0].tolist() == [0] * 6 + [100] * 6
    tested = opened(settings_for("torchvision:Country211", tmp_path, image_size=8, data_options={"split": "test"}))
    assert tested.images[:, 0, 0, 0].tolist() == [100] * 6 and tested.test is None
    assert "image_size: " in error_of("torchvision:Country211", tmp_path)


@pytest.mark.unit
def test_every_classification_set_is_offered_and_no_other() -> None:
    from torchvision import datasets

    expected = """FashionMNIST MNIST KMNIST QMNIST EMNIST USPS SVHN CIFAR10 CIFAR100 STL10 EuroSAT Flowers102 DTD
        OxfordIIITPet FGVCAircraft Food101 Caltech101 Country211 GTSRB Imagenette PCAM RenderedSST2 StanfordCars SUN397
        FakeData"""
    for name in expected.split():
        assert torchvision_catalogue.find_set(name.lower()) is getattr(datasets, name)
    for name in ("VOCDetection", "CocoCaptions", "Kinetics", "Cityscapes", "Kitti", "CelebA", "ImageFolder", "Sintel"):
        with pytest.raises(UserError, match=f"torchvision:{name} is not a classification set; there are: "):
            torchvision_catalogue.find_set(name)
    assert set(torchvision_catalogue.SPLITS) | torchvision_catalogue.OTHERS <= set(datasets.__all__)


@pytest.mark.unit
def test_unknown_names_and_failed_downloads_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    assert error_of("torchvision:FashionMINST", tmp_path).endswith("no FashionMINST; did you mean FashionMNIST?")
    monkeypatch.setattr(datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])  # a closed port
    problem = error_of("torchvision:KMNIST", tmp_path)
    assert problem.startswith(f"data_dir: KMNIST is missing or damaged in {tmp_path} and cannot be downloaded (")
    assert f"put its files, unpacked, into {tmp_path / 'KMNIST' / 'raw'} or" in problem
    assert "torchvision cannot download it" in error_of("torchvision:FER2013", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="../shared/data is not here")
def test_real_mnist(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SHARED / "data" / "unpack.py", tmp_path, "mnist"], check=True, capture_output=True)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (tmp_path / "mnist").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    images = opened(settings_for("torchvision:MNIST", tmp_path))
    assert images.images.shape == (70_000, 28, 28, 1) and images.classes[3] == "3 - three"
    assert images.test is not None and np.array_equal(images.test, np.arange(60_000, 70_000))
    assert images.labels[:5].tolist() == [5, 0, 4, 1, 9] and images.labels[60_000:60_003].tolist() == [7, 2, 1]


# ---------------------------------------------------------------- settings


@pytest.mark.unit
def test_mistakes_about_the_images_are_reported_with_all_others() -> None:
    with pytest.raises(UserError) as caught:
        resolve({"data_type": "minst", "worker_num": "ten", "server_num": 0}, "my.yaml")
    assert [problem.split(":")[1].strip() for problem in caught.value.problems] == [
        "server_num",
        "worker_num",
        "data_type",
    ]
    assert "must be cifar-10, cifar-100, digits, folder, mini-imagenet, mnist, kmnist, torchvision:NAME or" in str(
        caught.value
    )
    for tree, message in (
        ({"data_type": "mini-imagenet", "image_size": 64}, "mini-imagenet has a size of its own, 84; leave it out"),
        ({"data_type": "mini-imagenet", "test_share": 0.3}, "mini-imagenet has a test set of its own; leave it out"),
        ({"data_type": "Cifar 100", "test_share": 0.3}, "cifar-100 has a test set of its own; leave it out"),
        ({"data_type": "digits", "models": "cnn", "data_options": {"x": 1}}, "data_options.x: no such option"),
        ({"data_type": "nowhere:load"}, "my.yaml: data_type: nowhere:load: there is no module nowhere"),
        ({"data_type": "folder", "image_size": 16, "models": "vgg16"}, "vgg16 needs images of at least 32 pixels"),
        ({"data_type": "torchvision:MNIST", "image_size": 16, "models": "vgg16"}, "vgg16 needs images of at least 32"),
    ):
        with pytest.raises(UserError) as caught:
            resolve(tree, "my.yaml")
        assert len(caught.value.problems) == 1 and message in str(caught.value)
