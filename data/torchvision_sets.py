"""The classification sets of torchvision.datasets, as `data_type=torchvision:FashionMNIST`.

What a set offers is read from its constructor: sets with `train` or `split` have a test set of their own, and every
other parameter is an option (`data_options`). A prepared set is recognised by its name, the options and the files whose
names begin as its own does.
"""

import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aal.app.data.arrays import UNKNOWN, Contents
from aal.app.data.downloads import ARCHIVES, downloads_into, quiet_and_bounded
from aal.app.data.picture_files import path_from, printable
from aal.app.data.pictures import write_pictures
from aal.app.data.torchvision_catalogue import SPLITS, checked, find_set, parameters_of
from aal.config.errors import UserError
from aal.config.settings import Settings

LONGEST = 300  # characters that a message repeats of torchvision's
LISTS_OF_FILES = ("samples", "_samples", "_image_files", "_images", "imgs", "images")


def from_library(name: str) -> Callable[..., "TorchvisionSet"]:
    """Returns what makes the loader of a set from the settings and its options.

    Args:
        name: of a class in torchvision.datasets; case does not matter.
    """
    return partial(TorchvisionSet, name)


class TorchvisionSet:
    """Loads a set of torchvision from `data_dir`; it is downloaded where torchvision can do that.

    Args:
        name: of a class in torchvision.datasets.
        settings: of the run.
        **options: further parameters of its constructor.
    """

    def __init__(self, name: str, settings: Settings, **options: Any) -> None:
        self._name, self._options, self._size = name, options, settings.image_size
        self.root = Path(settings.data_dir).expanduser()
        self.variant = f"torchvision {name.lower()} {json.dumps(options, sort_keys=True, default=str)} {self._size}"
        self._parts: tuple[list[Any], Any] = ([], None)

    def files(self) -> dict[str, Path]:
        """Returns the files in `data_dir` whose names, or those of their folders, begin as the set's."""
        found: dict[str, Path] = {}
        for place in sorted(self.root.iterdir()) if os.path.isdir(self.root) else []:
            words = _plain(self._name), _plain(place.stem if place.is_file() else place.name)
            if (
                not place.name.startswith(".")
                and min(words, key=len)
                and (words[1].startswith(words[0]) or (len(words[1]) > 3 and words[0].startswith(words[1])))
            ):
                paths = sorted(place.rglob("*")) if place.is_dir() else [place]
                if pipes := [path for path in paths if not (path.is_file() or path.is_dir()) and path.exists()]:
                    raise UserError(f"data_dir: {printable(str(pipes[0]))}: is no regular file; remove it")
                found |= {path.relative_to(self.root).as_posix(): path for path in paths if path.is_file()}
        return found

    def fetch(self) -> None:
        """Opens the set, and downloads it unless it is there.

        An option `split` names the images to learn from; the test split remains for testing, unless it is named itself.

        Raises:
            UserError: torchvision has no such set for classification, an option is wrong, or the download failed.
        """
        kind = find_set(self._name)
        parameters = parameters_of(kind)
        options = checked(parameters, self._options)
        if "train" in parameters:
            parts: list[dict[str, Any]] = [{"train": True}]
            test: dict[str, Any] | None = {"train": False}
        elif "split" in parameters:
            training, test_split = SPLITS.get(kind.__name__, ((parameters["split"].default,), "test"))
            chosen = options.pop("split", None)
            parts = [{"split": split} for split in ((chosen,) if chosen else training)]
            test = {"split": test_split} if test_split not in (None, chosen) else None
        else:
            parts, test = [{}], None
        can_download = "download" in parameters

        def make(part: dict[str, Any]) -> Any:
            return self._open(kind, {**options, **part}, "root" in parameters, can_download)

        self._parts = [make(part) for part in parts], make(test) if test else None

    def _open(self, kind: Any, words: dict[str, Any], has_root: bool, can_download: bool) -> Any:
        """The set as it is in `data_dir`; where that fails, what is missing is downloaded first."""
        error: Exception | None = None
        root = self.root.absolute()
        for download in (False, True) if can_download and has_root else (False,):
            try:
                with quiet_and_bounded():
                    if download:
                        archives = [path for path in self.files().values() if path.suffix in ARCHIVES]
                        with downloads_into(self.root, archives) as temporary:
                            kind(root=str(temporary.absolute()), download=True, **words)
                    return kind(**({"root": str(root)} if has_root else {}), **words)
            except Exception as caught:  # sets raise many kinds for what is missing or damaged
                error = caught
                if str(caught).startswith("Unknown value"):
                    raise UserError(f"data_options: {kind.__name__}: {_line(caught)}") from None
        tried = "cannot be downloaded" if can_download else "torchvision cannot download it"
        by_hand = f"get its files by hand, as torchvision's documentation of {kind.__name__} says,"
        if hasattr(kind, "raw_folder"):  # MNIST and its like
            by_hand = f"put its files, unpacked, into {self.root / kind.__name__ / 'raw'}"
        raise UserError(
            f"data_dir: {kind.__name__} is missing or damaged in {self.root} and {tried} ({_line(error)}); {by_hand} "
            "or move damaged ones away"
        )

    def write(self, folder: Path) -> Contents:
        """Writes the images of the training splits, then those of the test split.

        Grey images stay one channel where all are; the size is `image_size` or, where that is null, the images' own.

        Raises:
            UserError: the images have several sizes while `image_size` is null, or an image has not one class.
        """
        from torch.utils.data import ConcatDataset

        training, test = self._parts
        parts = [*training, *([test] if test is not None else [])]
        joined = ConcatDataset(parts)
        labels = np.full(len(joined), UNKNOWN, np.int64)

        def read(row: int) -> Image.Image:
            picture, target = joined[row]
            labels[row] = self._label(target)
            return picture

        # FakeData seeds PyTorch's global generator at every image, so that threads would disturb one another.
        threads = 1 if type(parts[0]).__name__ == "FakeData" else None
        kept = write_pictures(folder, len(joined), read, self._size, threads=threads)
        if len(kept) < 2:
            raise UserError(f"data_dir: {len(kept)} of the {len(joined)} images of {self._name} can be read")
        own_test = None if test is None else np.flatnonzero(kept >= len(joined) - len(test))
        paths = [path for part in parts for path in _paths(part, self.root)]
        unread = sorted({*range(len(joined))} - {*kept.tolist()})
        return Contents(
            labels[kept],
            _class_names(parts[0], int(labels.max()) + 1),
            test=own_test,
            paths=[paths[row] for row in kept],
            skipped=[printable(paths[row] or f"image {row} of {self._name}") for row in unread],
        )

    def _label(self, target: Any) -> int:
        if target is None:
            return UNKNOWN
        try:
            return max(UNKNOWN, int(target))
        except (TypeError, ValueError, RuntimeError):
            raise UserError(
                f"data_type: torchvision:{self._name} gives {type(target).__name__} for an image, not one class; "
                "choose another target by data_options"
            ) from None


def _class_names(dataset: Any, number: int) -> list[str]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if not isinstance(names, list | tuple) or len(names) < number:
        return [str(label) for label in range(number)]
    whole = (", ".join(map(str, name)) if isinstance(name, list | tuple) else str(name) for name in names)
    return [printable(name) for name in whole]


def _paths(dataset: Any, root: Path) -> list[str | None]:
    """The file of each image relative to `root`, where the set is made of files."""
    for name in LISTS_OF_FILES:
        listed = vars(dataset).get(name)
        if isinstance(listed, list) and len(listed) == len(dataset):
            first = [entry[0] if isinstance(entry, tuple) else entry for entry in listed]
            if all(isinstance(path, str | Path) and Path(path).is_absolute() for path in first):
                return [path_from(Path(path), root) for path in first]
    return [None] * len(dataset)


def _plain(name: str) -> str:
    return re.sub(r"\W|_", "", name).lower()


def _line(error: Exception | None) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
