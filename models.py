"""The networks, built by name: `features` end in one embedding an image, `head` makes logits of it.

A network of your own: write a function like those below and name it in NETWORKS, and in aal.config in ModelName and
SMALLEST_IMAGES.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aal.config.contradictions import misfit
from aal.config.errors import UserError

VGG_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
KERAS = {"eps": 1e-3, "momentum": 0.01}  # of its batch norms


class Network(nn.Module):
    """A classifier in two parts.

    Args:
        features: from images (n, channels, side, side) to embeddings (n, embedding).
        embedding: numbers an embedding has.
        classes: numbers of logits.
    """

    architecture: dict[str, Any]  # the arguments of build_model without the seed: plain values, for the model file

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


class Dropout(nn.Dropout):
    """PyTorch's dropout, which on a CPU draws its numbers one by one with one thread; here 16 random bits each.

    So `p` is rounded to a multiple of 2^-16.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Returns the numbers, a share of `p` of them set to 0, the rest scaled up to keep the mean."""
        if not self.training or images.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(images)
        words = torch.empty(-(-images.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: images.numel()].ge_(round(self.p * 2**16) - 2**15)  # 1, or 0 for a dropped one
        noise = torch.empty_like(images)  # in the memory layout of the images
        noise.as_strided(kept.shape, (1,)).copy_(kept).mul_(1 / (1 - self.p))
        return images * noise


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _vgg16(channels: int, image_size: int, width: float) -> tuple[nn.Module, int]:
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
    return nn.Sequential(*layers), dense


def _convolution(channels: int, out: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


def _vgg16_bn(channels: int, image_size: int, width: float) -> tuple[nn.Module, int]:
    """The usual VGG-16 for small images: batch norm before ReLU, no dropout, one linear layer."""
    layers: list[nn.Module] = []
    for block in VGG_BLOCKS:
        for wanted in block:
            layers += _convolution(channels, _scaled(wanted, width))
            channels = _scaled(wanted, width)
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels


class _Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, out, stride), *_convolution(out, out)[:2])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


def _resnet18(channels: int, image_size: int, width: float) -> tuple[nn.Module, int]:
    """ResNet-18 for small images: a 3x3 stem without pooling."""
    inner = _scaled(64, width)
    layers = _convolution(channels, inner)
    for wanted, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        out = _scaled(wanted, width)
        layers += [_Residual(inner, out, stride), _Residual(out, out, 1)]
        inner = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inner


def _cnn(channels: int, image_size: int, width: float) -> tuple[nn.Module, int]:
    """Three convolutions: for tests and tiny images."""
    layers: list[nn.Module] = []
    for wanted in (32, 64, 128):
        layers += [*_convolution(channels, _scaled(wanted, width)), nn.MaxPool2d(2)]
        channels = _scaled(wanted, width)
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(2), nn.Flatten()), 4 * channels


class Kind(NamedTuple):
    """How a network is built: its features, and how their kernels are drawn."""

    features: Callable[[int, int, float], tuple[nn.Module, int]]
    kernels: Callable[[Tensor], Tensor]


NETWORKS = {
    "vgg16": Kind(_vgg16, nn.init.xavier_uniform_),
    "vgg16_bn": Kind(_vgg16_bn, nn.init.kaiming_normal_),
    "resnet18": Kind(_resnet18, nn.init.kaiming_normal_),
    "cnn": Kind(_cnn, nn.init.kaiming_normal_),
}


def check_model(name: str, image_size: int) -> None:
    """Checks, before a run, that a network can be built for images of a size.

    Raises:
        UserError: there is no such network, or its poolings leave nothing of images that small.
    """
    if name not in NETWORKS:
        raise UserError(f"models: there is no network {name}; there are: {', '.join(NETWORKS)}")
    if problem := misfit(name, image_size):
        raise UserError(f"models: {problem}")


def build_model(name: str, *, classes: int, channels: int, image_size: int, width: float = 1.0, seed: int) -> Network:
    """Builds a network on the CPU; the same seed gives the same weights on every machine.

    Args:
        name: one of NETWORKS.
        classes: numbers of logits.
        channels: of the images, 1 or 3.
        image_size: pixels a side.
        width: factor on the channels of every layer.
        seed: of the initial weights; the process's own random numbers are left as they are.

    Raises:
        UserError: as `check_model`.
    """
    check_model(name, image_size)
    kind = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Network(*kind.features(channels, image_size, width), classes)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                draw = kind.kernels if isinstance(module, nn.Conv2d) else nn.init.xavier_uniform_
                draw(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    network.architecture = {
        "name": name, "classes": classes, "channels": channels, "image_size": image_size, "width": width,
    }  # fmt: skip
    return network


def rebuild(payload: dict[str, Any], path: str | pathlib.Path = "the model file") -> Network:
    """Builds the network of a model file with the weights of the file.

    Args:
        payload: what `aal.publish.load_model` returned.
        path: the file that messages name.

    Raises:
        UserError: the weights are not those of the architecture that the file names.
    """
    try:
        network = build_model(**payload["architecture"], seed=0)
        network.load_state_dict(payload["state_dict"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RuntimeError:
        name = payload["architecture"]["name"]
        raise UserError(f"{path}: its weights do not fit its own architecture, {name}; the file is damaged") from None
    return network
