"""Where a process computes, with how many threads, and in which precision."""

import os
from typing import Any

import pytest
import torch
from torch import nn

from aal.config.errors import UserError
from aal.config.settings import DeviceSettings
from aal.training.devices import (
    arithmetic,
    computes_in_bf16,
    explained_memory_errors,
    resolve_device,
    trains_in_bf16,
    use_device,
)
from aal.training.placement import place

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
CPU = torch.device("cpu")


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    for name in ("cuda", "cuda:0", "MIG-7f/1/0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(UserError, match=f"^{name} is not there, PyTorch sees 0 CUDA devices; "):
            resolve_device(name)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-7f/1/0", "CUDA opens a part of a GPU only so"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [resolve_device(name) for name in ("auto", "cuda", "cuda:1", "cpu", "GPU-7f")]
    assert [str(device) for device in found] == ["cuda:0", "cuda:0", "cuda:1", "cpu", "cuda:0"]
    with pytest.raises(UserError, match="cuda:2 is not there, PyTorch sees 2"):
        resolve_device("cuda:2")


CASES: list[tuple[dict[str, Any], int, int, int, list[str], list[str]]] = [
    # settings; servers, workers, GPUs; devices of the servers, of the processes of workers
    ({}, 2, 3, 0, ["cpu"] * 2, ["cpu"] * 3),
    ({}, 2, 10, 1, ["cuda:0"] * 2, ["cuda:0"]),
    ({}, 2, 10, 4, ["cuda:0", "cuda:1"], ["cuda:3", "cuda:2", "cuda:1", "cuda:0"]),
    ({"servers": ["cuda", "cpu"]}, 4, 1, 2, ["cuda:0", "cpu", "cuda:1", "cpu"], ["cuda:1"]),
    ({"servers": "cpu", "workers": ["cuda", "cpu"]}, 1, 4, 2, ["cpu"], ["cuda:1", "cpu", "cuda:0", "cpu"]),
    ({"workers": ["cuda:1", "cuda:0"]}, 1, 8, 2, ["cuda:0"], ["cuda:1", "cuda:0"]),
    ({"workers": "cuda:1"}, 1, 8, 2, ["cuda:0"], ["cuda:1"]),
    ({"worker_processes": 3}, 1, 8, 2, ["cuda:0"], ["cuda:1", "cuda:0", "cuda:1"]),
    ({"workers": ["MIG-1", "MIG-2"]}, 1, 8, 1, ["cuda:0"], ["MIG-1", "MIG-2"]),
]


@pytest.mark.parametrize(("given", "servers", "workers", "gpus", "of_servers", "of_workers"), CASES)
def test_devices_are_dealt_out(
    given: dict[str, Any], servers: int, workers: int, gpus: int, of_servers: list[str], of_workers: list[str]
) -> None:
    found = place(DeviceSettings.model_validate(given), servers, workers, gpus)
    assert found.servers == of_servers
    assert found.workers == of_workers
    assert found.worker_processes == (given.get("worker_processes") or len(of_workers))
    assert place(found, servers, workers, gpus) == found, "a restarted role finds its own again"


def test_a_gpu_that_is_not_there_is_named() -> None:
    devices = DeviceSettings.model_validate({"servers": ["cuda:1", "cpu"], "workers": "cuda"})
    with pytest.raises(UserError) as caught:
        place(devices, servers=1, workers=1, gpus=0)
    assert [problem.partition(" is not")[0] for problem in caught.value.problems] == [
        "devices.servers: cuda:1",
        "devices.workers: cuda",
    ]


def test_a_restarted_role_does_not_change_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = place(DeviceSettings(), servers=1, workers=1, gpus=1).servers
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the driver is gone
    with pytest.raises(UserError, match="cuda:0 is not there"):
        use_device(name)


def test_a_role_says_on_which_device_it_computes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", opened.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    with caplog.at_level("INFO", "aal"):
        use_device("cuda:1")
        use_device("cpu")
    assert opened == [torch.device("cuda", 1)]
    assert caplog.messages == ["computes on cuda:1, NVIDIA H200", "computes on the CPU"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_a_card_that_is_full_at_the_start_is_one_line(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(device: torch.device) -> None:
        raise error("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA to enable device-side assertions.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", full)
    with pytest.raises(UserError, match=r"^a GPU has no memory left for a process \(CUDA error: out of memory\); put"):
        use_device("cuda")


def test_other_errors_of_a_gpu_stay_what_they_are() -> None:
    with pytest.raises(torch.AcceleratorError), explained_memory_errors("a model"):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_float32_is_float32_unless_tf32_is_asked_for() -> None:
    def flags() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = flags()
    for precision, expected in (("float32", False), ("tf32", True), ("auto", False)):
        with arithmetic(CPU, precision):
            assert flags() == (expected, expected)
            assert (torch.backends.cudnn.conv.fp32_precision == "tf32") == expected, "the newer name of the same"
    assert flags() == before


def test_precision_falls_back_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not computes_in_bf16(CPU)
    for precision, enabled in (("auto", False), ("float32", False), ("tf32", False), ("bf16", True)):
        with arithmetic(CPU, precision):
            assert torch.is_autocast_enabled("cpu") == enabled


def test_grouped_convolutions_train_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aal.training.devices.computes_in_bf16", lambda device: True)
    grouped, dense = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), nn.Sequential(nn.Conv2d(4, 4, 3))
    found = [[trains_in_bf16(net, CPU, precision) for precision in ("auto", "bf16")] for net in (grouped, dense)]
    assert found == [[False, True], [True, True]]
    assert trains_in_bf16(grouped, torch.device("cuda"), "auto")
