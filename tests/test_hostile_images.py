"""Image sets from elsewhere: no file starts a program, decides what is prepared or takes all the memory."""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from aal.app import data
from aal.app.data import arrays, cache, cifar, downloads, picture_files, pictures
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings
from tests.test_data import fake_cifar, flower_folder, meta_of, opened, save, settings_for

pytestmark = pytest.mark.unit
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"


def error_of(settings: Settings) -> str:
    with pytest.raises(UserError) as caught:
        opened(settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# ---------------------------------------------------------------- pictures that are programs


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there after anything has started `gs`; that Pillow would do so is made sure of first."""
    started, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 10\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    bait = tmp_path / "bait.jpg"
    bait.write_bytes(POSTSCRIPT)
    with contextlib.suppress(OSError), Image.open(bait) as picture:  # the false gs draws nothing
        picture.load()
    assert started.exists()
    started.unlink()
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    yield started
    assert EpsImagePlugin.gs_binary is None  # others may draw PostScript again


def test_postscript_named_jpg_starts_nothing(tmp_path: Path, ghostscript: Path) -> None:
    root = flower_folder(tmp_path / "flowers")
    (root / "rose" / "photo.jpg").write_bytes(POSTSCRIPT)
    images = opened(settings_for("folder", root))
    assert not ghostscript.exists() and len(images.labels) == 6
    assert meta_of(images)["skipped"] == ["rose/photo.jpg"]


def test_libraries_that_open_pictures_start_nothing(tmp_path: Path, ghostscript: Path) -> None:
    folder = tmp_path / "eurosat" / "2750" / "Forest"
    for name in ("a", "b"):
        save(folder / f"{name}.jpg", size=(16, 16))
    (folder / "photo.jpg").write_bytes(POSTSCRIPT)
    images = opened(settings_for("torchvision:EuroSAT", tmp_path))
    assert not ghostscript.exists() and len(images.labels) == 2 and images.skipped == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the function leaves its files open
@pytest.mark.parametrize("how", ["str(path)", "Image.open(path)"])
def test_functions_of_users_start_nothing(
    tmp_path: Path, ghostscript: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "scans_with_postscript", raising=False)
    for name in ("a", "b"):
        save(tmp_path / "scans" / f"{name}.png", size=(9, 9))
    (tmp_path / "scans" / "photo.png").write_bytes(POSTSCRIPT)
    (tmp_path / "scans_with_postscript.py").write_text(
        "from pathlib import Path\nfrom PIL import Image\n\n\ndef load():\n"
        f"    return [{how} for path in sorted(Path('scans').iterdir())], [0, 1, 0]\n"
    )
    images = opened(settings_for("scans_with_postscript:load", tmp_path, image_size=9))
    assert not ghostscript.exists() and len(images.labels) == 2 and images.skipped == 1


def test_every_format_that_is_read_is_known_to_pillow() -> None:
    Image.init()
    assert set(picture_files.FORMATS) <= set(Image.OPEN) - {"EPS"}


# ---------------------------------------------------------------- what was prepared


def test_prepared_arrays_beside_the_images_decide_nothing(tmp_path: Path) -> None:
    root = flower_folder(tmp_path / "flowers")
    planted = data.prepare(settings_for("folder", root, prepared_dir=str(root / ".prepared")))
    np.save(planted / arrays.LABELS, np.ones(6, np.int64))
    np.save(planted / arrays.IMAGES, np.zeros((6, 32, 32, 3), np.uint8))
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    for place in (root, copy):
        images = opened(settings_for("folder", place))
        assert images.labels.tolist() == [0, 0, 0, 1, 1, 1] and images.images[5].max() == 102
        assert not images.folder.is_relative_to(place)


def test_two_folders_of_the_same_name_are_prepared_apart(tmp_path: Path) -> None:
    folders = [flower_folder(tmp_path / place / "flowers") for place in ("a", "b")]
    first, second = (data.prepare(settings_for("folder", folder)) for folder in folders)
    assert first != second and first.name == second.name
    (tmp_path / "link").symlink_to(folders[0])
    assert data.prepare(settings_for("folder", tmp_path / "link")) == first


def test_without_a_home_a_place_must_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    settings = settings_for("digits", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert error_of(settings) == "prepared_dir: must be given, for the home folder of this user is unknown"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", [cache.INDEX, arrays.META, arrays.IMAGES, arrays.LABELS])
def test_a_named_pipe_among_prepared_files_does_not_hang(tmp_path: Path, name: str) -> None:
    settings = settings_for("digits", tmp_path, prepared_dir=str(tmp_path / "place"))
    folder = data.prepare(settings)
    path = (folder.parent if name == cache.INDEX else folder) / name
    path.unlink()
    os.mkfifo(path)
    with (
        pytest.raises(UserError, match=f"damaged \\({name} is no regular file\\); remove")
        if (name != cache.INDEX)
        else _nothing()
    ):
        data.open_set(folder)
    assert len(opened(settings).labels) == 1797  # mended


class _nothing:  # noqa: N801 - used as contextlib.nullcontext, which mypy cannot join with pytest.raises
    def __enter__(self) -> None: ...

    def __exit__(self, *args: object) -> None: ...


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: np.save(f / arrays.LABELS, np.full(1797, 99)), "labels from 99 to 99 of 10 classes"),
        (lambda f: np.save(f / arrays.LABELS, np.full(1797, -2)), "labels from -2 to -2 of 10 classes"),
        (lambda f: np.save(f / arrays.LABELS, np.zeros(1797, object)), "labels.npy is no whole array of int64"),
        (lambda f: np.save(f / arrays.LABELS, np.zeros(1797)), "labels.npy is no whole array of int64"),
        (lambda f: (f / arrays.IMAGES).write_bytes(b"PK\x03\x04"), "images.npy is no whole array"),  # begins as .npz
        (lambda f: (f / arrays.IMAGES).write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"), "images.npy is no whole array"),
        (lambda f: (f / arrays.META).write_text("[]"), "meta.json is not as it was written"),
        (lambda f: (f / arrays.META).write_text('{"classes": 3}'), "meta.json is not as it was written"),
        (lambda f: (f / arrays.META).write_text("[" * 100_000), "meta.json is not as it was written"),
        (lambda f: _own_test(f, np.array([5, 1797])), "test.npy does not hold ids of images, each once"),
        (lambda f: _own_test(f, np.array([5, 5])), "test.npy does not hold ids of images, each once"),
        (lambda f: _own_test(f, np.array(5)), "test.npy does not hold ids of images, each once"),
    ],
)
def test_damaged_prepared_files_are_reported(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = data.prepare(settings_for("digits", tmp_path, prepared_dir=str(tmp_path)))
    damage(folder)
    with pytest.raises(UserError) as caught:
        data.open_set(folder)
    assert message in str(caught.value) and "pickle" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def _own_test(folder: Path, ids: np.ndarray) -> None:
    meta = json.loads((folder / arrays.META).read_text())
    (folder / arrays.META).write_text(json.dumps({**meta, "own_test": True}))
    np.save(folder / arrays.TEST, ids.astype(np.int64))


@pytest.mark.parametrize("content", ["[]", '{"a": 3}', "3", '["x"]', '[null, 7, "x"]', "{"])
def test_a_damaged_list_of_paths_is_reported(tmp_path: Path, content: str) -> None:
    images = opened(settings_for("folder", flower_folder(tmp_path)))
    (images.folder / arrays.PATHS).write_text(content)
    with pytest.raises(UserError, match=r"paths\.json does not name a file for each image"):
        _ = images.paths


@pytest.mark.parametrize("content", ["[]", "7", '{"x": 3}', '{"x": "../.."}', "[" * 100_000])
def test_an_index_of_another_shape_is_mended(tmp_path: Path, content: str) -> None:
    settings = settings_for("folder", flower_folder(tmp_path))
    first = data.prepare(settings)
    index = first.parent / cache.INDEX
    index.write_text(content.replace("x", next(iter(json.loads(index.read_text())))))
    assert data.prepare(settings) == first


@pytest.mark.timeout(30)
def test_a_place_that_takes_no_files_is_reported_at_once(tmp_path: Path) -> None:
    message = error_of(settings_for("digits", tmp_path, prepared_dir=f"/proc/{os.getpid()}"))
    assert message.startswith(f"prepared_dir: cannot write in /proc/{os.getpid()}: ")
    (tmp_path / ".lock").mkdir()
    assert "Is a directory; give another place" in error_of(
        settings_for("digits", tmp_path, prepared_dir=str(tmp_path))
    )


def test_no_lock_is_left_behind(tmp_path: Path) -> None:
    place = tmp_path / "place"
    data.prepare(settings_for("digits", tmp_path, prepared_dir=str(place)))
    assert not (place / ".lock").exists()
    error_of(settings_for("folder", save(tmp_path / "one" / "a" / "a.png").parents[1], prepared_dir=str(place)))
    assert not (place / ".lock").exists()


# ---------------------------------------------------------------- names, sizes, places


def test_names_cannot_write_to_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = flower_folder(tmp_path / "flowers")
    evil = "\x1b[2J\nINFO all is well\u202e"
    save(root / f"class{evil}" / "a.png")
    (root / "rose" / f"photo{evil}.jpg").write_bytes(b"not a picture")
    (root / f"empty{evil}").mkdir()
    images = opened(settings_for("folder", root))
    written = r"\x1b[2J\nINFO all is well\u202e"
    assert images.classes[0] == f"class{written}"
    assert rf"rose/photo{written}.jpg: cannot be read" in caplog.text and rf"empty{written}: holds no" in caplog.text
    assert "\x1b" not in caplog.text and "\nINFO" not in caplog.text
    assert images.paths is not None and images.paths[0] == f"class{evil}/a.png"  # leads to the file


def test_only_so_many_pixels_are_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        save(tmp_path / "a" / f"{number:02}.png", size=(60, 50) if number % 3 else (100, 100))
    decode, now, most, lock = pictures.pixels_of, [0], [0], threading.Lock()

    def watched(picture: Image.Image, size: int | None) -> np.ndarray:
        pixels = picture.width * picture.height
        with lock:
            now[0] += pixels
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        try:
            return decode(picture, size)
        finally:
            with lock:
                now[0] -= pixels

    monkeypatch.setattr(pictures, "pixels_of", watched)
    monkeypatch.setattr(pictures, "PIXELS_AT_ONCE", 9000)
    assert len(opened(settings_for("folder", tmp_path)).labels) == 12
    assert 6000 <= most[0] <= 10_000  # two small ones together, a large one alone


def test_pictures_that_keep_their_size_have_a_limit() -> None:
    with pytest.raises(UserError, match=r"image_size: an image has 3000 x 3000 pixels; give the pixels a side"):
        pictures.pixels_of(Image.new("L", (3000, 3000)), None)


@pytest.mark.parametrize("data_type", ["folder", "mini-imagenet", "torchvision:EuroSAT", "cifar-10"])
def test_long_names_of_folders_are_reported(tmp_path: Path, data_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", no_network)
    assert "data_dir: " in error_of(settings_for(data_type, tmp_path / ("x" * 300)))


def test_folders_that_cannot_be_read_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = flower_folder(tmp_path)
    scan = os.scandir

    def forbidden(path: Any) -> Any:
        if os.fspath(path).endswith("tulip"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    message = error_of(settings_for("folder", root))
    assert message == f"data_dir: {root / 'tulip'}: Permission denied; this user must be able to read it"


# ---------------------------------------------------------------- downloads


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._marker}",)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_cifar_file_of_another_checksum_is_named_and_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root, marker = tmp_path / "cifar", tmp_path / "marker"
    fake_cifar(monkeypatch, root, "cifar-10")
    path = root / "cifar-10-batches-py" / name
    expected = hashlib.md5(path.read_bytes()).hexdigest()
    path.write_bytes(pickle.dumps(Evil(marker)))
    found = hashlib.md5(path.read_bytes()).hexdigest()
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    message = error_of(settings_for("cifar-10", root))
    assert message.startswith(f"data_dir: {path} is damaged, or not from cifar-10: its MD5 checksum is {found}, not ")
    assert f"{expected}; move it away" in message and not marker.exists()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert [file.name for file in root.iterdir()] == ["cifar-10-batches-py"]


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced, not when it is read."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def test_a_download_replaces_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    source = tmp_path / "source"
    fake_cifar(monkeypatch, source, "cifar-10")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(source / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(
        datasets.CIFAR10, "tgz_md5", hashlib.md5((tmp_path / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    )
    folder = tmp_path / "cifar-10-batches-py"  # as of a copy that was interrupted, the archive beside it
    folder.mkdir()
    shutil.copy2(source / folder.name / "data_batch_1", folder)
    own = folder / "data_batch_1"
    before = _identity(own)
    assert len(opened(settings_for("cifar-10", tmp_path)).labels) == 24
    assert _identity(own) == before and {path.name for path in folder.iterdir()} == set(cifar.FILES["cifar-10"][1])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_archives_cannot_leave_their_folder(tmp_path: Path) -> None:
    from torchvision.datasets.utils import extract_archive

    evil, inside = tmp_path / "evil.tar", tmp_path / "inside"
    (tmp_path / "content").write_text("x")
    with tarfile.open(evil, "w") as archive:
        archive.add(tmp_path / "content", "../escaped")
    with pytest.raises(tarfile.OutsideDestinationError), downloads.quiet_and_bounded():
        extract_archive(str(evil), str(inside))
    assert not (tmp_path / "escaped").exists()
    with pytest.raises(tarfile.TarError), downloads.quiet_and_bounded(), downloads.downloads_into(inside) as temporary:
        extract_archive(str(evil), str(temporary))
    assert [*inside.iterdir()] == []


def test_a_named_pipe_in_a_set_of_torchvision_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "eurosat" / "2750" / "Forest"
    save(folder / "a.jpg")
    os.mkfifo(folder / "b.jpg")
    settings = resolve({"data_type": "torchvision:EuroSAT", "data_dir": str(tmp_path), "models": "cnn"}, "test")
    assert error_of(settings) == f"data_dir: {folder / 'b.jpg'}: is no regular file; remove it"
