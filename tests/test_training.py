"""Training, scoring and the data path to them."""

import copy
import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aal.app import data
from aal.app.models import build_model
from aal.app.server_train import Server, fit
from aal.config.errors import Stopped, UserError
from aal.config.loading import resolve
from aal.config.presets import RECIPES
from aal.config.registry import TRAINERS, Entry
from aal.config.settings import TrainingSettings
from aal.coordination.messages import ModelRef, TrainedModel, TrainingJob
from aal.storage.model_files import load_model
from aal.training import inference
from aal.training.devices import arithmetic
from aal.training.images import ImageBank, Pixels, augment, normalisation_of
from aal.training.inference import predict
from aal.training.networks import Architecture
from aal.training.objective import Objective
from aal.training.optimizers import build_optimizer, build_schedule, decayed_kernels, one_cycle
from aal.training.trainer import FittedModel, TrainingTask, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PLAIN = {"mean": [0.5], "std": [0.25]}


def recipe(name: str = "modern", **changes: Any) -> TrainingSettings:
    return TrainingSettings(**{**RECIPES[name], "epochs": 3, "batch_size": 16, "validate_after": 1, **changes})


def stripes(number: int, side: int = 8, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images of two classes, bright above or bright below."""
    random = np.random.RandomState(0)
    labels = np.arange(number) % 2
    images = random.randint(0, 100, (number, side, side, channels)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[: side // 2] += np.uint8(150 * label)
        image[side // 2 :] += np.uint8(150 * (1 - label))
    return images, labels


def run(
    number: int = 40, validation: int = 10, model: nn.Module | None = None, device: torch.device = CPU, **kwargs: Any
) -> tuple[FittedModel, nn.Module, ImageBank]:
    images, labels = stripes(60)
    labels = kwargs.pop("labels", labels)
    model = model or build_model("cnn", classes=2, channels=1, image_size=8, width=0.25, seed=0)
    ids = np.arange(number)
    held_out = np.arange(50, 50 + validation)
    bank = ImageBank(images, device)
    changes = {"training": recipe(flip=False), "normalisation": PLAIN, "seed": 0, **kwargs}
    task = TrainingTask(bank, ids, labels[ids], validation_ids=held_out, validation_labels=labels[held_out], **changes)
    return fit(model, task), model, bank


@pytest.mark.unit
def test_the_bank_reads_a_mapped_file(tmp_path: Any) -> None:
    images, _ = stripes(10, channels=3)
    np.save(tmp_path / "images.npy", images)
    bank = ImageBank(np.load(tmp_path / "images.npy", mmap_mode="c"), CPU)
    batch = bank.batch(torch.tensor([7, 7, 0]))
    assert batch.dtype == torch.uint8
    assert np.array_equal(batch.numpy(), images[[7, 7, 0]])


@pytest.mark.unit
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 3])
def test_augment_does_what_one_image_at_a_time_would(channels: int, flip: bool, shift: int) -> None:
    images = torch.from_numpy(stripes(9, channels=channels)[0])
    torch.manual_seed(3)
    found = augment(images, crop_padding=shift, flip=flip)
    torch.manual_seed(3)
    down = torch.randint(-shift, shift + 1, (9, 1))
    right = torch.randint(-shift, shift + 1, (9, 1))
    flipped = torch.randint(0, 2, (9, 1)) if flip else torch.zeros(9, 1)
    assert not flip or 0 < flipped.sum() < 9
    for image, result, top, left, mirror in zip(images.numpy(), found.numpy(), down, right, flipped, strict=True):
        padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
        # A flip mirrors the shifted columns, so that the crop under it moves the other way.
        column = shift + int(left) * (-1 if mirror else 1)
        crop = padded[shift + int(top) :, column:][:8, :8]
        crop = crop[:, ::-1] if mirror else crop
        assert np.array_equal(result, crop)


@pytest.mark.unit
def test_a_shift_beyond_the_image_is_as_far_as_it_reaches() -> None:
    images = torch.from_numpy(stripes(50)[0])
    torch.manual_seed(0)
    wanted = augment(images, crop_padding=7, flip=True)
    torch.manual_seed(0)
    assert torch.equal(augment(images, crop_padding=100, flip=True), wanted)


@pytest.mark.unit
def test_pixels_are_normalised_and_stay_in_their_layout() -> None:
    images = torch.from_numpy(stripes(4, channels=3)[0])
    norm = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    wanted = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(norm["mean"]).view(3, 1, 1)) / torch.tensor(
        norm["std"]
    ).view(3, 1, 1)
    for layout in (torch.channels_last, torch.contiguous_format):
        found = Pixels(norm, CPU, layout)(images)
        torch.testing.assert_close(found, wanted)
        assert found.is_contiguous(memory_format=layout)


@pytest.mark.unit
@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of the switch itself
@pytest.mark.parametrize(
    ("width", "layout"), [(0.25, torch.contiguous_format), (0.5, torch.contiguous_format), (1.0, torch.channels_last)]
)
def test_gradients_are_right_in_the_layout_of_a_network(width: float, layout: torch.memory_format) -> None:
    images, labels = stripes(32)
    model = build_model("resnet8", classes=2, channels=1, image_size=8, width=width, seed=0)
    exact = copy.deepcopy(model)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
    with torch.backends.mkldnn.flags(enabled=False):
        nn.functional.cross_entropy(exact(pixels), torch.from_numpy(labels)).backward()
    task = TrainingTask(ImageBank(images, CPU), np.arange(32), labels, recipe(precision="float32"), PLAIN, seed=0)
    assert task.layout(model) == layout
    Objective(model.to(memory_format=layout), task).loss(
        task.bank.batch(torch.arange(32)), torch.from_numpy(labels)
    ).backward()
    for found, wanted in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.unit
def test_the_recipe_decides_the_normalisation() -> None:
    mean, std = np.array([0.5], np.float32), np.array([0.25], np.float32)
    assert normalisation_of(recipe("modern"), mean, std) == PLAIN
    assert normalisation_of(recipe("paper"), mean, std) == {"mean": [0.0], "std": [1.0]}


@pytest.mark.unit
def test_one_cycle_reaches_its_peak_once_and_ends_low() -> None:
    for steps in (1, 2, 3, 4, 10, 801):
        rates = [one_cycle(step, steps) for step in range(steps)]
        assert max(rates) == 1.0
        assert rates.count(1.0) == 1
        assert all(0 < rate <= 1 for rate in rates)
    assert rates[0] < 0.01 and rates[-1] < 0.01
    assert rates.index(1.0) == 240


@pytest.mark.unit
def test_optimisers_follow_the_settings() -> None:
    model = build_model("vgg16", classes=3, channels=3, image_size=32, width=0.1, seed=0)
    sgd = build_optimizer(model, recipe())
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"] and sgd.defaults["momentum"] == 0.9
    assert not build_optimizer(model, recipe(momentum=0.0)).defaults["nesterov"]
    adam = build_optimizer(model, recipe("paper"))
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["eps"] == 1e-7
    kernels, rest = adam.param_groups
    assert (kernels["weight_decay"], rest["weight_decay"]) == (1e-3, 0.0)
    assert [id(kernel) for kernel in kernels["params"]] == [id(kernel) for kernel in decayed_kernels(model)]
    assert len(kernels["params"]) + len(rest["params"]) == len(list(model.parameters()))
    schedule = build_schedule(adam, recipe("paper"), 3)
    assert schedule.get_last_lr() == [1e-3, 1e-3]


@pytest.mark.unit
@pytest.mark.parametrize("name", ["paper", "modern"])
def test_a_training_learns_and_repeats_itself(name: str) -> None:
    training = recipe(name, epochs=8, flip=False)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fitted, model, bank = run(training=training)
    assert torch.equal(torch.get_rng_state(), before)
    _, labels = stripes(60)
    logits = predict(model, bank, np.arange(60), normalisation=PLAIN)
    assert (logits.argmax(1).numpy() == labels).mean() > 0.95
    torch.manual_seed(2)
    again, _, _ = run(training=training)
    assert fitted.history == again.history
    assert all(torch.equal(value, again.state_dict[key]) for key, value in fitted.state_dict.items())
    other, _, _ = run(training=training, seed=1)
    assert other.history != fitted.history


@pytest.mark.unit
def test_weights_leave_in_float32_on_the_cpu_as_the_best_epoch_had_them() -> None:
    fitted, model, _ = run(training=recipe(precision="bf16", flip=False))
    assert {value.dtype for value in fitted.state_dict.values()} == {torch.float32, torch.int64}
    for name, value in model.state_dict().items():
        assert torch.equal(fitted.state_dict[name], value)
        assert fitted.state_dict[name].is_contiguous()


@pytest.mark.unit
@pytest.mark.parametrize("number", [1, 2, 3, 17])
@pytest.mark.parametrize("name", ["cnn", "vgg16"])
def test_few_images_train(number: int, name: str) -> None:
    side = 8 if name == "cnn" else 32
    images, labels = stripes(20, side)
    model = build_model(name, classes=2, channels=1, image_size=side, width=0.1, seed=0)
    ids = np.arange(number)
    sizes = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    fitted = fit(model, TrainingTask(ImageBank(images, CPU), ids, labels[ids], recipe(crop_padding=1), PLAIN, seed=0))
    assert all(torch.isfinite(value).all() for value in fitted.state_dict.values())
    assert sizes == {1: [2], 2: [2], 3: [3], 17: [16, 16]}[number] * 3


@pytest.mark.unit
def test_one_class_alone_trains() -> None:
    fitted, _, _ = run(labels=np.zeros(60, np.int64))
    assert fitted.val_accuracy == 1.0


@pytest.mark.unit
def test_without_validation_the_last_epoch_is_kept() -> None:
    fitted, _, _ = run(validation=0)
    assert (fitted.epoch, fitted.val_accuracy) == (3, None)
    assert [entry["val_accuracy"] for entry in fitted.history] == [None] * 3


@pytest.mark.unit
@pytest.mark.parametrize(("after", "validated"), [(0, [1, 2, 3]), (1, [2, 3]), (2, [3]), (3, [3]), (99, [3])])
def test_validation_starts_after_some_epochs_and_never_misses_the_last(after: int, validated: list[int]) -> None:
    fitted, _, _ = run(training=recipe(validate_after=after, flip=False))
    assert [entry["epoch"] for entry in fitted.history if entry["val_accuracy"] is not None] == validated


@pytest.mark.unit
@pytest.mark.parametrize(("scores", "epoch"), [((3, 1, 2), 1), ((1, 3, 3), 3), ((3, 3, 1), 2), ((0, 0, 0), 3)])
def test_the_best_epoch_is_kept_and_ties_go_to_the_later(
    monkeypatch: pytest.MonkeyPatch, scores: tuple[int, ...], epoch: int
) -> None:
    right = iter(scores)

    def fixed(*_: Any, **__: Any) -> torch.Tensor:
        logits = torch.zeros(4, 2)
        logits[next(right) :, 1] = 1  # the truth is all zeros
        return logits

    monkeypatch.setattr("aal.training.trainer.predict", fixed)
    fitted, _, _ = run(validation=4, labels=np.zeros(60, np.int64), training=recipe(validate_after=0))
    assert (fitted.epoch, fitted.val_accuracy) == (epoch, max(scores) / 4)
    assert fitted.state_dict["features.1.num_batches_tracked"] == 3 * epoch


@pytest.mark.unit
def test_the_heartbeat_is_called_each_batch_and_may_stop_the_training() -> None:
    calls = []
    run(heartbeat=lambda: calls.append(1))
    assert len(calls) == 3 * 3 + 2  # three epochs of three batches, two validations of one

    def stop() -> None:
        raise Stopped

    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(Stopped):
        run(heartbeat=stop)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.unit
def test_predict_does_not_depend_on_the_batch_size() -> None:
    images, _ = stripes(23)
    model = build_model("cnn", classes=5, channels=1, image_size=8, seed=0)
    bank = ImageBank(images, CPU)

    def scores(ids: np.ndarray, **changes: Any) -> torch.Tensor:
        return predict(model, bank, ids, normalisation=PLAIN, precision="float32", **changes)

    whole = scores(np.arange(23))
    assert (whole.dtype, whole.shape, model.training) == (torch.float32, (23, 5), False)
    torch.testing.assert_close(scores(np.arange(23), batch_size=7), whole)
    torch.testing.assert_close(scores(np.array([22, 3, 3])), whole[[22, 3, 3]])
    assert scores(np.arange(0)).shape == (0, 5)


@pytest.mark.unit
def test_bf16_scores_are_near_and_not_coarse() -> None:
    images, _ = stripes(50)
    model = build_model("cnn", classes=5, channels=1, image_size=8, seed=0)
    fine, coarse = (
        predict(model, ImageBank(images, CPU), np.arange(50), normalisation=PLAIN, precision=precision)
        for precision in ("float32", "bf16")
    )
    torch.testing.assert_close(coarse, fine, atol=0.1, rtol=0.1)
    assert not torch.equal(coarse, coarse.bfloat16().float())


@pytest.mark.unit
def test_a_frozen_training_changes_the_output_layer_alone() -> None:
    model = build_model("cnn", classes=2, channels=1, image_size=8, width=0.25, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted, _, _ = run(model=model, freeze=True)
    changed = [name for name, value in fitted.state_dict.items() if not torch.equal(value, before[name])]
    assert changed == ["head.weight", "head.bias"], "nor do the statistics of batch norms change"


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Server:
    """A server on the digits, with a small network and two epochs."""
    how = {"epochs": 2, "batch_size": 16, "validate_after": 0, "crop_padding": 0, "flip": False}
    tree = {"data_type": "digits", "prepared_dir": str(tmp_path), "models": "cnn", "width": 0.25, "training": how}
    settings = resolve({**tree, "initial_size": 40, "val_size": 20}, "test")
    images = data.open_set(data.prepare(settings))
    (tmp_path / "models").mkdir()
    return Server(0, tmp_path, settings, images, data.split(images, settings, 1), ImageBank(images.images, CPU))


def do(server: Server, job: TrainingJob, heartbeat: Any = lambda: None) -> TrainedModel:
    ids = server.split.initial[: job.labels]
    return server.train(job, ids, server.images.labels[ids], 1.5, heartbeat)


@pytest.mark.unit
def test_a_server_trains_saves_and_scores(server: Server) -> None:
    trained = do(server, TrainingJob(3, 40))
    assert (trained.server, trained.model, trained.path) == (0, "cnn", "models/training-0003-server-0.pt")
    found = load_model(server.run / trained.path)
    assert found["architecture"] == Architecture("cnn", 10, 1, 8, {"width": 0.25}).as_dict()
    assert (found["labels"], found["epoch"], found["test_accuracy"]) == (40, trained.epoch, trained.test_accuracy)
    cost = server.cost(TrainingJob(3, 40))
    assert (cost.trained, cost.scored) == (2 * 48, 2 * 20 + len(server.split.test))


@pytest.mark.unit
def test_what_is_reported_is_an_exact_ratio_in_float32_whatever_training_computes_in(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = server.settings.training.model_copy(update={"precision": "bf16"})
    server = dataclasses.replace(server, settings=server.settings.model_copy(update={"training": training}))
    asked: list[str] = []

    def seen(device: torch.device, precision: str) -> Any:
        asked.append(precision)
        return arithmetic(device, precision)

    monkeypatch.setattr(inference, "arithmetic", seen)
    trained = do(server, TrainingJob(0, 40))
    found = load_model(server.run / trained.path)
    assert asked == ["bf16", "bf16", "float32", "float32"]  # epochs, test, validation
    assert found["precision"] == "float32"
    right = sum(images for truth, predicted, images in trained.confusion if truth == predicted)
    assert trained.test_accuracy == right / len(server.split.test)
    assert trained.val_accuracy in [hits / 20 for hits in range(21)]
    assert sum(images for *_, images in trained.confusion) == len(server.split.test)
    assert [epoch for epoch, *_ in trained.history] == [1, 2]


@pytest.mark.unit
def test_two_processes_of_a_server_write_two_files(server: Server) -> None:
    first, second = (do(dataclasses.replace(server, incarnation=number), TrainingJob(0, 40)) for number in (0, 1))
    assert first.path != second.path and (server.run / first.path).exists()


@pytest.mark.unit
def test_what_was_trained_before_is_not_trained_again(server: Server) -> None:
    def stop() -> None:
        raise Stopped

    first = do(server, TrainingJob(0, 40))
    assert do(server, TrainingJob(0, 40), stop) == first
    for other in (TrainingJob(0, 39), TrainingJob(0, 40, target=1), TrainingJob(0, 40, owner=2)):
        with pytest.raises(Stopped):
            do(server, other, stop)
    (server.run / first.path).write_bytes(b"damaged")
    with pytest.raises(Stopped):
        do(server, TrainingJob(0, 40), stop)


@pytest.mark.unit
def test_a_job_names_its_trainer_and_the_model_that_it_starts_from(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = do(server, TrainingJob(0, 40))
    seen: list[dict[str, torch.Tensor]] = []

    def keep(model: nn.Module, task: TrainingTask) -> FittedModel:
        seen.append(weights_of(model))
        return FittedModel(seen[-1], 1, None, [])

    monkeypatch.setitem(TRAINERS._objects, "keep", keep)
    monkeypatch.setitem(TRAINERS.entries, "keep", Entry("keep", "aal.app.server_train", (), {}))
    do(server, TrainingJob(1, 40, kind="keep", start=ModelRef(0, first.path, 40)))
    do(server, TrainingJob(2, 40, kind="keep"))
    known = load_model(server.run / first.path)["state_dict"]
    assert all(torch.equal(seen[0][name], value) for name, value in known.items())
    assert not torch.equal(seen[1]["head.weight"], known["head.weight"])
    with pytest.raises(UserError, match=r"^trainer: must be fit, "):
        do(server, TrainingJob(3, 40, kind="nothing"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["paper", "modern"])
def test_a_gpu_learns_the_same_task(name: str) -> None:
    fitted, model, bank = run(training=recipe(name, epochs=8, flip=False), device=torch.device("cuda", 0))
    _, labels = stripes(60)
    logits = predict(model, bank, np.arange(60), normalisation=PLAIN)
    assert logits.device == CPU
    assert (logits.argmax(1).numpy() == labels).mean() > 0.95
    assert {value.device for value in fitted.state_dict.values()} == {CPU}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scores_as_the_cpu_does() -> None:
    images, _ = stripes(50)
    scores = []
    for device in (CPU, torch.device("cuda", 0)):
        model = build_model("cnn", classes=5, channels=1, image_size=8, seed=0).to(device)
        scores.append(
            predict(model, ImageBank(images, device), np.arange(50), normalisation=PLAIN, precision="float32")
        )
    torch.testing.assert_close(*scores, atol=1e-2, rtol=1e-2)


class Hungry(nn.Module):
    """A network that has memory for so many images at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError
        return images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0].repeat(1, 2)


@pytest.mark.unit
def test_running_out_of_memory_halves_the_scoring_batch_or_ends_with_advice() -> None:
    images = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8, 1)
    bank, ids = ImageBank(images, torch.device("cpu")), np.arange(20)
    expected = predict(Hungry(500), bank, ids, normalisation=PLAIN)
    short = Hungry(3)
    assert torch.equal(predict(short, bank, ids, normalisation=PLAIN, batch_size=16), expected)
    assert short.sizes == [16, 8, 4, *[2] * 10]
    with pytest.raises(UserError, match="no memory left for one image; put fewer roles on it"):
        predict(Hungry(0), bank, ids, normalisation=PLAIN)
