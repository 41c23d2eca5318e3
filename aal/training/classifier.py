"""What the built-in networks have in common: features, and a linear layer that gives logits in float32."""

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A classifier in two parts.

    Args:
        features: from images (n, channels, side, side) to embeddings (n, embedding).
        embedding: numbers an embedding has.
        classes: numbers of logits.
    """

    def __init__(self, features: nn.Module, embedding: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(embedding, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (n, classes) of images (n, channels, side, side)."""
        embeddings = self.features(images)
        # bfloat16 keeps 8 bits of a logit: too few to rank images by the margin between two of them.
        with torch.autocast(images.device.type, enabled=False):
            return self.head(embeddings.float())
