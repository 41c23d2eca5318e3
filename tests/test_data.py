"""The image sets: loaders and their prepared form."""

import hashlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aal.app import data
from aal.app.data import array_writer, arrays, cache, cifar, folders, pictures, prepared
from aal.config.errors import RunFailed, UserError
from aal.config.loading import resolve
from aal.config.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
needs_real_images = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="../shared/data is not here")


def settings_for(data_type: str, data_dir: Path | str, **changes: Any) -> Settings:
    tree = {
        "data_type": data_type,
        "models": "cnn",
        "data_dir": str(data_dir),
        "initial_size": 1,
        "val_size": 0,
        **changes,
    }
    return resolve(tree, "test")


def save(path: Path, colour: Any = (10, 20, 30), mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def flower_folder(root: Path, number: int = 3) -> Path:
    """Two classes of plain images, a grey level each."""
    for label, name in enumerate(("rose", "tulip")):
        for i in range(number):
            save(root / name / f"{i:03}.png", (100 * label + i,) * 3)
    return root


def pixels_in(path: Path, size: int) -> np.ndarray:
    with Image.open(path) as picture:
        return pictures.pixels_of(picture, size)


def opened(settings: Settings) -> data.ImageSet:
    return data.open_set(data.prepare(settings))


def meta_of(image_set: data.ImageSet) -> dict[str, Any]:
    return json.loads((image_set.folder / arrays.META).read_text())


def prepared_of(root: Path, data_type: str = "folder") -> list[Path]:
    """What lies where the sets of a folder are prepared."""
    place = cache.place_of(settings_for(data_type, root), root)
    return [*place.iterdir()] if place.is_dir() else []


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if ".tmp" in path.name]


def class_of_two(picture: Path) -> Path:
    """A set with one class, which holds a picture twice."""
    folder = picture.parent / "set" / "class"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}{picture.suffix}").write_bytes(picture.read_bytes())
    return folder.parent


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("the source files were read again")

    monkeypatch.setattr(prepared, "_content", fail)
    monkeypatch.setattr(pictures, "pixels_of", fail)


@pytest.mark.process
def test_importing_data_brings_no_heavy_package() -> None:
    code = (
        "import sys, aal.app.data, aal.app.data.torchvision_sets\n"
        "assert not {'torch', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.unit
def test_an_absent_set_is_not_taken_for_another_in_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = data.prepare(settings_for("digits", tmp_path))

    def no_network(*_: object, **__: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    for name in ("cifar-10", "cifar-100"):
        with pytest.raises(UserError, match=rf"{name} is missing in"):
            data.prepare(settings_for(name, tmp_path))
    assert data.prepare(settings_for("digits", tmp_path)) == digits


@pytest.mark.unit
@pytest.mark.parametrize("shape", [(5, 8, 8), (4, 8, 8, 1)])
def test_prepared_arrays_of_a_wrong_shape_are_reported(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folder = data.prepare(settings_for("digits", tmp_path, prepared_dir=str(tmp_path)))
    np.save(folder / arrays.IMAGES, np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=r"damaged \(images of shape .*remove this folder"):
        data.open_set(folder)


@pytest.mark.unit
def test_a_named_pipe_is_no_image(tmp_path: Path) -> None:
    flower_folder(tmp_path)
    before = len(data.open_set(data.prepare(settings_for("folder", tmp_path))).labels)
    os.mkfifo(next(path for path in sorted(tmp_path.iterdir()) if path.is_dir() and path.name[0] != ".") / "pipe.jpg")
    assert len(data.open_set(data.prepare(settings_for("folder", tmp_path))).labels) == before


@pytest.mark.unit
def test_digits_are_scaled_to_bytes_and_mapped(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = opened(settings_for("digits", tmp_path / "new"))
    raw = load_digits()
    assert digits.images.shape == (1797, 8, 8, 1)
    assert digits.images.dtype == np.uint8 and digits.labels.dtype == np.int64
    assert np.abs(digits.images[..., 0] / 255 - raw.images / 16).max() < 0.003
    assert np.array_equal(digits.labels, raw.target)
    assert digits.classes == tuple("0123456789") and digits.test is None and digits.paths is None
    assert isinstance(digits.images, np.memmap)


@pytest.mark.unit
def test_writing_to_the_map_never_reaches_the_file(tmp_path: Path) -> None:
    settings = settings_for("digits", tmp_path, prepared_dir=str(tmp_path))
    digits = opened(settings)
    before = (digits.folder / arrays.IMAGES).read_bytes()
    digits.images[:] = 7
    del digits
    assert opened(settings).images.tobytes() == before[128:]


@pytest.mark.unit
def test_a_folder_gives_its_classes_by_name_and_rows_by_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flower_folder(tmp_path)
    save(tmp_path / ".hidden" / "a.png")
    save(tmp_path / ".cache" / "._a.png")
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").touch()
    save(tmp_path / "rose" / ".hidden.png")
    save(tmp_path / "tulip" / "deeper" / "z.JPG", (250, 250, 250))
    (tmp_path / "rose" / "notes.txt").write_text("no image")
    (tmp_path / "read.me").write_text("no class")
    flowers = opened(settings_for("folder", tmp_path))
    assert flowers.classes == ("rose", "tulip") and flowers.test is None
    assert flowers.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert flowers.images.shape == (7, 32, 32, 3)
    assert flowers.images[:, 5, 5, 0].tolist() == [0, 1, 2, 100, 101, 102, 250]
    assert flowers.folder.parent.parent == Path(os.environ["XDG_CACHE_HOME"]) / "aal"
    assert {path.name for path in flowers.folder.parent.iterdir()} == {flowers.folder.name, cache.INDEX}
    assert {path.name for path in tmp_path.iterdir()} == {".hidden", ".cache", ".git", "rose", "tulip", "read.me"}
    assert meta_of(flowers)["left_out"] == [".hidden"]
    assert caplog.messages[-1] == ".hidden: its name begins with a dot; this class is left out"


@pytest.mark.unit
def test_prepared_dir_image_size_and_home_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    flower_folder(tmp_path / "flowers")
    flowers = opened(settings_for("folder", "~/flowers", prepared_dir="~/elsewhere", image_size=16))
    assert flowers.folder.parent == tmp_path / "elsewhere"
    assert flowers.images.shape == (6, 16, 16, 3)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("gray.png", "L", 77, (77, 77, 77)),
        ("bits.png", "1", 1, (255, 255, 255)),
        ("palette.gif", "P", 0, (0, 0, 0)),
        ("alpha.png", "RGBA", (9, 99, 199, 255), (9, 99, 199)),
        ("clear.png", "RGBA", (9, 99, 199, 0), (255, 255, 255)),
        ("gray-alpha.png", "LA", (50, 255), (50, 50, 50)),
        ("deep.png", "I;16", 200 * 256, (200, 200, 200)),
        ("print.tif", "CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("tiny.png", "RGB", (1, 2, 3), (1, 2, 3)),
    ],
)
def test_every_kind_of_colour_becomes_grey_or_rgb(
    tmp_path: Path, name: str, mode: str, colour: Any, expected: tuple[int, ...]
) -> None:
    pixels = pixels_in(save(tmp_path / name, colour, mode), 8)
    assert pixels.shape == (8, 8, 1 if mode in ("L", "1", "LA", "I;16") else 3) and pixels.dtype == np.uint8
    assert (pixels == expected).all()
    images = opened(settings_for("folder", class_of_two(tmp_path / name), image_size=8)).images
    assert (images == expected).all() and images.shape == (2, 8, 8, 3)


@pytest.mark.unit
def test_orientation_is_followed_and_reduction_averages(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "black")
    picture.paste("white", (0, 0, 64, 32))
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "turned.png", exif=exif)
    pixels = pixels_in(tmp_path / "turned.png", 8)
    assert pixels[0].max() == 0 and pixels[-1].min() == 255
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    pixels = pixels_in(tmp_path / "stripes.png", 8)
    assert abs(pixels[2:6, 2:6].astype(int) - 100).max() < 15


@pytest.mark.unit
def test_unreadable_images_are_named_counted_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flower_folder(tmp_path)
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    whole = tmp_path / "rose" / "cut.jpg"
    Image.fromarray(noise).save(whole)
    whole.write_bytes(whole.read_bytes()[:-900])
    (tmp_path / "rose" / "000-text.png").write_text("not a picture")
    (tmp_path / "rose" / "empty.jpg").touch()
    (tmp_path / "rose" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "aster").mkdir()
    (tmp_path / "aster" / "bad.png").write_text("not a picture")
    (tmp_path / "bare").mkdir()
    save(tmp_path / "tulip" / "huge.png", size=(400, 400))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # huge.png has more, but less than twice as many
    bad = ["aster/bad.png", *(f"rose/{name}" for name in ("000-text.png", "cut.jpg", "dangling.png", "empty.jpg"))]
    bad.append("tulip/huge.png")
    flowers = opened(settings_for("folder", tmp_path))
    assert flowers.classes == ("rose", "tulip")
    assert flowers.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert flowers.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert flowers.paths == [f"{name}/{number:03}.png" for name in ("rose", "tulip") for number in range(3)]
    assert meta_of(flowers)["skipped"] == bad and meta_of(flowers)["left_out"] == ["aster", "bare"]
    for name in (*bad, "6 images", "aster: holds no", "bare: holds no"):
        assert name in caplog.text
    caplog.clear()
    opened(settings_for("folder", tmp_path))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] and "6 images" in caplog.text


@pytest.mark.unit
def test_a_long_list_of_unreadable_images_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flower_folder(tmp_path)
    for i in range(30):
        (tmp_path / "rose" / f"bad{i:02}.png").touch()
    opened(settings_for("folder", tmp_path))
    assert "bad19.png" in caplog.text and "bad20.png" not in caplog.text and "30 images" in caplog.text


@pytest.mark.unit
def test_links_in_circles_end(tmp_path: Path) -> None:
    flower_folder(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "rose" / "up").symlink_to(tmp_path)
    (tmp_path / "rose" / "self.png").symlink_to(tmp_path / "rose" / "self.png")
    flowers = opened(settings_for("folder", tmp_path))
    assert len(flowers.labels) == 6 and flowers.classes == ("rose", "tulip")


@pytest.mark.unit
def test_a_linked_class_folder_counts(tmp_path: Path) -> None:
    flower_folder(tmp_path / "set")
    flower_folder(tmp_path / "other")
    (tmp_path / "set" / "violet").symlink_to(tmp_path / "other" / "rose")
    assert opened(settings_for("folder", tmp_path / "set")).classes == ("rose", "tulip", "violet")


@pytest.mark.unit
def test_file_names_of_any_bytes_are_kept(tmp_path: Path) -> None:
    flower_folder(tmp_path)
    odd = os.fsdecode(os.fsencode(tmp_path / "rose") + b"/\xff\xfe.png")
    try:
        Path(odd).write_bytes(b"not a picture")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert meta_of(opened(settings_for("folder", tmp_path)))["skipped"] == ["rose/\ufffd\ufffd.png"]


@pytest.mark.unit
@pytest.mark.parametrize("data_type", ["folder", "mini-imagenet"])
def test_a_wrong_data_dir_is_reported_in_one_line(tmp_path: Path, data_type: str) -> None:
    def error_of(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            data.prepare(settings_for(data_type, path))
        assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
        assert str(caught.value).startswith("data_dir: ")
        return str(caught.value)

    assert "no such folder" in error_of(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "no such folder" in error_of(tmp_path / "file")
    (tmp_path / "flat").mkdir()
    assert "is empty" in error_of(tmp_path / "flat")
    save(tmp_path / "flat" / "a.png")
    assert "1 files such as a.png" in error_of(tmp_path / "flat")
    save(tmp_path / "one" / "class" / "a.png")
    assert "1 of the 1 image files" in error_of(tmp_path / "one")
    assert prepared_of(tmp_path / "one") == []


@pytest.mark.unit
def test_train_and_test_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    flower_folder(tmp_path / "train")
    flower_folder(tmp_path / "test")
    with pytest.raises(UserError, match=r"test, train, which are no classes; give one of them"):
        data.prepare(settings_for("folder", tmp_path))


@pytest.mark.unit
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("parted", [True, False])
def test_mini_imagenet_is_found_in_its_layouts(tmp_path: Path, inside: bool, parted: bool) -> None:
    root = tmp_path / "mini-imagenet" if inside else tmp_path
    if parted:
        for part, level in (("train", 10), ("val", 20), ("test", 30)):
            save(root / part / "n01" / "a.jpg", (level,) * 3)
        save(root / "test" / "n02" / "a.jpg", (40,) * 3)
    else:
        for name, level in (("n01/b", 10), ("n01/c", 20), ("n01/a", 30), ("n02/a", 40)):
            save(root / f"{name}.jpg", (level,) * 3)
    mini = opened(settings_for("mini-imagenet", tmp_path))
    assert mini.images.shape == (4, 84, 84, 3) and mini.classes == ("n01", "n02")
    assert mini.labels.tolist() == [0, 0, 0, 1]
    assert mini.images[:, 3, 3, 0].tolist() == [30, 10, 20, 40]  # by name: test < train < val, and a < b < c


@pytest.mark.unit
def test_a_prepared_set_is_used_again(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = settings_for("folder", flower_folder(tmp_path))
    first = data.prepare(settings)
    request.getfixturevalue("no_loading")
    assert data.prepare(settings) == first
    assert data.prepare(settings_for("folder", tmp_path, seed=5, test_share=0.5)) == first


@pytest.mark.unit
def test_the_key_follows_the_content_and_the_size(tmp_path: Path) -> None:
    settings = settings_for("folder", flower_folder(tmp_path))
    first = data.prepare(settings)
    assert data.prepare(settings_for("folder", tmp_path, image_size=8)) != first
    picture = tmp_path / "rose" / "000.png"
    picture.write_bytes(picture.read_bytes())  # touched, not changed
    assert data.prepare(settings) == first
    save(picture, (9, 9, 9))
    second = opened(settings)
    assert second.folder != first and second.images[0, 0, 0, 0] == 9
    picture.rename(tmp_path / "rose" / "zzz.png")
    assert opened(settings).images[:3, 0, 0, 0].tolist() == [1, 2, 9]


@pytest.mark.unit
def test_a_damaged_index_or_set_is_mended(tmp_path: Path) -> None:
    settings = settings_for("folder", flower_folder(tmp_path))
    first = data.prepare(settings)
    (first.parent / cache.INDEX).write_text("{")
    assert data.prepare(settings) == first
    (first / arrays.LABELS).unlink()
    assert data.prepare(settings) == first and len(data.open_set(first).labels) == 6
    (first / arrays.IMAGES).write_bytes(b"cut")
    with pytest.raises(UserError, match="damaged"):
        data.open_set(first)
    with pytest.raises(UserError, match="damaged"):
        data.open_set(tmp_path / "nowhere")


@pytest.mark.unit
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ValueError("bug")])
def test_an_interrupted_preparation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    settings = settings_for("folder", flower_folder(tmp_path))

    def fail(self: array_writer.ImageWriter, images: np.ndarray) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(array_writer.ImageWriter, "add", fail)
        with pytest.raises(RunFailed if isinstance(error, OSError) else type(error)) as caught:
            data.prepare(settings)
    if isinstance(error, OSError):
        assert str(caught.value).startswith("prepared_dir: ") and "No space left" in str(caught.value)
    assert prepared_of(tmp_path) == []
    assert len(opened(settings).labels) == 6


@pytest.mark.unit
def test_no_place_to_write_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"prepared_dir: cannot write in .*file/x: .*give another place"):
        data.prepare(settings_for("digits", tmp_path, prepared_dir=str(tmp_path / "file" / "x")))


@pytest.mark.unit
def test_images_that_change_while_they_are_read_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for("folder", flower_folder(tmp_path))
    write = folders.ClassFolders.write

    def meddle(self: folders.ClassFolders, folder: Path) -> arrays.Contents:
        save(tmp_path / "rose" / "new.png")
        return write(self, folder)

    monkeypatch.setattr(folders.ClassFolders, "write", meddle)
    with pytest.raises(UserError, match="changed while they were read"):
        data.prepare(settings)
    assert prepared_of(tmp_path) == []


PREPARE = """
import os, signal, sys, time
from aal.app import data
from aal.app.data import pictures
from aal.config.loading import resolve
pixels_of = pictures.pixels_of
def slowly(picture, size):
    time.sleep(0.01)
    if sys.argv[2] == "kill" and picture.filename.endswith("020.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    return pixels_of(picture, size)
pictures.pixels_of = slowly
print(data.prepare(resolve({"data_type": "folder", "data_dir": sys.argv[1]}, "test")))
"""


def start_preparing(root: Path, word: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PREPARE, str(root), word]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.process
def test_two_processes_that_prepare_at_once_agree(tmp_path: Path) -> None:
    flower_folder(tmp_path, 100)
    processes = [start_preparing(tmp_path), start_preparing(tmp_path)]
    printed = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    place = cache.place_of(settings_for("folder", tmp_path), tmp_path)
    assert printed == {str(path) for path in place.glob("folder-*")} and len(printed) == 1
    assert leftovers(place) == []
    flowers = data.open_set(Path(printed.pop()))
    assert np.array_equal(flowers.images[:, 0, 0, 0], 100 * flowers.labels + np.tile(np.arange(100), 2))


@pytest.mark.process
def test_a_preparation_after_a_killed_one_is_good(tmp_path: Path) -> None:
    flower_folder(tmp_path, 30)
    process = start_preparing(tmp_path, "kill")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    place = cache.place_of(settings_for("folder", tmp_path), tmp_path)
    assert len(leftovers(place)) == 1 and list(place.glob("folder-*")) == []
    assert len(opened(settings_for("folder", tmp_path)).labels) == 60
    assert leftovers(place) == []


def fake_cifar(monkeypatch: pytest.MonkeyPatch, root: Path, data_type: str) -> None:
    """A few rows in the layout of the real files, with their own checksums."""
    from torchvision import datasets

    kind = datasets.CIFAR10 if data_type == "cifar-10" else datasets.CIFAR100
    folder, names = cifar.FILES[data_type]
    (root / folder).mkdir(parents=True)
    labels, key = ("labels", "label_names") if data_type == "cifar-10" else ("fine_labels", "fine_label_names")
    sums = {}
    for number, name in enumerate(names):
        rows = np.full((4, 3 * 32 * 32), number, np.uint8)
        content = {"data": rows, labels: [0, 1, 2, 3]} if "meta" not in name else {key: ["a", "b", "c", "d"]}
        (root / folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((root / folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "train_list", [[n, s] for n, s in sums.items() if "test" not in n and "meta" not in n])
    monkeypatch.setattr(kind, "test_list", [[n, s] for n, s in sums.items() if "test" in n])
    meta = names[-1]
    monkeypatch.setattr(kind, "meta", {"filename": meta, "key": key, "md5": sums[meta]})


@pytest.mark.unit
@pytest.mark.parametrize(("data_type", "rows"), [("cifar-10", 24), ("cifar-100", 8)])
def test_cifar_has_its_test_rows_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_type: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_cifar(monkeypatch, tmp_path, data_type)
    images = opened(settings_for(data_type, tmp_path))
    assert images.images.shape == (rows, 32, 32, 3)
    assert images.test is not None and images.test.tolist() == [*range(rows - 4, rows)]
    assert images.images[:, 0, 0, 0].tolist() == np.repeat(np.arange(rows // 4), 4).tolist()
    assert images.labels.tolist() == [0, 1, 2, 3] * (rows // 4) and images.classes == ("a", "b", "c", "d")
    assert capsys.readouterr().out == ""


@pytest.mark.unit
def test_a_failed_download_of_cifar_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    fake_cifar(monkeypatch, tmp_path, "cifar-100")
    data.prepare(settings_for("cifar-100", tmp_path))
    (tmp_path / "cifar-100-python" / "train").unlink()
    monkeypatch.setattr(datasets.CIFAR100, "url", "http://127.0.0.1:9/cifar.tar.gz")  # a closed port
    with pytest.raises(UserError) as caught:
        data.prepare(settings_for("cifar-100", tmp_path))
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.startswith("data_dir: cifar-100 lacks train in ")
    assert "fetch http://127.0.0.1:9/cifar.tar.gz by hand" in message and message.endswith(f"into {tmp_path}")


def unpack(target: Path, name: str) -> Path:
    subprocess.run([sys.executable, SHARED / "data" / "unpack.py", target, name], check=True, capture_output=True)
    return target


@pytest.mark.slow
@needs_real_images
def test_real_cifar_10(tmp_path: Path) -> None:
    images = opened(settings_for("cifar-10", unpack(tmp_path, "cifar-10")))
    assert images.images.shape == (60_000, 32, 32, 3)
    assert images.test is not None and np.array_equal(images.test, np.arange(50_000, 60_000))
    assert images.classes[:2] == ("airplane", "automobile")
    assert np.bincount(images.labels[:50_000]).tolist() == [5000] * 10
    assert np.bincount(images.labels[50_000:]).tolist() == [1000] * 10
    assert images.labels[:5].tolist() == [6, 9, 9, 4, 1] and images.labels[50_000:50_003].tolist() == [3, 8, 8]
    means = images.images[:50_000:10].mean(axis=(0, 1, 2)) / 255
    assert np.abs(means - [0.4914, 0.4822, 0.4465]).max() < 0.01


@pytest.mark.slow
@needs_real_images
def test_real_tenth_of_mini_imagenet(tmp_path: Path) -> None:
    mini = opened(settings_for("mini-imagenet", unpack(tmp_path, "mini-imagenet")))
    assert mini.images.shape == (6000, 84, 84, 3) and len(mini.classes) == 100
    assert np.bincount(mini.labels).tolist() == [60] * 100
    assert meta_of(mini)["skipped"] == []
    file = sorted((tmp_path / "mini-imagenet" / "train" / mini.classes[0]).iterdir())[0]
    assert np.array_equal(mini.images[0], np.asarray(Image.open(file).convert("RGB")))
