"""The built-in networks, each a function from classes, channels and image size to a module that gives logits.

A network of your own needs no change here: write such a function in a file of yours and name it in a config, as
`models: mynets:build` (docs/extending.md). Its weights stay as it makes them.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from aal.config.registry import NETWORKS
from aal.training.classifier import Network
from aal.training.cpu_speedups import Dropout
from aal.training.networks import build_model

__all__ = ["Dropout", "Network", "build_model"]

VGG_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
KERAS = {"eps": 1e-3, "momentum": 0.01}  # of its batch norms

Width = Annotated[float, Field(gt=0, le=4)]


def _initialised(
    network: Network,
    draw_kernel: Callable[[Tensor], Tensor],
    linear: Callable[[Tensor], Tensor] | None = nn.init.xavier_uniform_,
) -> Network:
    """Draws the kernels of convolutions and of linear layers anew and zeroes their biases; None leaves the latter."""
    if network.head.weight.is_meta:  # there are no numbers to draw, and PyTorch would load its compiler to do it
        return network
    for module in network.modules():
        draw = draw_kernel if isinstance(module, nn.Conv2d) else linear if isinstance(module, nn.Linear) else None
        if draw is not None:
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


@NETWORKS.register("vgg16", smallest_image=32, parameters=15_000_000, activations=790, widest=64, dropout=True)
def vgg16(classes: int, channels: int, image_size: int, width: Width = 1.0) -> Network:
    """The published network: batch norm after ReLU, dropout after every convolution but the last of a block."""
    layers: list[nn.Module] = []
    for number, block in enumerate(VGG_BLOCKS):
        for place, wanted in enumerate(block):
            out = _scaled(wanted, width)
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(out, **KERAS)]
            if place < len(block) - 1:
                layers.append(Dropout(0.3 if number == 0 else 0.4))
            channels = out
        layers.append(nn.MaxPool2d(2))
    dense = _scaled(512, width)
    layers += [Dropout(0.5), nn.Flatten(), nn.Linear(channels * (image_size // 32) ** 2, dense)]
    layers += [nn.ReLU(inplace=True), nn.BatchNorm1d(dense, **KERAS), Dropout(0.5)]
    return _initialised(Network(nn.Sequential(*layers), dense, classes), nn.init.xavier_uniform_)


def _convolution(channels: int, out: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


@NETWORKS.register("vgg16_bn", smallest_image=32, parameters=14_700_000, activations=640, widest=64)
def vgg16_bn(classes: int, channels: int, image_size: int, width: Width = 1.0) -> Network:
    """The usual VGG-16 for small images: batch norm before ReLU, no dropout, one linear layer."""
    layers: list[nn.Module] = []
    for block in VGG_BLOCKS:
        for wanted in block:
            layers += _convolution(channels, _scaled(wanted, width))
            channels = _scaled(wanted, width)
        layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _initialised(Network(features, channels, classes), nn.init.kaiming_normal_)


class _Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, norm_in_shortcut: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, out, stride), *_convolution(out, out)[:2])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)
            if norm_in_shortcut:
                self.shortcut = nn.Sequential(self.shortcut, nn.BatchNorm2d(out))

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


@NETWORKS.register("resnet18", smallest_image=8, parameters=11_200_000, activations=1150, widest=64)
def resnet18(classes: int, channels: int, image_size: int, width: Width = 1.0) -> Network:
    """ResNet-18 for small images: a 3x3 stem without pooling."""
    inner = _scaled(64, width)
    layers = _convolution(channels, inner)
    for wanted, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        out = _scaled(wanted, width)
        layers += [_Residual(inner, out, stride), _Residual(out, out, 1)]
        inner = out
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _initialised(Network(features, inner, classes), nn.init.kaiming_normal_)


@NETWORKS.register("resnet8", smallest_image=8, parameters=78_000, activations=135, widest=16)
def resnet8(classes: int, channels: int, image_size: int, width: Width = 1.0) -> Network:
    """KAFAL's "preact ResNet-8" as its code has it: blocks that end in ReLU, and a last batch norm and ReLU."""
    inner = _scaled(16, width)
    layers: list[nn.Module] = [nn.Conv2d(channels, inner, 3, padding=1, bias=False)]
    for wanted, stride in ((16, 1), (32, 2), (64, 2)):
        layers.append(_Residual(inner, _scaled(wanted, width), stride, norm_in_shortcut=False))
        inner = _scaled(wanted, width)
    layers += [nn.BatchNorm2d(inner), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = Network(nn.Sequential(*layers), inner, classes)
    return _initialised(network, partial(nn.init.kaiming_normal_, mode="fan_out"), linear=None)


@NETWORKS.register("cnn", smallest_image=8, parameters=100_000, activations=152, widest=32)
def cnn(classes: int, channels: int, image_size: int, width: Width = 1.0) -> Network:
    """Three convolutions: for tests and tiny images."""
    layers: list[nn.Module] = []
    for wanted in (32, 64, 128):
        layers += [*_convolution(channels, _scaled(wanted, width)), nn.MaxPool2d(2)]
        channels = _scaled(wanted, width)
    features = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return _initialised(Network(features, 4 * channels, classes), nn.init.kaiming_normal_)


@NETWORKS.register("linear", learns_on="features", parameters=31_000, activations=3, widest=1)
def linear(classes: int, channels: int, image_size: int) -> Network:
    """A linear classifier of the `features` of a run, which it sees as images of one pixel and many channels."""
    return _initialised(Network(nn.Flatten(), channels * image_size**2, classes), nn.init.xavier_uniform_)
