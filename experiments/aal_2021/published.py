"""What the paper and its repository publish, read from `paper.yaml`, which tells where each number is from."""

import pathlib
from typing import Any

import yaml

FOLDER = pathlib.Path(__file__).parent
PUBLISHED: dict[str, Any] = yaml.safe_load((FOLDER / "paper.yaml").read_text(encoding="utf-8"))

TITLES = {
    "random": "Random",
    "entropy": "Entropy",
    "least_confidence": "Least confidence",
    "margin": "Margin",
    "AAL": "AAL",
}
METHODS = tuple(TITLES)
STRATEGIES = METHODS[1:-1]
BATCHES = (1000, 2500, 5000)
TIMED_BATCHES = (*BATCHES, 10000)
SERVERS = (1, 2, 4)
DATA_TYPES = tuple(PUBLISHED["settings"])


def accuracy(data_type: str, batch: int, method: str, training: int) -> float | None:
    """Returns figure 2's test accuracy after `training` trainings (0 is the initial one); None where it has none."""
    panel = PUBLISHED["figure2"].get(data_type)
    curve = [panel["start"], *panel[batch][method]] if panel else []
    return curve[training] if training < len(curve) else None


def seconds(data_type: str, mode: str, batch: int) -> tuple[float, float] | None:
    """Returns figure 4's time between two queries, least and most; None where it has none."""
    times = PUBLISHED["figure4"].get(data_type)
    return tuple(times[mode][batch]) if times else None


def mean_accuracy(data_type: str, method: str, servers: int) -> float | None:
    """Returns table 1's mean accuracy over the curve; None where it has none."""
    rows = PUBLISHED["table1"].get(data_type)
    return rows[method][servers] if rows else None
