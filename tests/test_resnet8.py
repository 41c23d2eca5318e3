"""ResNet-8: the network of KAFAL's authors, layer by layer."""

import pytest
import torch
from torch import nn

from tests.test_models import build

pytestmark = pytest.mark.unit


def test_resnet8_is_the_published_one() -> None:
    """Layer by layer as in models/preact_resnet.py of the authors' repository, which is written down here anew."""
    network = build("resnet8", width=1.0).double().eval()  # in float32, processors that round otherwise differ
    parts = [432, 2 * 2304 + 64, 4608 + 9216 + 128 + 512, 18432 + 36864 + 256 + 2048, 128, 650]  # by layer, ten classes
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(parts) == 77_946
    stem, *blocks, norm, _, _, _ = network.features
    for module in network.modules():  # statistics of a network that was trained
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    found = nn.functional.conv2d(images, stem.weight, padding=1)
    for block, stride in zip(blocks, (1, 2, 2), strict=True):
        first, first_norm, _, second, second_norm = block.body
        inner = torch.relu(first_norm(nn.functional.conv2d(found, first.weight, stride=stride, padding=1)))
        inner = second_norm(nn.functional.conv2d(inner, second.weight, padding=1))
        shortcut = found if stride == 1 else nn.functional.conv2d(found, block.shortcut.weight, stride=stride)
        found = torch.relu(inner + shortcut)
    pooled = nn.functional.avg_pool2d(torch.relu(norm(found)), 8)
    torch.testing.assert_close(network.features(images), pooled.flatten(1))
    network.head.float()
    torch.testing.assert_close(network(images), network.head(pooled.flatten(1).float()))
    assert stem.weight.std().item() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet8_takes_digits_and_photographs(side: int, channels: int) -> None:
    network = build("resnet8", channels=channels, image_size=side, width=1.0).eval()
    assert network.features(torch.zeros(2, channels, side, side)).shape == (2, 64)
