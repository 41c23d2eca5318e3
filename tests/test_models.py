"""The networks: their sizes, their shapes, their initial weights; and how one is found by its name and restored."""

import pathlib
import sys
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from aal.app.models import build_model
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.registry import NETWORKS
from aal.config.settings import Settings
from aal.training.heads import find_head, freeze_all_but_head, set_training_mode
from aal.training.network_checks import check_networks
from aal.training.networks import Architecture, architecture_of, restore_model
from aal.training.optimizers import decayed_kernels
from aal.training.pretrained import load_matching, normalisation_for, read_pretrained

pytestmark = pytest.mark.unit
BUILT_IN = ["vgg16", "vgg16_bn", "resnet18", "resnet8", "cnn"]
OWN = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, classes: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.Tanh())
        self.out = nn.Linear(hidden, classes)
        self.register_buffer("shift", torch.full((1,), 0.5), persistent=False)
        self.scales = [torch.full((1,), 2.0)]
        nn.init.constant_(self.out.weight, 0.25)

    def forward(self, images):
        return self.out(self.body(images + self.shift) * self.scales[0])

def build(classes: int, channels: int, image_size: int, hidden: int = 4) -> nn.Module:
    network = Odd(classes, channels, hidden)
    network(torch.zeros(1, channels, image_size, image_size))
    return network

def plain(num_classes: int, hidden: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, num_classes))

def wrong_shape(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))

def failing(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(63, classes))

def no_module(classes: int) -> int:
    return classes

def headless(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, classes, 8), nn.Flatten())

def blind() -> nn.Module:
    return nn.Identity()
"""


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a user's in the current folder."""
    (tmp_path / "ownnets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "ownnets"
    sys.modules.pop("ownnets", None)


def build(name: str, **changes: Any) -> Any:
    return build_model(name, **{"classes": 10, "channels": 3, "image_size": 32, "width": 0.125, "seed": 0, **changes})


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def payload_of(architecture: Architecture, network: nn.Module) -> dict[str, Any]:
    return {"architecture": architecture.as_dict(), "state_dict": network.state_dict()}


def make_settings(**changes: Any) -> Settings:
    return resolve({"data_type": "digits", "models": "cnn", "initial_size": 10, "val_size": 10, **changes}, "test")


def check(settings: Settings, channels: int = 1) -> None:
    check_networks(settings, classes=10, channels=channels, image_size=8)


# ---------------------------------------------------------------------- built-in networks


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


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 50, 84])
def test_any_image_gives_logits_and_one_embedding(name: str, channels: int, side: int) -> None:
    network = build(name, channels=channels, image_size=side).eval()
    images = torch.zeros(2, channels, side, side)
    embeddings = network.features(images)
    assert embeddings.ndim == 2
    assert network(images).shape == network.head(embeddings).shape == (2, 10)
    assert network(images[:0]).shape == (0, 10)
    assert find_head(network) is network.head


def test_small_networks_take_digits() -> None:
    small = [name for name in BUILT_IN if NETWORKS.facts(name)["smallest_image"] == 8]
    assert small == ["resnet18", "resnet8", "cnn"]
    for name in small:
        assert build(name, channels=1, image_size=8).eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_the_registry_knows_the_networks_and_their_smallest_images() -> None:
    assert list(NETWORKS.entries) == [*BUILT_IN, "linear"]  # which learns on features, whatever their number
    assert all(NETWORKS.facts(name)["smallest_image"] in (8, 32) for name in BUILT_IN)


def test_too_small_images_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^models: vgg16 needs images of at least 32 pixels a side, not 31; .*cnn$"):
        build("vgg16", image_size=31)
    with pytest.raises(UserError, match=r"^models: cnn needs images of at least 8 pixels a side, not 7$"):
        build("cnn", image_size=7)
    with pytest.raises(UserError, match=r"^models: must be vgg16, .* or package\.module:object, not vgg$"):
        build("vgg")


@pytest.mark.parametrize("name", BUILT_IN)
def test_width_scales_every_layer(name: str) -> None:
    full, half = build(name, width=1.0), build(name, width=0.5)
    for one, other in zip(decayed_kernels(full), decayed_kernels(half), strict=True):
        assert one.shape[0] == 2 * other.shape[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"width": 5.0}, "must be at most 4"), ({"depth": 3}, "no such option; there are: width")],
)
def test_wrong_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as caught:
        Architecture("cnn", 10, 3, 32, options).build(0)
    (line,) = caught.value.problems
    assert line.startswith(f"model_options.{next(iter(options))}: ") and text in line and line.endswith("(of cnn)")


@pytest.mark.parametrize("name", BUILT_IN)
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
    found = [names[id(kernel)] for kernel in decayed_kernels(network)]
    assert len(found) == 14
    assert all(name.startswith("features.") and name.endswith(".weight") for name in found)
    assert all(kernel.ndim > 1 for kernel in decayed_kernels(network))


def test_the_output_layer_computes_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert build("cnn")(torch.zeros(2, 3, 32, 32)).dtype == torch.float32


def test_a_frozen_network_trains_its_head_alone() -> None:
    network = build("vgg16_bn")
    freeze_all_but_head(network)
    set_training_mode(network, freeze=True)
    assert [name for name, one in network.named_parameters() if one.requires_grad] == ["head.weight", "head.bias"]
    assert network.head.training and not any(layer.training for layer in network.features.modules())
    assert decayed_kernels(network) == []


# ---------------------------------------------------------------------- networks from elsewhere


def test_a_users_network_keeps_the_weights_that_it_was_given(own: str) -> None:
    network = Architecture(f"{own}:build", 10, 1, 8, {"hidden": 6}).build(0)
    assert (network.out.weight == 0.25).all() and network.out.weight.shape == (10, 6)
    assert network.out.bias.any(), "PyTorch's own initial bias"
    assert same(network, Architecture(f"{own}:build", 10, 1, 8, {"hidden": 6}).build(0))


def test_a_users_network_with_hidden_buffers_is_restored_by_building_it(own: str) -> None:
    architecture = Architecture(f"{own}:build", 10, 1, 8)
    network = architecture.build(3)
    restored = restore_model(payload_of(architecture, network), trusted=[f"{own}:build"])
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(restored(images), network(images))


def test_a_builder_of_another_library_takes_num_classes(own: str) -> None:
    assert Architecture(f"{own}:plain", 7, 1, 8).build(0)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    resnet = Architecture("torchvision.models:resnet18", 7, 3, 32).build(0)
    head = find_head(resnet)
    assert head is not None and head is resnet.fc and head.out_features == 7


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wrong_shape", "gives logits of shape (2, 11) for 2 images, not (2, 10)"),
        ("failing", "fails on images of 1 x 8 x 8: mat1 and mat2 shapes cannot be multiplied"),
        ("no_module", "gives int, not a torch.nn.Module"),
        ("blind", "must take classes"),
        ("nothing", "defines no nothing"),
    ],
)
def test_what_is_no_network_is_reported_before_a_run(own: str, name: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        check(make_settings(models=f"{own}:{name}"))
    (line,) = caught.value.problems
    assert line.startswith("models: ") and text in line


def test_all_problems_of_networks_are_reported_together(own: str) -> None:
    settings = make_settings(models=[f"{own}:failing", f"{own}:headless", "cnn"], freeze=True, pretrained="none.pt")
    with pytest.raises(UserError) as caught:
        check(settings)
    assert [line.partition(":")[0] for line in caught.value.problems] == ["models", "freeze", "pretrained"]
    with pytest.raises(UserError, match=f"^width: {own}:plain has no such option"):
        check(make_settings(models=f"{own}:plain", width=0.5))
    with pytest.raises(
        UserError, match=r"^model_options\.depth: no such option; there are: hidden \(of ownnets:plain\)"
    ):
        check(make_settings(models=f"{own}:plain", model_options={"depth": 1}))
    check(make_settings(models=f"{own}:plain", model_options={"hidden": 3}))


def test_networks_of_torchvision_take_colour_and_grey() -> None:
    for channels in (1, 3):
        network = Architecture("torchvision:resnet18", 10, channels, 32).build(0).eval()
        assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 10)
    with pytest.raises(UserError, match=r"takes images of 1 or 3 channels, not 4"):
        Architecture("torchvision:resnet18", 10, 4, 32).build(0)
    with pytest.raises(UserError, match=r"no such network in torchvision; did you mean torchvision:resnet18\?"):
        Architecture("torchvision:resnet81", 10, 3, 32).build(0)
    with pytest.raises(UserError, match=r"^model_options: torchvision:resnet18: .*unexpected keyword.*depth"):
        Architecture("torchvision:resnet18", 10, 3, 32, {"depth": 3}).build(0)


def test_width_goes_to_networks_that_have_it() -> None:
    size = {"classes": 10, "channels": 1, "image_size": 8}
    narrow, s = make_settings(width=0.5), make_settings(models="torchvision:resnet18")
    assert architecture_of(narrow, narrow.networks[0], **size).options == {"width": 0.5}
    assert architecture_of(s, s.networks[0], **size).options == {}
    with pytest.raises(UserError, match=r"^width: torchvision:resnet18 has no such option"):
        architecture_of(s.model_copy(update={"width": 0.5}), s.networks[0], **size)


# ---------------------------------------------------------------------- model files


@pytest.mark.parametrize("name", [*BUILT_IN, "torchvision:resnet18"])
def test_a_restored_network_is_the_same_and_was_not_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = Architecture(name, 10, 3, 32)
    network = architecture.build(0)
    monkeypatch.setattr(Architecture, "build", lambda *_: pytest.fail("built for real"))
    restored = restore_model(payload_of(architecture, network))
    assert same(restored, network)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(restored.eval()(images), network.eval()(images))


def test_restoring_tells_of_wrong_weights_and_imports_nothing(own: str) -> None:
    architecture = Architecture("resnet18", 10, 3, 32, {"width": 0.125})
    payload = payload_of(architecture, architecture.build(0))

    def renamed(name: str) -> dict[str, Any]:
        return {**payload, "architecture": {**payload["architecture"], "name": name}}

    with pytest.raises(UserError, match=r"^m\.pt: its weights do not fit its own architecture, cnn"):
        restore_model(renamed("cnn"), "m.pt")
    with pytest.raises(UserError, match=r"^m\.pt: models: must be vgg16, .*, not lenet$"):
        restore_model(renamed("lenet"), "m.pt")
    with pytest.raises(
        UserError, match=rf"^m\.pt: its network {own}:build is a user's own code; .*--model {own}:build"
    ):
        restore_model(renamed(f"{own}:build"), "m.pt")
    assert own not in sys.modules


# ---------------------------------------------------------------------- pretrained weights


def test_pretrained_weights_of_a_file_are_loaded_where_they_match(tmp_path: pathlib.Path) -> None:
    source, target = build("cnn", classes=4), build("cnn", classes=10, seed=1)
    for number, content in enumerate((source.state_dict(), {"state_dict": source.state_dict(), "epoch": 3})):
        torch.save(content, tmp_path / f"{number}.pt")
        pretrained = read_pretrained(str(tmp_path / f"{number}.pt"))
        assert load_matching(target, pretrained) == ["head.weight", "head.bias"]
        assert same(target.features, source.features)
        assert normalisation_for(pretrained, 3) is None
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"^pretrained: .*other\.pt: nothing in it fits the network, .* other\.weight$"):
        load_matching(target, read_pretrained(str(tmp_path / "other.pt")))


@pytest.mark.parametrize("content", [None, b"hello", [1, 2], {"a": 1}])
def test_what_holds_no_weights_is_refused_in_one_line(tmp_path: pathlib.Path, content: Any) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"^pretrained: ") as caught:
        read_pretrained(str(path))
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_weights_of_torchvision_bring_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    source = torchvision.models.resnet18()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: source.state_dict())
    read_pretrained.cache_clear()
    pretrained = read_pretrained("ResNet18_Weights.IMAGENET1K_V1")
    network = Architecture("torchvision:resnet18", 10, 3, 32).build(0)
    assert load_matching(network, pretrained) == ["fc.weight", "fc.bias"]
    assert torch.equal(network.conv1.weight, source.conv1.weight)
    assert normalisation_for(pretrained, 3) == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    grey = normalisation_for(pretrained, 1)
    assert grey is not None and grey["mean"] == [pytest.approx(0.449, abs=1e-3)]
    with pytest.raises(UserError, match="is for 3 channels, the images have 2"):
        normalisation_for(pretrained, 2)
    read_pretrained.cache_clear()


def test_weights_that_cannot_be_downloaded_or_are_unknown_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    read_pretrained.cache_clear()
    with pytest.raises(UserError, match=r"^pretrained: https.*resnet18.*cannot be downloaded: .*no route.*; put that"):
        read_pretrained("ResNet18_Weights.IMAGENET1K_V1")
    for name in ("ResNet18_Weights.V9", "ResNet81_Weights.DEFAULT"):
        with pytest.raises(UserError, match=rf"^pretrained: torchvision has no weights {name}"):
            read_pretrained(name)


def test_freezing_random_weights_is_a_contradiction() -> None:
    with pytest.raises(UserError, match="freeze: needs pretrained, for cnn starts from"):
        make_settings(freeze=True)
