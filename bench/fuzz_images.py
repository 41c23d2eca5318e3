"""Image sets that nobody would make: each must be opened or refused by one line, in bounded time.

Folders of images, CIFAR's files and prepared folders get parts that are damaged or hostile: named pipes, sockets,
devices, links in circles, pickles, PostScript, archives, arrays of other shapes and types, bytes cut or changed, names
that act on a terminal. None of them may start a program or decide what was prepared.

Example:
  python -m bench.fuzz_images --sets 10000 --seed 0
"""

import importlib
import io
import json
import logging
import os
import pathlib
import pickle
import random
import shutil
import socket
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml
from PIL import EpsImagePlugin, Image

from aal.app import data
from aal.app.data import arrays, cache, cifar
from aal.config.errors import UserError
from aal.config.loading import resolve
from bench.fuzz_settings import limited
from bench.rows import parser_of

SECONDS = 30.0  # that one set may take; most take a hundredth
SIDE, CLASSES, IMAGES = 8, 2, 6  # of the small set that is damaged
JSON = [
    *("", "{", "[]", "7", "null", "true", '"x"', "NaN", "1e999", "[" * 50_000, "9" * 5000, '{"a": ' * 5000, "\ufeff{}"),
    *('{"data_type": 3}', '{"classes": []}', '{"classes": "ab", "own_test": 1}', '["\\ud800"]', "[null, 1, {}]"),
]
SHAPES: list[tuple[int, ...]] = [(), (0,), (6,), (5,), (6, 1), (6, 8, 8, 1), (6, 8, 8, 2), (5, 8, 8, 3), (6, 0, 8, 3)]
TYPES = ["u1", "i8", ">i8", "f8", "c16", "?", "U4", "S3", "M8[s]", "O", "i4,f4", "V7"]
NAMES = [
    "x.jpg",
    "\x1b[2J\n.png",
    "\u202e.gif",
    "a" * 250 + ".png",
    "é.webp",
    ".hidden.png",
    "-rf.png",
    "a\tb.tif",
    "x.eps",
]
KINDS = [("RGB", "JPEG"), ("RGBA", "PNG"), ("L", "TIFF"), ("P", "GIF"), ("RGB", "WEBP"), ("1", "BMP")]
PROGRAMS = [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"P6 99999 99999 255\n"]
LINKS = ["/dev/zero", "/dev/null", "/proc/self/mem", "nowhere", "."]


class _Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: pathlib.Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.mknod, (str(self._marker),)


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 all held, 1 something did not."""
    parser = parser_of("bench.fuzz_images", __doc__)
    parser.add_argument("--sets", type=int, default=10_000, metavar="N", help="sets to try (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    found = fuzz(arguments.sets, arguments.seed)
    print(json.dumps(found) if arguments.json else yaml.safe_dump(found, sort_keys=False, allow_unicode=True))
    return int(bool(found["failures"]))


def fuzz(sets: int, seed: int) -> dict[str, Any]:
    """Tries sets; returns how many were opened and refused, what took longest, and the failures."""
    logging.getLogger("aal").setLevel(logging.CRITICAL)
    importlib.import_module("torchvision.datasets")  # takes seconds, once
    count: Counter[str] = Counter()
    failures: list[str] = []
    longest = 0.0
    before, EpsImagePlugin.gs_binary = EpsImagePlugin.gs_binary, "gs-that-must-not-run"
    with tempfile.TemporaryDirectory() as name:
        for number in range(sets):
            random_ = random.Random(f"{seed} {number}")
            top = pathlib.Path(name) / str(number)
            kind = random_.choice([_folder, _folder, _prepared, _prepared, _place, _cifar])
            marker = top / "marker"
            began = time.perf_counter()
            try:
                with limited(SECONDS):
                    open_ = kind(top, random_, marker)
                    problem = _doubt(open_())
                count["opened"] += 1
            except UserError as error:
                count["refused"] += 1
                problem = None if len(error.problems) == 1 and error.problems[0] else f"{len(error.problems)} problems"
            except BaseException:
                problem = traceback.format_exc(limit=-5)
            longest = max(longest, time.perf_counter() - began)
            problem = "code of a file was run" if marker.exists() else problem
            if problem is not None:
                failures.append(f"{kind.__name__[1:]} {seed} {number}: {problem}")
            shutil.rmtree(top, ignore_errors=True)
    EpsImagePlugin.gs_binary = before
    return {"sets": sets, "seed": seed, **count, "longest_s": round(longest, 2), "failures": failures}


def _doubt(images: data.ImageSet) -> str | None:
    """Returns what is wrong with a set that was opened."""
    number, classes = len(images.images), len(images.classes)
    if not len(images.labels) == number >= 2 or not -1 <= images.labels.min() <= images.labels.max() < classes:
        return "labels that do not fit the images"
    if images.paths is not None and len(images.paths) != number:
        return "paths that do not fit the images"
    return None if int(images.images.sum()) >= 0 else "pixels that cannot be read"


def _settings(data_type: str, root: pathlib.Path, place: pathlib.Path) -> Any:
    tree = {"data_type": data_type, "models": "cnn", "data_dir": str(root), "prepared_dir": str(place)}
    return resolve({**tree, **({"image_size": SIDE} if data_type == "folder" else {})}, "fuzz")


def _opened(settings: Any) -> Callable[[], data.ImageSet]:
    return lambda: data.open_set(data.prepare(settings))


def _class_folders(root: pathlib.Path) -> pathlib.Path:
    for row in range(IMAGES):
        path = root / "ab"[row % CLASSES] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (row, 0, 0)).save(path)
    return root


def _folder(top: pathlib.Path, random_: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """A folder of images with hostile files and folders in it."""
    root = _class_folders(top / "images")
    for _ in range(random_.randint(1, 4)):
        parent = root / random_.choice(["", "a", "b", "unlabelled", ".prepared", "c" * 99])
        parent.mkdir(exist_ok=True)
        _plant(parent / random_.choice(NAMES), random_, marker)
    return _opened(_settings("folder", root, top / "place"))


def _prepared(top: pathlib.Path, random_: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """A prepared folder with files of other content, opened as servers and workers do."""
    folder = data.prepare(_settings("folder", _class_folders(top / "images"), top / "place"))
    names = [arrays.META, arrays.IMAGES, arrays.LABELS, arrays.PATHS]
    if random_.random() < 0.3:
        meta = {"data_type": "folder", "classes": ["a", "b"], "own_test": True, "skipped": [], "left_out": []}
        (folder / arrays.META).write_text(json.dumps(meta))
        names = [arrays.TEST]
    for name in random_.sample(names, random_.randint(1, min(2, len(names)))):
        _damage(folder / name, random_, marker)
    return lambda: data.open_set(folder)


def _place(top: pathlib.Path, random_: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """A place of prepared sets in which index, lock and the rest are of other kinds."""
    settings = _settings("folder", _class_folders(top / "images"), top / "place")
    folder = data.prepare(settings)
    names = [cache.INDEX, ".lock", f".tmp-{folder.name}", folder.name, f"{folder.name}/{arrays.META}"]
    for name in random_.sample(names, random_.randint(1, 3)):
        if (top / "place" / name).parent.is_dir():
            _damage(top / "place" / name, random_, marker)
    if random_.random() < 0.5:
        (top / "images" / "a" / "0.png").touch()
    return _opened(settings)


def _cifar(top: pathlib.Path, random_: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """CIFAR's files, all of them there and none of them the published one."""
    data_type = random_.choice(list(cifar.FILES))
    folder, names = cifar.FILES[data_type]
    (top / "images" / folder).mkdir(parents=True)
    for name in names:
        (top / "images" / folder / name).touch()
        _damage(top / "images" / folder / name, random_, marker)
        if not os.path.lexists(path := top / "images" / folder / name) or not path.exists():
            path.unlink(missing_ok=True)
            path.write_bytes(pickle.dumps(_Evil(marker)))  # one that is absent would be downloaded
    return _opened(_settings(data_type, top / "images", top / "place"))


def _plant(path: pathlib.Path, random_: random.Random, marker: pathlib.Path) -> None:
    """Makes a file, or something else, that looks like a picture."""
    picture = io.BytesIO()
    size = random_.choice([(1, 1), (8, 8), (1, 3000), (300, 200)])
    mode, kind = random_.choice(KINDS)
    Image.new(mode, size).save(picture, kind)
    content = bytearray(picture.getvalue())
    choice = random_.random()
    if choice < 0.2:
        content = content[: random_.randrange(len(content))]
    elif choice < 0.5:
        for _ in range(random_.randint(1, 20)):
            content[random_.randrange(len(content))] = random_.randrange(256)
    elif choice < 0.65:
        content = bytearray(random_.choice(PROGRAMS))
    if choice < 0.7:
        _emptied(path).write_bytes(content)
    else:
        _damage(path, random_, marker)


def _damage(path: pathlib.Path, random_: random.Random, marker: pathlib.Path) -> None:
    """Puts something else where a file is, or changes its bytes."""
    content = bytearray(path.read_bytes()) if path.is_file() else bytearray(b"x" * 200)
    choice = random_.randrange(12)
    if choice < 2 and content:
        for _ in range(random_.randint(1, 10)):
            content[random_.randrange(min(len(content), 200))] = random_.randrange(256)
        _emptied(path).write_bytes(content)
    elif choice == 2:
        _emptied(path).write_bytes(content[: random_.randrange(len(content) + 1)])
    elif choice == 3:
        _emptied(path).write_text(random_.choice(JSON))
    elif choice in (4, 5, 6):
        _save_array(_emptied(path), random_)
    elif choice == 7:
        _emptied(path).write_bytes(pickle.dumps(_Evil(marker)))
    elif choice == 8:
        os.mkfifo(_emptied(path))
    elif choice == 9:
        _emptied(path).mkdir()
    elif choice == 10:
        _emptied(path).symlink_to(random_.choice([*LINKS, path.name]))
    elif len(str(path)) < 90:  # what the address of a socket may have
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(_emptied(path)))


def _save_array(path: pathlib.Path, random_: random.Random) -> None:
    """An array of any shape and type, or a header that promises another one."""
    shape, kind = random_.choice(SHAPES), random_.choice(TYPES)
    with path.open("wb") as file:
        if random_.random() < 0.3:
            promised = random_.choice([(10**12,), (2**62, 4), (6, 8, 8, 3), (-1,), (6,)])
            header = {"descr": kind, "fortran_order": random_.random() < 0.5, "shape": promised}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(b"\0" * random_.choice([0, 10, 48, 1152]))
        else:
            plain = kind if kind not in ("V7", "i4,f4") else "u1"
            values = np.full(shape, random_.choice([0, 1, 99, -7])).astype(plain)
            np.save(file, values, allow_pickle=True)


def _emptied(path: pathlib.Path) -> pathlib.Path:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


if __name__ == "__main__":
    raise SystemExit(main())
