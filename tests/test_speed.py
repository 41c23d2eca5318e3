"""Every fast path against the plain one: the same outputs, the same distribution, the same ids chosen."""

import numpy as np
import pytest
import torch
from torch import nn

from aal.faster import _compiles, compiled, folded
from aal.strategies import choose, near_the_cut
from aal.training import predict
from models import Dropout, build_model
from tests.test_training import CPU, PLAIN, ImageBank, recipe, run, stripes

pytestmark = pytest.mark.unit


def settled(name: str) -> nn.Module:
    """A network whose batch norms have seen images."""
    model = build_model(name, classes=5, channels=3, image_size=32, width=0.1, seed=0)
    torch.manual_seed(0)
    for _ in range(3):
        model(torch.randn(16, 3, 32, 32) * 2 + 1)
    return model.eval()


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "resnet18", "cnn"])
def test_folding_batch_norms_changes_nothing_but_rounding(name: str) -> None:
    model, images = settled(name), torch.randn(32, 3, 32, 32)
    fast = folded(model)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in fast.modules())
    assert norms == (13 if name == "vgg16" else 0), "only a norm right after its convolution can be folded"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items()), "the model is left alone"


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_dropout_drops_its_share_keeps_the_mean_and_the_layout(p: float) -> None:
    images = torch.rand(64, 7, 33, 31).to(memory_format=torch.channels_last).requires_grad_()
    layer = Dropout(p).train()
    torch.manual_seed(0)
    out = layer(images)
    torch.manual_seed(0)
    assert torch.equal(out, layer(images)), "the same seed, the same numbers"
    kept = out != 0
    deviation = (p * (1 - p) / images.numel()) ** 0.5
    assert abs(1 - kept.float().mean().item() - p) < 5 * deviation + 2**-16
    torch.testing.assert_close(out[kept], (images / (1 - p))[kept])
    assert out.is_contiguous(memory_format=torch.channels_last)
    out.sum().backward()
    assert images.grad is not None and torch.equal(images.grad != 0, kept)
    # Neighbours are dropped independently: the share of pairs is that of two single ones.
    pairs = (~kept[:, :, :, 1:] & ~kept[:, :, :, :-1]).float().mean().item()
    assert pairs == pytest.approx(p * p, abs=0.005)
    assert layer.eval()(images) is images


def test_coarse_scores_that_are_mended_near_the_cut_choose_the_ids_of_fine_ones() -> None:
    random = np.random.RandomState(0)
    for _ in range(20):
        fine = random.rand(5000).astype(np.float32)
        coarse = fine + random.uniform(-0.004, 0.004, 5000).astype(np.float32)
        close = near_the_cut(coarse, 300)
        assert {int(np.argsort(-coarse)[299]), int(np.argsort(-coarse)[300])} <= set(close.tolist())
        assert len(set(close.tolist())) == len(close) == 100
        mended = coarse.copy()
        mended[close] = fine[close]
        assert set(choose(mended, 300, 0)) == set(choose(fine, 300, 0)) != set(choose(coarse, 300, 0))


def test_scoring_does_not_depend_on_the_size_of_its_batches() -> None:
    images, _ = stripes(60, side=32, channels=3)
    bank, model = ImageBank(images, CPU), settled("vgg16_bn")
    normalisation = {"mean": PLAIN["mean"] * 3, "std": PLAIN["std"] * 3}
    at_once = predict(model, bank, np.arange(60), normalisation=normalisation)
    by_seven = predict(model, bank, np.arange(60), normalisation=normalisation, batch_size=7)
    torch.testing.assert_close(at_once, by_seven, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_training_has_the_losses_of_a_plain_one() -> None:
    if not _compiles(CPU):
        pytest.skip("PyTorch cannot compile here")
    plain = run(training=recipe(flip=False, precision="float32"))[0]
    fast = run(training=recipe(flip=False, precision="float32", compile=True))[0]
    losses = [[entry["loss"] for entry in learned.history] for learned in (plain, fast)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert {name.split(".")[0] for name in fast.state_dict} == {"features", "head"}, "under the names of the plain one"


def test_what_cannot_be_compiled_is_trained_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aal.faster._compiles", lambda device: False)
    model = settled("cnn")
    assert compiled(model, CPU) is model
