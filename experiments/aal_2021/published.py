"""What the paper and its repository publish, read from `paper.yaml`, which says where each number is from."""

import pathlib
from typing import Any

import yaml

FOLDER = pathlib.Path(__file__).parent
PUBLISHED: dict[str, Any] = yaml.safe_load((FOLDER / "paper.yaml").read_text(encoding="utf-8"))

TITLES = dict(random="Random", entropy="Entropy", least_confidence="Least confidence", margin="Margin", AAL="AAL")
METHODS = tuple(TITLES)
STRATEGIES = METHODS[1:-1]
BATCHES = (1000, 2500, 5000)
TIMED_BATCHES = (*BATCHES, 10000)
SERVERS = (1, 2, 4)
DATA_TYPES = tuple(PUBLISHED["settings"])


def published(*keys: Any) -> Any:
    """Returns what `paper.yaml` has under keys, such as a table, a data set, a method; None where it has nothing."""
    found: Any = PUBLISHED
    for key in keys:
        found = (found or {}).get(key)
    return found


def accuracy(data_type: str, batch: int, method: str, training: int) -> float | None:
    """Returns figure 2's test accuracy after `training` trainings (0 is the initial one); None where it has none."""
    curve = [published("figure2", data_type, "start"), *(published("figure2", data_type, batch, method) or [])]
    return curve[training] if training < len(curve) else None
