"""An image set of one's own: any function that returns images, and labels as far as they are known.

    python main.py --config digits.yaml data_type=mydata:load data_options.digits=[3,5,8]

The folder of this file must be the current one or on PYTHONPATH.
"""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits


def load(digits: list[int] | None = None, labelled: int | None = None) -> dict[str, Any]:
    """Returns scikit-learn's images of some digits.

    Args:
        digits: which ones, for example [3, 5, 8]; None takes all ten.
        labelled: how many of the images have a label; None: all. The others wait in the workers' shards for people who
            label them: simulated annotators know no answer for them.

    Returns:
        images: (n, 8, 8) uint8.
        labels: n names of classes, None where the class is not known.
        classes: the names, which are needed only where some class has no labelled image.
    """
    source = load_digits()
    chosen = np.isin(source.target, digits or range(10))
    names = [f"a {digit}" for digit in source.target[chosen]]
    known = len(names) if labelled is None else labelled
    return {
        "images": (source.images[chosen] * 255 / 16).astype(np.uint8),
        "labels": [name if row < known else None for row, name in enumerate(names)],
        "classes": [f"a {digit}" for digit in digits or range(10)],
    }
