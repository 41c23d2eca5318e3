"""Turning an image set into its prepared form, once."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from aal.app.data.array_writer import write_contents
from aal.app.data.arrays import IMAGES, LABELS, META, Contents, read_meta
from aal.app.data.cache import INDEX, is_inside, locked, place_of, read_index
from aal.app.data.own_images import OwnImages
from aal.app.data.picture_files import printable, without_ghostscript
from aal.config.errors import UserError, of_system
from aal.config.registry import IMAGE_SETS, check_options
from aal.config.settings import Settings
from aal.storage.atomic import TEMPORARY, sync, write_whole

FORMAT = 3  # of the prepared files; a new number prepares every set anew
NAMES_SHOWN = 20

log = logging.getLogger("aal")


class Loader(Protocol):
    """An image set that can be prepared; a class that is registered in IMAGE_SETS and made from the settings.

    Attributes:
        variant: whatever of the settings changes its arrays.
    """

    variant: str

    @property
    def root(self) -> Path | None:
        """The folder of the source files; None where there are none."""

    def fetch(self) -> None:
        """Makes sure that the source files are there and whole."""

    def files(self) -> Mapping[str, Path]:
        """Returns the source files that are there, each by its name inside the set."""

    def write(self, folder: Path) -> Contents:
        """Writes images.npy into `folder` and returns what belongs to it."""


def loader_of(settings: Settings) -> Loader:
    """Returns the loader of `data_type`, made with the `data_options`.

    Raises:
        UserError: there is no such set, or an option is wrong.
    """
    found = IMAGE_SETS.load(settings.data_type)
    make = partial(OwnImages, found) if IMAGE_SETS.is_users_own(settings.data_type) else found
    options = check_options(make, settings.data_options, {"settings"}, "data_options")
    return make(settings, **options)


def prepare(settings: Settings) -> Path:
    """Returns the folder of the prepared set, which is made where it is not there yet.

    The folder's name depends on the content of the source files and on the settings that change the arrays, so a
    changed file gives another folder. The seed and the test share do not matter here.

    Raises:
        UserError: the images cannot be found, read or downloaded, or there is no place for the prepared ones.
        RunFailed: the disk is full or fails.
    """
    with without_ghostscript():
        loader = loader_of(settings)
        place = place_of(settings, loader.root)
        try:
            found = _known(place, loader)
            if found is None:
                place.mkdir(parents=True, exist_ok=True)
                with locked(place):
                    found = _known(place, loader)
                    if found is None:
                        return _make(place, loader, settings.data_type)
        except OSError as error:
            reason, path = error.strerror or error, error.filename
            if loader.root and is_inside(path, loader.root) and not is_inside(path, place):
                raise of_system(error, f"data_dir: {printable(path)}: {reason}") from None
            raise of_system(error, f"prepared_dir: cannot write in {place}: {reason}; give another place") from None
    _warn_of_skipped(found)
    return found


def _digest(loader: Loader, describe: Callable[[Path], str]) -> str:
    whole = hashlib.blake2b(f"{FORMAT}\n{loader.variant}\n".encode(), digest_size=8)
    for name, path in loader.files().items():
        try:
            described = describe(path)
        except OSError:
            described = "cannot be read"
        whole.update(b"%s\0%s\n" % (os.fsencode(name), described.encode()))
    return whole.hexdigest()


def _stats(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _content(path: Path) -> str:
    if not path.is_file():  # a named pipe would block
        return "no file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (IMAGES, LABELS, META))


def _known(place: Path, loader: Loader) -> Path | None:
    name = read_index(place).get(_digest(loader, _stats))
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        return None
    return place / name if _is_whole(place / name) else None


def _make(place: Path, loader: Loader, data_type: str) -> Path:
    """Under the lock: fetches, writes and publishes a set, and enters it in the index."""
    for leftover in place.glob(f"{TEMPORARY}*"):
        _remove(leftover)
    loader.fetch()
    stats = _digest(loader, _stats)
    name = re.sub(r"\W+", "-", data_type)
    target = place / f"{name}-{_digest(loader, _content)}"
    if _is_whole(target):
        _warn_of_skipped(target)
    else:
        log.info("preparing the images of %s in %s", data_type, target)
        _publish(target, loader, data_type, stats)
    write_whole(place / INDEX, json.dumps({**read_index(place), stats: target.name}, indent=1).encode())
    return target


def _publish(target: Path, loader: Loader, data_type: str, stats: str) -> None:
    temporary = target.with_name(TEMPORARY + target.name)
    temporary.mkdir()
    try:
        contents = loader.write(temporary)
        write_contents(temporary, data_type, contents)
        if _digest(loader, _stats) != stats:
            raise UserError(f"data_dir: the images of {data_type} changed while they were read; start again")
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        _remove(target)  # it is there only if files of it were deleted
        os.rename(temporary, target)
    finally:
        _remove(temporary)
    sync(target.parent)
    _warn(contents, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)  # rmtree would wait for whoever writes into a named pipe


def _warn(contents: Contents, folder: Path) -> None:
    for name in contents.skipped[:NAMES_SHOWN]:
        log.warning("%s: cannot be read as an image", name)
    if contents.skipped:
        log.warning("%d images cannot be read and are skipped; %s names them", len(contents.skipped), folder / META)
    for name in contents.left_out:
        reason = "its name begins with a dot" if name.startswith(".") else "holds no readable image"
        log.warning("%s: %s; this class is left out", name, reason)


def _warn_of_skipped(folder: Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # open_set reports damage
        if skipped := len(read_meta(folder).skipped):
            log.warning("%d images cannot be read and are skipped; %s names them", skipped, folder / META)
