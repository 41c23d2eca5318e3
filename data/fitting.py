"""Settings that a config leaves open, fitted to the image set: sizes to how many images there are, crops to theirs."""

import json
from typing import Any

import numpy as np

from aal.app.data.arrays import UNKNOWN, ImageSet
from aal.app.data.splits import divide, share_for_testing
from aal.app.data.torchvision_catalogue import is_of_signs
from aal.config.contradictions import contradictions
from aal.config.errors import UserError
from aal.config.registry import IMAGE_SETS
from aal.config.settings import Settings

TRAININGS = 5  # that a budget gives, where nothing says how many


def fit_to(image_set: ImageSet, settings: Settings) -> tuple[Settings, str]:
    """Returns the settings with those filled in that the config leaves open, and these as text for the user.

    Sizes only ever shrink from their defaults, which fit 50,000 images. Of n labelled images outside the test set, a
    tenth is for validation and a tenth is labelled at the start (at least two for each class, but not more than a
    quarter; where people are to label others, all that validation leaves); the budget is at most half of the pool; a
    training starts after a fifth of the budget. Crops are padded by an eighth of the side, and images of digits,
    letters and signs are not flipped.

    Args:
        image_set: the prepared set.
        settings: of the run.

    Raises:
        UserError: what was filled in contradicts what was given.
    """
    sizes = {key: value for key, value in _sizes(image_set, settings).items() if key in settings.left_open}
    crops = {key: value for key, value in _crops(image_set).items() if key in settings.training.left_open}
    fitted = settings.model_copy(update={**sizes, "training": settings.training.model_copy(update=crops)})
    if sizes:
        problems = [f"{keys[0]}: {text}" for keys, text in contradictions(fitted)]
        if problems:
            raise UserError(*problems)
    filled_in = {**sizes, **{f"training.{key}": value for key, value in crops.items()}}
    return fitted, ", ".join(f"{key}={json.dumps(value)}" for key, value in filled_in.items())


def _sizes(image_set: ImageSet, s: Settings) -> dict[str, int]:
    known = int((np.asarray(image_set.labels) != UNKNOWN).sum())
    unknown = len(image_set.labels) - known
    if image_set.test is None:
        known -= min(known, max(1, round(share_for_testing(image_set.data_type, s.test_share) * known)))
    else:
        known -= len(image_set.test)
    if s.imbalance is not None:
        known = len(divide(image_set, s)[1])
    tenth, least = known // 10, min(2 * len(image_set.classes), known // 4)
    found = {"val_size": min(s.val_size, tenth), "initial_size": min(s.initial_size, known, max(1, tenth, least))}
    of_given = {key: getattr(s, key) for key in found if key not in s.left_open}
    if s.people.label and unknown:  # nobody is asked for what is known already
        found["initial_size"] = known - {**found, **of_given}["val_size"]
    pool = known + unknown - sum({**found, **of_given}.values())
    batches = s.worker_num * s.worker_query_num
    batch = min(s.query_batch, max(1, pool // (2 * batches))) if "query_batch" in s.left_open else s.query_batch
    return {
        **found,
        "query_batch": batch,
        "server_train_threshold": min(s.server_train_threshold, max(1, batches * batch // TRAININGS)),
    }


def _crops(image_set: ImageSet) -> dict[str, Any]:
    if image_set.images.dtype != np.uint8:  # features
        return {"crop_padding": 0, "flip": False}
    may_flip = IMAGE_SETS.facts(image_set.data_type).get("flip", not is_of_signs(image_set.data_type))
    return {"crop_padding": image_set.images.shape[1] // 8, "flip": may_flip}
