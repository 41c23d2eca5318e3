"""Where a process computes, with how many threads, and in which precision."""

import asyncio
import os
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from aal.app import server_train
from aal.config.errors import Stopped, UserError
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.clock import WallClock
from aal.coordination.messages import Computing, TrainingJob
from aal.training.devices import autocast, computes_in_bf16, resolve_device, use_threads

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
CPU = torch.device("cpu")


def make_settings(**changes: Any) -> Settings:
    return resolve({"data_type": "cifar-10", "server_num": 2, **changes}, "test")


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has eight cores, as far as the program can see."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def test_devices_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto", 3) == resolve_device("cpu", 3) == CPU
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"^{name} is not there, PyTorch sees 0 CUDA devices; "):
            resolve_device(name, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [resolve_device(name, 3) for name in ("auto", "cuda", "cuda:0", "cpu")]
    assert [str(device) for device in found] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    with pytest.raises(UserError, match="cuda:2 is not there, PyTorch sees 2"):
        resolve_device("cuda:2", 0)


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("role", "changes", "now", "threads"),
    [
        ("server", {}, Computing(1, 0), 8),
        ("server", {}, Computing(2, 0), 4),
        ("server", {}, Computing(1, 1), 7),
        ("server", {}, Computing(2, 1), 3),
        ("server", {}, Computing(2, 100), 1),
        ("server", {}, None, 3),  # before anything is known: both servers, beside a worker
        ("server", {"devices": {"worker_threads": 3}}, Computing(1, 2), 2),
        ("server", {"devices": {"server_threads": 5}}, Computing(3, 8), 5),
        ("server", {"mode": "sync"}, Computing(3, 8), 8),  # roles that take turns have all cores
        ("server", {"engine": "simulated"}, Computing(3, 8), 8),
        ("server", {"engine": "simulated", "devices": {"server_threads": 5}}, Computing(3, 8), 5),
        ("server", {"training": {"compile": True}}, Computing(1, 0), 3),  # another number would have it compiled anew
        ("server", {"training": {"compile": True}}, Computing(1, 8), 3),
        ("worker", {"worker_num": 5000}, None, 1),
        ("worker", {"devices": {"worker_threads": 3}}, None, 3),
        ("worker", {"mode": "sync"}, None, 8),
        ("worker", {"engine": "simulated", "devices": {"server_threads": 5, "worker_threads": 3}}, None, 5),
    ],
)
def test_threads_are_shared(role: Any, changes: dict[str, Any], now: Computing | None, threads: int) -> None:
    use_threads(role, make_settings(**changes), now)
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(("engine", "expected"), [("local", [8, 7, 1, 8]), ("simulated", [1, 1, 1, 1])])
def test_a_training_gives_threads_back_while_others_compute(
    monkeypatch: pytest.MonkeyPatch, engine: str, expected: list[int]
) -> None:
    monkeypatch.setattr(server_train, "CHECK_EVERY_S", 0.0)
    hub, server, seen = Mock(), Mock(index=0, settings=make_settings(engine=engine)), []
    hub.labels.return_value = np.arange(3), np.zeros(3, np.int64)
    hub.ticket.side_effect = [TrainingJob(0, 3), Stopped]
    hub.check.side_effect = [Computing(1, 0), Computing(1, 1), Computing(2, 8), Computing(1, 0)]

    def train(*words: Any) -> Mock:
        check = words[-1]
        for _ in range(4):
            check()
            seen.append(torch.get_num_threads())
        return Mock(test_accuracy=0.5)

    server.train.side_effect = train
    asyncio.run(server_train.serve(server, hub, WallClock(0.0)))
    assert seen == expected
    hub.publish.assert_called_once()


def test_precision_falls_back_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not computes_in_bf16(CPU)
    for precision, enabled in (("auto", False), ("float32", False), ("bf16", True)):
        with autocast(CPU, precision):
            assert torch.is_autocast_enabled("cpu") == enabled
