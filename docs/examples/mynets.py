"""A network of one's own.

python main.py --config digits.yaml models=mynets:build model_options.hidden=64
"""

from typing import Annotated

from pydantic import Field
from torch import nn


def build(
    classes: int, channels: int, image_size: int, hidden: Annotated[int, Field(ge=1)] = 32, dropout: float = 0.2
) -> nn.Module:
    """Returns a network from images (n, channels, image_size, image_size) to logits (n, classes).

    Args:
        classes: number of logits.
        channels: of the images.
        image_size: pixels a side.
        hidden: channels of the convolutions.
        dropout: share of the embedding that is set to 0 in training.
    """
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1),
        nn.BatchNorm2d(hidden),
        nn.GELU(),
        nn.Conv2d(hidden, hidden, 3, stride=2, padding=1),
        nn.BatchNorm2d(hidden),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * hidden, classes),
    )
