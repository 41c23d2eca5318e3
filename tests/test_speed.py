"""Every fast path does what the plain one does."""

import contextlib
import logging
import pathlib
import types
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn
from torchvision import transforms

from aal.app import data
from aal.app.models import Dropout, build_model
from aal.app.server_train import Server, fit
from aal.app.work_query import Worker
from aal.config.loading import resolve
from aal.config.presets import RECIPES
from aal.config.settings import TrainingSettings
from aal.coordination.messages import ModelRef, SelectionGrant, TrainingJob
from aal.storage.model_files import load_model
from aal.strategies.pool import Outputs
from aal.strategies.strategy import near_the_cut, top_k
from aal.training import acceleration
from aal.training.acceleration import LossFunction, compile_loss, fuse_batch_norm
from aal.training.devices import keep_freed_memory
from aal.training.images import ImageBank, Pixels, augment
from aal.training.inference import predict
from aal.training.scorer import ModelScorer
from aal.training.trainer import TrainingTask

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
CPU = torch.device("cpu")
PLAIN = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.3, 0.2]}


def images(number: int, side: int = 16) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (number, side, side, 3)).astype(np.uint8)


def network(name: str, side: int = 32) -> nn.Module:
    """A network whose batch norms have seen something."""
    model = build_model(name, classes=5, channels=3, image_size=side, width=0.25, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(16, 3, side, side))
    return model.eval()


def training(**changes: Any) -> TrainingSettings:
    plain = {
        "epochs": 3,
        "batch_size": 16,
        "validate_after": 0,
        "precision": "float32",
        "crop_padding": 0,
        "flip": False,
    }
    return TrainingSettings(**{**RECIPES["modern"], **plain, **changes})


def losses(number: int = 40, device: torch.device = CPU, **changes: Any) -> list[float]:
    """Of our own path; `number` is no multiple of the batch."""
    model = build_model("cnn", classes=5, channels=3, image_size=16, width=0.5, seed=0)
    ids, labels = np.arange(number), np.arange(number) % 5
    bank = ImageBank(images(number), device)
    task = TrainingTask(
        bank, ids, labels, training(**changes), PLAIN, seed=0, validation_ids=ids, validation_labels=labels
    )
    return [epoch["loss"] for epoch in fit(model, task).history]


def plain_losses(number: int = 40) -> list[float]:
    """Of a plain loop over the same batches: default layout, PyTorch's default optimiser, float32."""
    settings = training()
    model = build_model("cnn", classes=5, channels=3, image_size=16, width=0.5, seed=0)
    rows = torch.from_numpy(images(number)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(PLAIN[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels, labels = (rows - mean) / std, torch.arange(number) % 5
    kernels = [layer.weight for layer in model.features.modules() if isinstance(layer, nn.Conv2d)]
    rest = [one for one in model.parameters() if all(one is not kernel for kernel in kernels)]
    groups = [{"params": kernels, "weight_decay": settings.weight_decay}, {"params": rest}]
    optimizer = torch.optim.SGD(groups, 1.0, settings.momentum, nesterov=True)
    steps, found = -(-number // 16), []
    torch.manual_seed(0)
    for epoch in range(3):
        model.train()
        order, total = torch.randperm(number), 0.0
        order = torch.cat([order, order])[: steps * 16]
        for step in range(steps):
            done, peak = epoch * steps + step, -(-3 * 3 * steps // 10)
            share = min((done + 1) / peak, (3 * steps - done) / (3 * steps - peak + 1))
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * share
            chosen = order[step * 16 : step * 16 + 16]
            loss = F.cross_entropy(model(pixels[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        found.append(total / steps)
    return found


def test_training_has_the_losses_of_a_plain_loop() -> None:
    assert losses() == pytest.approx(plain_losses(), rel=1e-3)


def test_bf16_trains_nearly_as_float32() -> None:
    assert losses(precision="bf16") == pytest.approx(losses(), rel=0.05)


def test_shifts_and_flips_come_as_often_as_torchvisions() -> None:
    side, number = 8, 6000
    image = np.arange(side * side, dtype=np.uint8).reshape(side, side, 1).repeat(3, axis=2)
    crop = transforms.RandomCrop(side, padding=2, padding_mode="reflect")
    steps = transforms.Compose([transforms.ToPILImage(), crop, transforms.RandomHorizontalFlip()])
    torch.manual_seed(0)
    ours = augment(torch.from_numpy(image).expand(number, -1, -1, -1), crop_padding=2, flip=True).numpy()
    theirs = [np.asarray(steps(image)) for _ in range(number)]
    counts = [Counter(one.tobytes() for one in found) for found in (ours, theirs)]
    assert counts[0].keys() == counts[1].keys()
    assert len(counts[0]) == 50  # 5 x 5 shifts, twice
    for count in counts:
        assert all(0.5 < 50 * times / number < 1.6 for times in count.values())  # five deviations


@pytest.mark.parametrize("shape", [(64, 8, 4, 4), (33, 7), (1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    numbers = torch.ones(shape, dtype=dtype, requires_grad=True)
    numbers = numbers.to(memory_format=torch.channels_last) if len(shape) == 4 else numbers
    torch.manual_seed(0)
    found = Dropout(0.3)(numbers)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.3)(numbers), found)
    assert (found.dtype, found.shape, found.stride()) == (dtype, numbers.shape, numbers.stride())
    assert {round(value, 1) for value in found.flatten().tolist()} <= {0.0, 1.4}
    (gradient,) = torch.autograd.grad(found.sum(), numbers)
    assert torch.equal(gradient, found.detach())
    torch.manual_seed(0)
    many = Dropout(0.3)(torch.ones(400, 500))
    assert (many == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert (many[:, ::4] == 0).float().mean().item() == pytest.approx(0.3, abs=0.01), "each of the four in a word alike"
    assert many.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(Dropout(0.3).eval()(numbers), numbers)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "resnet18", "resnet8", "cnn"])
def test_fused_batch_norms_change_nothing_but_rounding(name: str) -> None:
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pixels = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(fuse_batch_norm(model)(pixels), model(pixels), atol=1e-4, rtol=1e-4)
    kept = any(isinstance(layer, nn.BatchNorm2d) for layer in fuse_batch_norm(model).modules())
    assert kept == (name in ("vgg16", "resnet8")), "they come after the ReLU, or one after the last block"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_scores_are_those_of_the_plain_forward_pass(name: str) -> None:
    model, rows = network(name), images(300, side=32)
    with torch.no_grad():
        expected = model(Pixels(PLAIN, CPU)(torch.from_numpy(rows)))
    found = predict(fuse_batch_norm(model), ImageBank(rows, CPU), np.arange(300), normalisation=PLAIN)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("side", "sizes"), [(32, [256, 44]), (84, [37] * 8 + [4]), (8, [300])])
def test_large_images_are_scored_in_smaller_batches(side: int, sizes: list[int]) -> None:
    seen: list[int] = []

    class Seeing(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(len(pixels))
            return pixels.mean((2, 3))

    predict(Seeing(), ImageBank(images(300, side), CPU), np.arange(300), normalisation=PLAIN)
    assert seen == sizes


@pytest.mark.parametrize(("count", "near"), [(100, range(90, 110)), (3, range(13)), (995, range(985, 1000))])
def test_what_is_near_the_cut(count: int, near: range) -> None:
    ranks = np.random.RandomState(0).permutation(1000)  # the rank of each position
    assert sorted(ranks[near_the_cut(-ranks.astype(np.float32), count)]) == list(near)


def test_coarse_scores_choose_what_fine_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.RandomState(0)
    fine = random.dirichlet([0.5] * 5, 2000).astype(np.float32)
    coarse = fine + random.uniform(-1e-3, 1e-3, fine.shape).astype(np.float32)
    asked: list[tuple[str, int]] = []

    def scored(self: ModelScorer, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        asked.append((precision, len(ids)))
        found = (fine if precision == "float32" else coarse)[ids]
        return Outputs(found, found, found if with_embeddings else None)

    def top(probabilities: np.ndarray) -> np.ndarray:
        two = np.sort(probabilities)[:, -2:]
        return top_k(two[:, 0] - two[:, 1], 100, np.random.RandomState(0))

    monkeypatch.setattr(ModelScorer, "outputs", scored)
    monkeypatch.setattr("aal.training.scorer.computes_in_bf16", lambda device: True)
    wanted, alone = top(fine), top(coarse)
    worker = Worker(0, pathlib.Path(), "margin", ImageBank(images(1), CPU), 0)
    grant = SelectionGrant(0, 100, (ModelRef(0, "", 0),))
    chosen = worker.select(grant, np.arange(2000), lambda: (np.arange(0), np.arange(0)), lambda: np.arange(0))
    assert set(alone) != set(wanted)
    assert set(chosen) == set(wanted)
    assert asked == [("auto", 2000), ("float32", 40), ("auto", 100)], "the last to measure redundancy"


class Counting:
    """Counts how often PyTorch compiles, and runs what it was given as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _: Any, **__: Any) -> Any:
        self.graphs += 1
        return graph.forward


def test_compiled_training_compiles_once_and_has_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, counting, real = losses(), Counting(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **words: real(model, backend=counting, **words))
    torch._dynamo.reset()
    assert losses(compile=True) == pytest.approx(expected, rel=1e-4)
    assert counting.graphs == 1, "neither the last batch nor the next epoch compiles again"
    assert losses(compile=True) == pytest.approx(expected, rel=1e-4)
    assert counting.graphs == 1, "nor does the next training of a server"


def test_a_server_compiles_one_network_and_learns_what_new_ones_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    seen: list[nn.Module] = []

    def compile_it(loss_of: LossFunction, model: nn.Module, *batch: torch.Tensor) -> LossFunction:
        seen.append(model)
        return loss_of

    monkeypatch.setattr("aal.app.server_train.compile_loss", compile_it)
    folder = data.prepare(resolve({"data_type": "digits", "models": "cnn", "prepared_dir": str(tmp_path)}, "test"))
    learned = []
    for compiling in (False, True):
        how = {"epochs": 2, "batch_size": 16, "validate_after": 0, "compile": compiling}
        tree = {"data_type": "digits", "models": "cnn", "initial_size": 40, "val_size": 20, "training": how}
        settings, whole = resolve(tree, "test"), data.open_set(folder)
        split, run = data.split(whole, settings, settings.worker_num), tmp_path / str(compiling)
        (run / "models").mkdir(parents=True)
        server = Server(0, run, settings, whole, split, ImageBank(whole.images, CPU))
        for number in range(3):
            trained = server.train(
                TrainingJob(number, 40), split.initial, whole.labels[split.initial], 0.0, lambda: None
            )
            learned.append(load_model(run / trained.path)["state_dict"])
    assert len(seen) == 3 and all(network is seen[0] for network in seen)
    for anew, again in zip(learned[:3], learned[3:], strict=True):
        assert all(torch.equal(anew[name], again[name]) for name in anew)
    assert any(not torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


def test_cuda_graphs_are_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    modes, model = [], nn.Linear(1, 1)

    def compiled(loss_of: LossFunction, dynamic: bool, mode: str | None) -> LossFunction:
        modes.append(mode)
        return lambda *batch: torch.zeros((), requires_grad=True)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(acceleration, "_left_unchanged", lambda *_: contextlib.nullcontext())
    for name in ("cpu", "cuda:1"):
        images: Any = types.SimpleNamespace(device=torch.device(name))
        compile_loss(lambda images, labels: images, model, images, torch.zeros(1))
    assert modes == [None, "reduce-overhead"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_loses_the_same_compiled_and_recorded() -> None:
    gpu = torch.device("cuda", 0)
    expected = losses(device=gpu)
    for _ in range(2):
        assert losses(device=gpu, compile=True) == pytest.approx(expected, rel=1e-2)


def test_where_pytorch_cannot_compile_it_trains_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compiled(loss_of: LossFunction, **_: Any) -> LossFunction:
        """Fails when it is called, as a network does that no graph can be made of, after a part of the pass."""

        def call(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            loss_of(images, labels)
            raise RuntimeError("no C compiler\nand a long story")

        return call

    expected = losses()
    monkeypatch.setattr(torch, "compile", compiled)
    with caplog.at_level(logging.WARNING, "aal"):
        assert losses(compile=True) == expected, (
            "the attempt leaves statistics, gradients and random numbers as they were"
        )
    warning = "training.compile: PyTorch cannot compile this, so it trains without: no C compiler"
    assert [record.getMessage() for record in caplog.records] == [warning]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pytorchs_own_compiler_gives_the_same_losses() -> None:
    assert losses(compile=True) == pytest.approx(losses(), rel=1e-3)


def test_keeping_freed_memory_needs_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory()
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    keep_freed_memory()
