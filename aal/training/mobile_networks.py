"""A family of MobileNetV3, as `models: mobilenet_v3:a`, with the choices of once-for-all networks.

Howard et al., "Searching for MobileNetV3", 2019; kernel sizes, expansion ratios and depths as in Cai et al.,
"Once-for-All", 2020, one choice a stage here. Members a to l are twelve target models of descending cost for a GPU,
small_a to small_l for CPUs (docs/diam.md lists parameters and multiply-adds). The weights begin at random.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.training.classifier import Network

# Of MobileNetV3-Large, for each stage: channels, stride, squeeze-and-excite, hard swish.
STAGES = ((24, 2, False, False), (40, 2, True, False), (80, 2, False, True), (112, 1, True, True), (160, 2, True, True))

Kernels = Annotated[list[Literal[3, 5, 7]], Field(min_length=1, max_length=len(STAGES))]
Expansions = Annotated[list[Annotated[float, Field(ge=1, le=8)]], Field(min_length=1, max_length=len(STAGES))]
Depths = Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=1, max_length=len(STAGES))]
Width = Annotated[float, Field(gt=0, le=4)]


@dataclass(frozen=True)
class Member:
    """A network of the family: an entry a stage, and the factor on all channels.

    Small images are halved less often, from the front, so that the last features have at least `last_side` pixels.
    """

    kernels: tuple[int, ...]
    expansions: tuple[float, ...]
    depths: tuple[int, ...]
    width: float = 1.0
    last_side: int = 4


MEMBERS = {
    "a": Member((7, 7, 7, 7, 7), (6, 6, 6, 6, 6), (4, 4, 4, 4, 4)),
    "b": Member((5, 7, 5, 7, 5), (6, 6, 6, 6, 6), (4, 3, 4, 4, 4)),
    "c": Member((5, 5, 7, 5, 7), (4, 6, 6, 6, 6), (3, 4, 3, 4, 4)),
    "d": Member((3, 5, 5, 5, 5), (6, 4, 6, 6, 6), (3, 3, 4, 3, 4)),
    "e": Member((3, 5, 3, 7, 5), (4, 4, 6, 6, 6), (3, 3, 3, 4, 3)),
    "f": Member((5, 3, 5, 3, 5), (4, 6, 4, 6, 6), (2, 3, 3, 3, 3)),
    "g": Member((3, 5, 3, 5, 3), (4, 4, 4, 6, 6), (2, 3, 3, 3, 2)),
    "h": Member((3, 3, 5, 5, 5), (4, 4, 4, 4, 6), (2, 2, 3, 2, 3)),
    "i": Member((3, 3, 3, 3, 5), (3, 4, 4, 4, 6), (2, 2, 2, 3, 2)),
    "j": Member((3, 3, 3, 5, 3), (3, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "k": Member((3, 3, 3, 3, 3), (3, 3, 3, 4, 4), (1, 2, 2, 2, 2)),
    "l": Member((3, 3, 3, 3, 3), (3, 3, 3, 3, 3), (1, 1, 2, 1, 2)),
    "small_a": Member((5, 5, 5), (4, 4, 4), (2, 2, 2), 0.5, 2),
    "small_b": Member((3, 5, 5), (4, 4, 4), (2, 2, 2), 0.5, 2),
    "small_c": Member((5, 3, 5), (3, 4, 4), (2, 2, 2), 0.5, 2),
    "small_d": Member((3, 3, 3), (4, 4, 4), (2, 2, 2), 0.5, 2),
    "small_e": Member((3, 5, 3), (3, 4, 4), (2, 1, 2), 0.5, 2),
    "small_f": Member((3, 3, 5), (4, 3, 4), (1, 2, 2), 0.5, 2),
    "small_g": Member((3, 3, 3), (4, 3, 3), (1, 2, 1), 0.5, 2),
    "small_h": Member((3, 5, 3), (3, 3, 4), (1, 1, 2), 0.5, 2),
    "small_i": Member((3, 3, 3), (3, 3, 4), (1, 1, 1), 0.5, 2),
    "small_j": Member((5, 3), (3, 3), (1, 2), 0.5, 2),
    "small_k": Member((3, 3), (3, 3), (1, 2), 0.5, 2),
    "small_l": Member((3, 3), (3, 3), (1, 1), 0.5, 2),
}


def from_library(name: str) -> Callable[..., nn.Module]:
    """Returns the builder of a member; kernels, expansions, depths and width are options that change it.

    Raises:
        UserError: there is no such member.
    """
    if name not in MEMBERS:
        raise UserError(f"models: mobilenet_v3:{name}: must be one of {', '.join(MEMBERS)}")
    member = MEMBERS[name]

    def build(
        classes: int,
        channels: int,
        image_size: int,
        width: Width = member.width,
        kernels: Kernels = list(member.kernels),  # type: ignore[arg-type]  # noqa: B006 - never changed
        expansions: Expansions = list(member.expansions),  # noqa: B006 - never changed
        depths: Depths = list(member.depths),  # noqa: B006 - never changed
    ) -> nn.Module:
        if not len(kernels) == len(expansions) == len(depths):
            counts = f"{len(kernels)} kernels, {len(expansions)} expansions, {len(depths)} depths"
            raise UserError(f"model_options: mobilenet_v3:{name}: needs one of each for every stage, not {counts}")
        changed = Member(tuple(kernels), tuple(expansions), tuple(depths), width, member.last_side)
        return mobilenet_v3(classes, channels, image_size, changed)

    return build


def mobilenet_v3(classes: int, channels: int, image_size: int, member: Member) -> Network:
    """Builds a network of as many stages as the member has entries."""
    used = STAGES[: len(member.depths)]
    strides = _strides([2, *(stride for _, stride, *_ in used)], image_size, member.last_side)
    inner = _channels(16, member.width)
    layers = [*_convolution(channels, inner, 3, strides[0]), nn.Hardswish(inplace=True)]
    layers.append(Block(inner, inner, inner, 3, 1, squeezes=False, hard_swish=False))
    for stage, (wanted, _, squeezes, hard_swish) in enumerate(used):
        out = _channels(wanted, member.width)
        for depth in range(member.depths[stage]):
            expanded = _channels(inner * member.expansions[stage], 1.0)
            stride = 1 if depth else strides[1 + stage]
            layers.append(Block(inner, expanded, out, member.kernels[stage], stride, squeezes, hard_swish))
            inner = out
    last, embedding = 6 * inner, _channels(8 * inner, 1.0)
    layers += [*_convolution(inner, last, 1), nn.Hardswish(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(last, embedding), nn.Hardswish(inplace=True)]
    return _initialised(Network(nn.Sequential(*layers), embedding, classes))


class Block(nn.Module):
    """An inverted residual: expand, filter each channel, squeeze and excite, project.

    Args:
        channels: of the input.
        expanded: channels in between.
        out: of the output; where it is `channels` and the stride 1, the input is added.
        kernel: pixels a side of the filters.
        stride: of the filters.
        squeezes: whether channels are weighted by their mean over the image.
        hard_swish: the activation; otherwise ReLU.
    """

    def __init__(
        self, channels: int, expanded: int, out: int, kernel: int, stride: int, squeezes: bool, hard_swish: bool
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and channels == out
        act = nn.Hardswish if hard_swish else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != channels:
            layers += [*_convolution(channels, expanded, 1), act(inplace=True)]
        layers += [*_convolution(expanded, expanded, kernel, stride, groups=expanded), act(inplace=True)]
        if squeezes:
            layers.append(SqueezeExcite(expanded))
        self.body = nn.Sequential(*layers, *_convolution(expanded, out, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features (n, out, side, side) of features (n, channels, side, side)."""
        found: Tensor = self.body(images)
        return images + found if self.adds else found


class SqueezeExcite(nn.Module):
    """Weights each channel by a number from 0 to 1 that all channels' means give (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = _channels(channels / 4, 1.0)
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Returns weighted features of the same shape."""
        squeezed = torch.relu(self.reduce(images.mean((2, 3), keepdim=True)))
        return images * nn.functional.hardsigmoid(self.expand(squeezed))


def _channels(wanted: float, width: float) -> int:
    """Returns a multiple of 8, as usual for these networks, at least 8 and at least nine tenths of what is wanted."""
    scaled = wanted * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def _strides(strides: list[int], image_size: int, last_side: int) -> list[int]:
    """Returns the strides, those at the front 1 where the last features would be smaller than `last_side`."""
    kept = list(strides)
    for place in range(len(kept)):
        if math.ceil(image_size / math.prod(kept)) >= last_side:
            break
        kept[place] = 1
    return kept


def _convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(out)]


def _initialised(network: Network) -> Network:
    """Draws kernels by He with the fan of the output, as the published training does, and the linear layers small."""
    if network.head.weight.is_meta:
        return network
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def multiply_adds(network: Network, channels: int, image_size: int) -> int:
    """Returns the multiplications of convolutions and linear layers for one image; the network ends in eval mode."""
    counts: list[int] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        weight = layer.get_parameter("weight")
        counts.append(weight[0].numel() * output[0].numel())

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.features.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        network.eval().features(torch.zeros(1, channels, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return sum(counts) + network.head.weight.numel()
