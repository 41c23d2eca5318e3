"""The networks: their sizes, their shapes, their initial weights."""

from typing import Any

import pytest
import torch
from torch import nn

from aal.app.models import NETWORKS, build_model, check_model, rebuild
from aal.config.errors import UserError
from aal.config.settings import SMALLEST_IMAGES
from aal.training.optimizers import decayed

pytestmark = pytest.mark.unit


def build(name: str, **changes: Any) -> nn.Module:
    return build_model(name, **{"classes": 10, "channels": 3, "image_size": 32, "width": 0.125, "seed": 0, **changes})


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_vgg16_has_the_published_number_of_parameters() -> None:
    network = build("vgg16", width=1.0)
    statistics = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    assert sum(parameter.numel() for parameter in network.parameters()) + statistics == 15_001_418


def test_vgg16_has_the_published_order_of_layers() -> None:
    layers = [type(layer).__name__ for layer in build("vgg16").features]
    unit = ["Conv2d", "ReLU", "BatchNorm2d"]
    two, three = [*unit, "Dropout", *unit, "MaxPool2d"], [*unit, "Dropout", *unit, "Dropout", *unit, "MaxPool2d"]
    head = ["Dropout", "Flatten", "Linear", "ReLU", "BatchNorm1d", "Dropout"]
    assert layers == [*two, *two, *three, *three, *three, *head]
    rates = [layer.p for layer in build("vgg16").features if isinstance(layer, nn.Dropout)]
    assert rates == [0.3, *[0.4] * 7, 0.5, 0.5]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 50, 84])
def test_any_image_gives_logits_and_one_embedding(name: str, channels: int, side: int) -> None:
    network = build(name, channels=channels, image_size=side).eval()
    images = torch.zeros(2, channels, side, side)
    embeddings = network.features(images)
    assert embeddings.ndim == 2
    assert network(images).shape == network.head(embeddings).shape == (2, 10)
    assert network(images[:0]).shape == (0, 10)


@pytest.mark.parametrize("name", [name for name, side in SMALLEST_IMAGES.items() if side == 8])
def test_small_networks_take_digits(name: str) -> None:
    assert build(name, channels=1, image_size=8).eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_every_network_tells_its_smallest_image() -> None:
    assert set(NETWORKS) == set(SMALLEST_IMAGES)


def test_too_small_images_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^models: vgg16 needs images of at least 32 pixels a side, not 31; .*cnn$"):
        check_model("vgg16", 31)
    with pytest.raises(UserError, match=r"^models: cnn needs images of at least 8 pixels a side, not 7$"):
        build("cnn", image_size=7)
    with pytest.raises(UserError, match="no network vgg; there are: vgg16"):
        check_model("vgg", 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_width_scales_every_layer(name: str) -> None:
    full, half = build(name, width=1.0), build(name, width=0.5)
    for one, other in zip(decayed(full), decayed(half), strict=True):
        assert one.shape[0] == 2 * other.shape[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_alone_gives_the_weights(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, build(name))
    assert not same(first, build(name, seed=1))


def test_vgg16_starts_as_keras_does() -> None:
    for layer in build("vgg16").modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert not layer.bias.any()
            fan_in, fan_out = (layer.weight[0].numel(), layer.weight.numel() // layer.weight.shape[1])
            limit = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.8 * limit < layer.weight.abs().max() <= limit


def test_decay_is_for_kernels_but_the_last() -> None:
    network = build("vgg16")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = [names[id(kernel)] for kernel in decayed(network)]
    assert len(found) == 14
    assert all(name.startswith("features.") and name.endswith(".weight") for name in found)
    assert all(kernel.ndim > 1 for kernel in decayed(network))


def test_the_output_layer_computes_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert build("cnn")(torch.zeros(2, 3, 32, 32)).dtype == torch.float32


def test_rebuild_gives_the_same_network_and_tells_of_wrong_weights() -> None:
    network = build("resnet18")
    payload = {"architecture": network.architecture, "state_dict": network.state_dict()}
    assert same(rebuild(payload), network)
    with pytest.raises(UserError, match=r"^m\.pt: its weights do not fit its own architecture, cnn"):
        rebuild({**payload, "architecture": {**network.architecture, "name": "cnn"}}, "m.pt")
    with pytest.raises(UserError, match=r"^m\.pt: models: there is no network lenet"):
        rebuild({**payload, "architecture": {**network.architecture, "name": "lenet"}}, "m.pt")
