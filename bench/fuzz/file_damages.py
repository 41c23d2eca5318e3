"""Files that are damaged, or that are something else than their names say."""

import io
import os
import pathlib
import pickle
import random
import shutil
import socket
from typing import Any

import numpy as np
from PIL import Image

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


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: pathlib.Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.mknod, (str(self._marker),)


def plant(path: pathlib.Path, chance: random.Random, marker: pathlib.Path) -> None:
    """Makes a file, or something else, that looks like a picture."""
    picture = io.BytesIO()
    size = chance.choice([(1, 1), (8, 8), (1, 3000), (300, 200)])
    mode, kind = chance.choice(KINDS)
    Image.new(mode, size).save(picture, kind)
    content = bytearray(picture.getvalue())
    choice = chance.random()
    if choice < 0.2:
        content = content[: chance.randrange(len(content))]
    elif choice < 0.5:
        for _ in range(chance.randint(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif choice < 0.65:
        content = bytearray(chance.choice(PROGRAMS))
    if choice < 0.7:
        _emptied(path).write_bytes(content)
    else:
        damage(path, chance, marker)


def damage(path: pathlib.Path, chance: random.Random, marker: pathlib.Path) -> None:
    """Puts something else where a file is, or changes its bytes."""
    content = bytearray(path.read_bytes()) if path.is_file() else bytearray(b"x" * 200)
    choice = chance.randrange(12)
    if choice < 2 and content:
        for _ in range(chance.randint(1, 10)):
            content[chance.randrange(min(len(content), 200))] = chance.randrange(256)
        _emptied(path).write_bytes(content)
    elif choice == 2:
        _emptied(path).write_bytes(content[: chance.randrange(len(content) + 1)])
    elif choice == 3:
        _emptied(path).write_text(chance.choice(JSON))
    elif choice in (4, 5, 6):
        _save_array(_emptied(path), chance)
    elif choice == 7:
        _emptied(path).write_bytes(pickle.dumps(Evil(marker)))
    elif choice == 8:
        os.mkfifo(_emptied(path))
    elif choice == 9:
        _emptied(path).mkdir()
    elif choice == 10:
        _emptied(path).symlink_to(chance.choice([*LINKS, path.name]))
    elif len(str(path)) < 90:  # what the address of a socket may have
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(_emptied(path)))


def _save_array(path: pathlib.Path, chance: random.Random) -> None:
    """An array of any shape and type, or a header that promises another one."""
    shape, kind = chance.choice(SHAPES), chance.choice(TYPES)
    with path.open("wb") as file:
        if chance.random() < 0.3:
            promised = chance.choice([(10**12,), (2**62, 4), (6, 8, 8, 3), (-1,), (6,)])
            header = {"descr": kind, "fortran_order": chance.random() < 0.5, "shape": promised}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(b"\0" * chance.choice([0, 10, 48, 1152]))
        else:
            plain = kind if kind not in ("V7", "i4,f4") else "u1"
            values = np.full(shape, chance.choice([0, 1, 99, -7])).astype(plain)
            np.save(file, values, allow_pickle=True)


def _emptied(path: pathlib.Path) -> pathlib.Path:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path
