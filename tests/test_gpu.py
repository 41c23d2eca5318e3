"""What holds on a GPU, as far as it shows without one: steps, shapes, memory; and what needs one."""

import functools
import pathlib
import types
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from aal.app.experiments.aal_2021.plans import SCALES
from aal.app.models import build_model
from aal.app.server_train import fit
from aal.config.errors import UserError
from aal.config.presets import RECIPES
from aal.config.settings import TrainingSettings
from aal.engines.local.fork_server import fork_context
from aal.training import calibration, inference, trainer
from aal.training.images import ImageBank
from aal.training.inference import predict
from aal.training.process import set_up_simulated
from aal.training.trainer import TrainingTask, reuse_or_train
from bench import gpu as bench_of_gpu
from bench.contenders import matmul_rate
from bench.harness import MODEL, Selector, Source, publish
from bench.rows import Options
from tests.builders import make_settings

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
CPU = torch.device("cpu")
PLAIN = {"mean": [0.5] * 3, "std": [0.25] * 3}
SIDE = 32


def images(number: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (number, SIDE, SIDE, 3)).astype(np.uint8)


def train(
    device: torch.device = CPU, steps: int = 1, heartbeat: Callable[[], None] = lambda: None, **changes: Any
) -> Any:
    """Trains a narrow VGG-16 for an epoch of so many steps."""
    plain = {"epochs": 1, "batch_size": 8, "validate_after": 0, "learning_rate": 0.01}
    settings = TrainingSettings(**{**RECIPES["modern"], **plain, **changes})
    model = build_model("vgg16", classes=5, channels=3, image_size=SIDE, width=0.05, seed=0)
    number = 8 * steps
    bank, labels = ImageBank(images(number), device), np.arange(number) % 5
    return fit(model, TrainingTask(bank, np.arange(number), labels, settings, PLAIN, seed=0, heartbeat=heartbeat))


class Operators(TorchDispatchMode):
    """Counts what is asked of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operators(steps: int, **changes: Any) -> Counter[str]:
    with Operators() as seen:
        train(steps=steps, **changes)
    return seen.counts


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_has_few_operators_and_never_waits_for_the_device(precision: str) -> None:
    step = operators(3, precision=precision) - operators(
        2, precision=precision
    )  # so what a training has once drops out
    assert step["convolution"] == step["convolution_backward"] == 13
    views = {
        "view",
        "t",
        "permute",
        "slice",
        "split",
        "detach",
        "expand",
        "alias",
        "unsqueeze",
        "_unsafe_view",
        "as_strided",
    }
    launches = sum(count for name, count in step.items() if name not in views)
    assert launches < (340 if precision == "bf16" else 260), step
    for waits in ("_local_scalar_dense", "nonzero", "item", "is_nonzero"):
        assert step[waits] == 0, "the device is asked once an epoch"


def test_selections_show_few_sizes_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SIZES_COST_ON", ("cpu",))
    seen: list[int] = []

    class Seeing(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(len(pixels))
            return pixels.mean((2, 3))

    bank = ImageBank(images(1000), CPU)
    for remaining in range(1000, 400, -100):  # six selections of a worker, and what each scores again near the cut
        for number in (remaining, remaining // 50):
            assert len(predict(Seeing(), bank, np.arange(number), normalisation=PLAIN, batch_size=256)) == number
    assert set(seen) == {64, 128, 256}


def test_padded_batches_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    model, bank = (
        build_model("cnn", classes=5, channels=3, image_size=SIDE, width=0.25, seed=0),
        ImageBank(images(70), CPU),
    )
    expected = predict(model, bank, np.arange(70), normalisation=PLAIN, batch_size=64)
    monkeypatch.setattr(inference, "SIZES_COST_ON", ("cpu",))
    found = predict(model, bank, np.arange(70), normalisation=PLAIN, batch_size=64)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert predict(model, bank, np.arange(0), normalisation=PLAIN).shape == (0, 5)


class Held:
    """What a failed pass had computed."""


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_what_a_failed_pass_held_is_free_when_the_cache_is_emptied(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Held]] = []
    alive: list[bool] = []

    class Hungry(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            activations = Held()
            held.append(weakref.ref(activations))
            if len(pixels) > 4:
                raise error("CUDA error: out of memory")
            return pixels.mean((2, 3))

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    predict(Hungry(), ImageBank(images(16), CPU), np.arange(16), normalisation=PLAIN, batch_size=16)
    assert alive == [False, False], "halved twice"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_a_training_waits_for_memory_that_others_have_taken(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(trainer, "MEMORY_AGAIN_S", 0.0)
    monkeypatch.setattr(trainer, "save_with_retry", lambda *_: None)
    held: list[weakref.ref[Held]] = []
    alive: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))

    def attempt(failures: int) -> Callable[[], dict[str, Any]]:
        def do() -> dict[str, Any]:
            activations = Held()
            held.append(weakref.ref(activations))
            if len(held) <= failures:
                raise error("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere")
            return {"epoch": 1}

        return do

    beats: list[int] = []
    found = reuse_or_train(tmp_path / "model.pt", "its fingerprint", attempt(2), lambda: beats.append(1))
    assert found == {"epoch": 1, "fingerprint": "its fingerprint"}
    assert alive == [False, False] and len(beats) == 2
    held.clear()
    with pytest.raises(UserError, match=r"^a GPU has no memory left for a training \(CUDA error: out of memory\); put"):
        reuse_or_train(tmp_path / "model.pt", "", attempt(99), lambda: None)
    assert len(held) == trainer.MEMORY_TRIES


def test_an_error_that_is_not_of_memory_is_not_tried_again(tmp_path: pathlib.Path) -> None:
    def broken() -> dict[str, Any]:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(torch.AcceleratorError):
        reuse_or_train(tmp_path / "model.pt", "", broken, lambda: None)


def test_the_best_weights_stay_on_the_device_and_are_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[dict[str, torch.Tensor]] = []
    fetched: list[torch.Tensor] = []

    def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
        kept.append(trainer.weights_of(model))
        return kept[-1]

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        fetched.append(tensor)
        return tensor

    monkeypatch.setattr("aal.app.server_train.weights_of", weights_of)
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    model = build_model("cnn", classes=2, channels=3, image_size=SIDE, width=0.1, seed=0)
    settings = TrainingSettings(**{**RECIPES["modern"], "epochs": 4, "validate_after": 0, "learning_rate": 1e-9})
    ids, labels = np.arange(8), np.zeros(8, np.int64)
    fit(model, TrainingTask(ImageBank(images(8), CPU), ids, labels, settings, PLAIN, 0, ids, labels))
    assert len(kept) == 4, "no epoch is better or worse than another"
    weights = [id(tensor) for tensor in kept[-1].values()]
    assert [
        id(tensor) for tensor in fetched if id(tensor) in {id(one) for some in kept for one in some.values()}
    ] == weights


def _is_poisoned() -> bool:
    return bool(torch.cuda._is_in_bad_fork())


@pytest.mark.process
def test_processes_of_roles_may_use_a_gpu_though_main_has_looked_for_one() -> None:
    torch.cuda.is_available()
    context = fork_context()
    with context.Pool(1) as pool:
        assert pool.apply(_is_poisoned) is False


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_gpu_repeats_a_training_exactly(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    first, again = (train(torch.device("cuda"), steps=20, precision=precision).state_dict for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.gpu
@GPU
def test_float32_on_a_gpu_is_float32() -> None:
    model = build_model("vgg16", classes=5, channels=3, image_size=SIDE, width=0.5, seed=0)
    exact = predict(model, ImageBank(images(50), CPU), np.arange(50), normalisation=PLAIN)
    bank = ImageBank(images(50), torch.device("cuda", 0))
    model = model.to(bank.device)

    def error(precision: str) -> float:
        found = predict(model, bank, np.arange(50), normalisation=PLAIN, precision=precision)
        return ((found - exact).norm() / exact.norm()).item()

    assert error("float32") < 2e-5 < 1e-4 < error("tf32") < 5e-3


def test_the_bench_of_a_gpu_measures_something(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"WIDTH": 0.05, "EAGER": (8,), "COMPILED": (), "STEPS": 3, "WARM_UP": 1, "SCORED": 4, "REPEATED": 1}
    for name, value in {**small, "SHARD": 20, "CHOSEN": 2}.items():
        monkeypatch.setattr(bench_of_gpu, name, value)
    monkeypatch.setattr(bench_of_gpu, "matmul_rate", functools.partial(matmul_rate, side=64))
    some: Any = types.SimpleNamespace(images=images(30), labels=np.arange(30) % 10)
    source, bank, options = Source(some, real=False), ImageBank(some.images, CPU), Options(quick=True)
    rows = [
        *bench_of_gpu._steps(options, source, bank),
        bench_of_gpu._exactness(source, bank),
        *bench_of_gpu._repetition(options, source, bank),
        *bench_of_gpu._selections(options, source, CPU),
    ]
    found = {row.name: row for row in rows}
    assert found["gpu/train/8"].ours[0] > 0 < (found["gpu/train/8"].limit or [0])[0]
    assert found["gpu/float32/error"].ours == [0.0], "the CPU is compared with itself"
    assert found["gpu/repeated/float32"].ours == [100.0]
    assert found["gpu/selection/new-model"].ours[0] > 0 < found["gpu/selection/known-model"].ours[0]
    monkeypatch.setattr(bench_of_gpu, "resolve_device", lambda name: CPU)
    assert [*bench_of_gpu.measure(options, source)] == []
    assert options.notes[-1] == "gpu: PyTorch sees no GPU"


def test_a_calibration_lasts_long_enough_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LEAST_S", 0.1)
    seen: list[int] = []
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(calibration, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))

    def fast(model: nn.Module, task: TrainingTask) -> Any:
        seen.append(len(task.ids) // 8)
        clock.now += 2e-4 * seen[-1]

    settings = make_settings(training={"batch_size": 8})
    bank, model, ids = ImageBank(images(10), CPU), nn.Linear(1, 1), np.arange(10)
    found = calibration._per_image_trained(settings, bank, images(10), ids, ids, model, fast)
    assert max(seen) >= 100, "a longer one, for 24 steps take 5 ms"
    assert found == pytest.approx(2e-4 / 8)


def test_a_simulated_run_searches_no_kernels_whose_choice_could_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    set_up_simulated(make_settings(engine="simulated", devices={"server_threads": 1}))
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)


def test_a_selection_gives_back_what_it_held_of_a_card(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    some: Any = types.SimpleNamespace(images=images(30), labels=np.arange(30) % 10)
    selector = Selector(tmp_path, some, CPU)
    publish(tmp_path, MODEL, "cnn", 0.1)
    assert len(selector.select(2, np.arange(30))) == 2
    assert given_back == [True]


def test_scales_that_run_on_each_core_stay_off_the_gpus() -> None:
    small = [size.settings["devices"] for name, size in SCALES.items() if name != "paper"]
    assert small and all(devices["servers"] == devices["workers"] == "cpu" for devices in small)
