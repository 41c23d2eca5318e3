"""What a client trains: against plain formulas, and against `fit` where nothing of a federation is asked for."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aal.app.models import build_model
from aal.app.server_train import fit
from aal.config.presets import RECIPES
from aal.config.settings import TrainingSettings
from aal.training.images import ImageBank
from aal.training.optimizers import build_optimizer, build_schedule, optimizer_state, resume_optimizer
from aal.training.trainer import Continuation, TrainingTask
from aal.training.trainers.local import LocalObjective, Quirk, train_local, unlabelled_of

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
CPU, CLASSES = torch.device("cpu"), 4
COUNTS = (5, 2, 0, 1)  # labels of each class: one is absent


def recipe(**changes: Any) -> TrainingSettings:
    plain = {"epochs": 2, "batch_size": 4, "precision": "float32", "crop_padding": 0, "flip": False}
    return TrainingSettings(**{**RECIPES["modern"], **plain, **changes})


def network(seed: int = 0, name: str = "cnn") -> nn.Module:
    return build_model(name, classes=CLASSES, channels=1, image_size=8, width=0.25, seed=seed)


def make_task(teacher: nn.Module | None = None, candidates: int = 12, **changes: Any) -> TrainingTask:
    """Eight labelled images of a client, and those without a label after them."""
    images = np.random.RandomState(0).randint(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    given = {
        **{"bank": ImageBank(images, CPU), "ids": np.arange(8), "labels": np.repeat(np.arange(CLASSES), COUNTS)},
        **{"training": recipe(), "normalisation": {"mean": [0.5], "std": [0.25]}, "seed": 3, "classes": CLASSES},
        **{"candidates": np.arange(8, 8 + candidates), "teacher": teacher},
    }
    return TrainingTask(**{**given, **changes})


def objective(model: nn.Module, task: TrainingTask, *quirks: Any, **changes: Any) -> LocalObjective:
    return LocalObjective(model, task, **{"balanced": False, "proximal": 0.0, "quirks": quirks, **changes})


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


# ---------------------------------------------------------------------- the objective


@pytest.mark.parametrize("changes", [{}, {"crop_padding": 2, "flip": True}, {"optimizer": "adam", "precision": "bf16"}])
def test_a_local_training_without_extras_is_the_plain_one_to_the_last_bit(changes: dict[str, Any]) -> None:
    task = make_task(training=recipe(**changes))
    plain, local = fit(network(), task), train_local(network(), task, balanced=False)
    assert plain.history == local.history
    assert all(torch.equal(value, local.state_dict[name]) for name, value in plain.state_dict.items())


def test_the_softmax_is_balanced_by_the_clients_own_labels() -> None:
    task, model = make_task(), network().eval()
    found = objective(model, task, balanced=True)
    images, labels = task.bank.batch(torch.arange(8)), torch.as_tensor(task.labels)
    logits = double(model(found.pixels(images)))
    loss = 0.0
    for row, label in zip(logits, task.labels, strict=True):  # -ln (n_y e^s_y / sum_c n_c e^s_c)
        loss -= np.log(
            COUNTS[label] * np.exp(row[label]) / sum(n * np.exp(s) for n, s in zip(COUNTS, row, strict=True))
        )
    assert found.loss(images, labels).item() == pytest.approx(loss / 8, rel=1e-5)


def test_an_absent_class_is_left_as_it_is() -> None:
    task, model = make_task(), network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = train_local(model, dataclasses.replace(task, training=recipe(weight_decay=0.0)), balanced=True)
    assert torch.equal(fitted.state_dict["head.weight"][2], before["head.weight"][2])
    assert not torch.equal(fitted.state_dict["head.weight"][1], before["head.weight"][1])
    assert all(value.isfinite().all() for value in fitted.state_dict.values())


@pytest.mark.parametrize("quirks", [(), ("absent_without_weight",), ("one_partner",), ("teacher_in_training_mode",)])
def test_the_compensation_is_the_published_formula(quirks: tuple[str, ...]) -> None:
    """With the random numbers drawn once more, and the rest image by image in float64."""
    teacher = network(seed=1)
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = module.running_mean + 0.3, module.running_var * 2
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    task, model = make_task(teacher), network().eval()
    found = objective(model, task, *quirks)
    torch.manual_seed(5)
    drawn = found.drawn()
    images, labels = task.bank.batch(torch.arange(8)), torch.as_tensor(task.labels)
    loss = found.loss(images, labels, *drawn).item() - found.loss(images, labels).item()

    torch.manual_seed(5)
    ids = 8 + torch.randperm(12)[:4]
    share = torch.distributions.Beta(torch.tensor(2.0), torch.tensor(2.0)).sample((4,))
    partner = torch.randint(4, (1,)).expand(4) if "one_partner" in quirks else torch.randperm(4)
    pixels = double(found.pixels(task.bank.batch(ids)))
    mixed = np.stack([b * u + (1 - b) * pixels[p] for b, u, p in zip(share.numpy(), pixels, partner, strict=True)])
    np.testing.assert_allclose(double(drawn[0]), mixed, atol=1e-6)
    teacher.train("teacher_in_training_mode" in quirks)
    inputs = torch.from_numpy(mixed).float()
    known, mine = softmax(double(teacher(inputs))), softmax(double(model(inputs)))
    least = [0 if "absent_without_weight" in quirks and not n else 1 / max(n, 1) for n in COUNTS]
    weights = np.array(least) / sum(least)
    wanted = 0.0
    for b, p, t, s in zip(share.numpy(), partner, known, mine, strict=True):
        gamma = b * weights[t.argmax()] + (1 - b) * weights[known[p].argmax()]
        wanted += gamma * np.mean(t * (np.log(t) - np.log(s))) / 4
    assert loss == pytest.approx(wanted, rel=1e-3) and wanted > 0
    if not quirks:
        assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())


def test_every_candidate_comes_once_before_one_comes_again() -> None:
    found = objective(network(), make_task(network(1), candidates=10))
    batches = [found._next_candidates() for _ in range(5)]
    assert all(len(batch) == 4 for batch in batches)
    seen = torch.cat(batches).tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(8, 18)) and seen[:10] != seen[10:]


@pytest.mark.parametrize("candidates", [0, 1, 2])
def test_few_candidates_train(candidates: int) -> None:
    task = make_task(network(1), candidates=candidates)
    assert all(value.isfinite().all() for value in train_local(network(), task).state_dict.values())
    assert bool(objective(network(), task).drawn()) == (candidates > 0)


def test_the_proximal_term_pulls_towards_the_start() -> None:
    task, model = make_task(), network().eval()
    found = objective(model, task, proximal=0.5)
    images, labels = task.bank.batch(torch.arange(8)), torch.as_tensor(task.labels)
    torch.testing.assert_close(found.loss(images, labels), objective(model, task).loss(images, labels))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    number = sum(parameter.numel() for parameter in model.parameters())
    moved = found.loss(images, labels) - objective(model, task).loss(images, labels)
    assert moved.item() == pytest.approx(0.5 / 2 * number * 0.01**2, rel=1e-3)
    distances = []
    for proximal in (0.0, 10.0):
        fitted = train_local(network(), task, balanced=False, proximal=proximal).state_dict
        distances.append(sum((fitted[n] - p).norm() for n, p in network().named_parameters()))
    assert distances[1] < distances[0]


def test_the_unlabelled_set_is_of_this_moment_unless_it_is_the_published_one() -> None:
    shard, labelled = np.array([2, 3, 5, 8]), np.array([5, 7])
    cases: list[tuple[tuple[Quirk, ...], list[int]]] = [((), [2, 3, 8]), (("stale_unlabelled",), [2, 3, 5, 8])]
    for quirks, wanted in cases:
        assert unlabelled_of(shard, labelled, quirks).tolist() == wanted


# ---------------------------------------------------------------------- over rounds


@pytest.mark.parametrize("changes", [{}, {"nesterov": False, "decay_all": True}, {"optimizer": "adam"}])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_an_optimiser_goes_on_as_if_it_had_never_stopped(layout: torch.memory_format, changes: dict[str, Any]) -> None:
    training = recipe(**changes)
    first, second = (network(name="resnet18").to(memory_format=layout) for _ in range(2))
    optimizer = build_optimizer(first, training)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        model(torch.randn(2, 1, 8, 8)).square().sum().backward()
        optimizer.step()

    for seed in range(2):
        step(first, optimizer, seed)
    kept = optimizer_state(first, optimizer)
    assert kept.keys() == {name for name, _ in first.named_parameters()}
    for name, parameter in first.named_parameters():
        assert {value.shape for value in kept[name].values()} <= {parameter.shape, torch.Size()}
    second.load_state_dict(first.state_dict())
    another = build_optimizer(second, training)
    resume_optimizer(second, another, kept)
    for seed in range(2, 4):
        step(first, optimizer, seed)
        step(second, another, seed)
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_milestones_count_the_epochs_of_earlier_rounds() -> None:
    training = recipe(schedule="multi_step", milestones=[3, 5], epochs=2, learning_rate=1.0)
    rates = []
    for before in (0, 2, 4):
        optimizer = build_optimizer(network(), training)
        schedule = build_schedule(optimizer, training, 2 * training.epochs, before)
        for _ in range(2 * training.epochs):  # two steps an epoch
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
    np.testing.assert_allclose(rates, [1] * 6 + [0.1] * 4 + [0.01] * 2)


def test_rounds_hand_on_the_optimiser_and_the_epochs() -> None:
    first = train_local(network(), make_task(continuation=Continuation()))
    assert first.continuation is not None and first.continuation.epochs == 2
    again = [network(), network()]
    for model in again:
        model.load_state_dict(first.state_dict)
    second = train_local(again[0], make_task(continuation=first.continuation))
    anew = train_local(again[1], make_task(continuation=Continuation(2)))
    assert second.continuation is not None and second.continuation.epochs == 4
    assert not torch.equal(second.state_dict["head.weight"], anew.state_dict["head.weight"])
    assert train_local(network(), make_task()).continuation is None


# ---------------------------------------------------------------------- on a GPU

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def task_on(device: torch.device) -> TrainingTask:
    """The task, its images and its teacher on a device."""
    given = make_task(teacher=network(seed=1).eval().to(device))
    return dataclasses.replace(given, bank=ImageBank(given.bank.batch(torch.arange(40)).numpy(), device))


@pytest.mark.gpu
@GPU
def test_a_gpu_computes_the_loss_of_a_client_as_the_cpu_does() -> None:
    losses: list[float] = []
    drawn: tuple[torch.Tensor, ...] = ()
    for device in (CPU, torch.device("cuda", 0)):
        task = task_on(device)
        found = objective(network().to(device), task, balanced=True, proximal=0.1)
        drawn = tuple(value.to(device) for value in drawn) or found.drawn()  # the CPU's, on both
        images, labels = task.bank.batch(torch.arange(8, device=device)), torch.as_tensor(task.labels, device=device)
        losses.append(found.loss(images, labels, *drawn).item())
    assert len(drawn) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
@GPU
def test_a_gpu_repeats_the_training_of_a_client_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    device = torch.device("cuda", 0)
    first, again = (train_local(network().to(device), task_on(device), proximal=0.1).state_dict for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
