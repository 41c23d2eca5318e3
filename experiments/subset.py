"""A part of an image set, for runs that are smaller than the paper's in everything."""

from pathlib import Path
from typing import Any

import numpy as np

from aal.app.data import open_set, prepare
from aal.app.eval import ANY_RUN
from aal.config.loading import resolve

SEED = 0  # of the choice: the same images in every run


def load(data_dir: Path, of: str = "mnist", images: int = 6000, test: int = 2000, after: int = 0) -> dict[str, Any]:
    """Returns some images of a set, drawn once and for all; of the test images too.

    Args:
        data_dir: of the set.
        of: its data type.
        images: to keep of those that are not for testing.
        test: images to keep of those that are.
        after: how many of those that are not for testing are drawn before, and left out.
    """
    whole = open_set(prepare(resolve({"data_type": of, "data_dir": str(data_dir), **ANY_RUN}, "subset")))
    assert whole.test is not None
    rng = np.random.RandomState(SEED)
    others = np.setdiff1d(np.arange(len(whole.images)), whole.test)
    drawn = rng.permutation(len(others))[after : after + images], rng.permutation(len(whole.test))[:test]
    rows = np.concatenate([np.sort(others[drawn[0]]), np.sort(np.asarray(whole.test)[drawn[1]])])
    return {
        "images": np.asarray(whole.images[rows]),
        "labels": whole.labels[rows],
        "classes": list(whole.classes),
        "test": range(len(drawn[0]), len(rows)),
    }
