"""What the losses of a training say about it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def diverged(history: Sequence[Mapping[str, Any]]) -> str:
    """Returns what is wrong with a training whose last epoch has no finite loss; nothing when it has one."""
    last = history[-1] if history else {"loss": 0.0}
    return "" if math.isfinite(last["loss"]) else f"training: its loss is {last['loss']} in epoch {last['epoch']}"


def suspicion(history: Sequence[Mapping[str, Any]], classes: int) -> str:
    """Returns what a user should know of a training's losses; nothing where they are as they should be."""
    if problem := diverged(history):
        return f"{problem}; the best epoch before is kept"
    least, chance = min((epoch["loss"] for epoch in history), default=0.0), math.log(classes)
    if least < chance or classes == 1:
        return ""
    return (
        f"training: its loss never fell below that of chance ({least:.3f}, chance {chance:.3f}), so the model knows "
        "nothing; look at the labels, and at training.learning_rate, weight_decay and crop_padding"
    )
