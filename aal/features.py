"""The features of a run: a file of the user's, or computed once by a network and kept beside the prepared arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import pathlib
import re
from typing import TYPE_CHECKING

from aal.config.contradictions import learns_on_features
from aal.config.errors import UserError, of_system
from aal.config.loading import FROM_TORCHVISION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aal.app.data import ImageSet
    from aal.config.settings import Settings

log = logging.getLogger("aal")


def with_features(settings: Settings, image_set: ImageSet) -> ImageSet:
    """Returns the set with the features that the settings name.

    Where the networks of the run learn on these, they stand in the place of the images.

    Args:
        settings: of the run.
        image_set: the prepared set.

    Raises:
        UserError: the file is not right, or there is no such network, or it does not take the images.
        RunFailed: the disk is full or fails.
    """
    from aal.app.data import on_features, open_features

    if settings.features is None:
        return image_set
    path = _file_of(settings, image_set)
    features = open_features(path, len(image_set.labels), image_set.data_type)
    if learns_on_features(settings):
        image_set = on_features(image_set, path)
    return dataclasses.replace(image_set, features=features)


def check_unchanged(run: pathlib.Path, settings: Settings, image_set: ImageSet, meta: Mapping[str, str]) -> None:
    """Checks that a run goes on with the images and features that it began with.

    Args:
        run: the run directory.
        settings: of the run.
        image_set: as it is now.
        meta: of the record of the run.

    Raises:
        UserError: they are others.
    """
    if meta["images"] != image_set.folder.name:
        raise UserError(f"{run}: data_dir {settings.data_dir} no longer holds the images that the run began with")
    if image_set.features and meta.get("features") != image_set.features.digest:
        raise UserError(f"{run}: features {settings.features} are no longer those that the run began with")


def _file_of(settings: Settings, image_set: ImageSet) -> pathlib.Path:
    """The .npy file of the features; what a network computes goes into the folder of the prepared set, once."""
    name = str(settings.features)
    if not FROM_TORCHVISION.match(name) and not name.endswith(".pt"):
        return pathlib.Path(name).expanduser()
    from aal.app.data.cache import locked
    from aal.training.features import read_network, write_features

    network = read_network(name, settings.models, image_set.images.shape)
    short = re.sub(r"\W+", "-", pathlib.Path(name).stem)[:40]
    digest = hashlib.blake2b(network.digest.encode(), digest_size=8).hexdigest()
    path = image_set.folder / f"features-{short}-{digest}.npy"
    try:
        with locked(image_set.folder):
            if not path.exists():
                log.info("computing the features of %d images with %s", len(image_set.labels), name)
                write_features(path, network, image_set.images, settings.devices.workers[0])
    except OSError as error:
        raise of_system(error, f"prepared_dir: cannot write {path}: {error.strerror or error}") from None
    return path
