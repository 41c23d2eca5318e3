"""PyTorch in a process: threads follow what the other roles of a run compute."""

import os
from typing import Any

import pytest
import torch

from aal.config.registry import SCHEDULES
from aal.coordination.messages import Computing
from aal.training.process import set_up_local, set_up_simulated, threads_for
from tests.builders import make_settings

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread", "eight_cores")]


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("role", "changes", "computing", "threads"),
    [
        ("server", {}, Computing(1, 0), 8),
        ("server", {}, Computing(1, 1), 7),
        ("server", {}, Computing(2, 1), 3),
        ("server", {}, Computing(2, 100), 1),
        ("server", {"server_num": 2}, None, 3),  # before anything is known: both servers, beside a worker
        ("server", {"devices": {"worker_threads": 3}}, Computing(1, 2), 2),
        ("server", {"devices": {"server_threads": 5}}, Computing(3, 8), 5),
        ("server", {"mode": "sync"}, Computing(3, 8), 8),  # roles that take turns have all cores
        ("server", {"server_num": 2, "training": {"compile": True}}, Computing(1, 0), 3),  # would be compiled anew
        ("server", {"server_num": 2, "training": {"compile": True}}, Computing(1, 8), 3),
        ("worker", {"worker_num": 5000}, None, 1),
        ("worker", {"devices": {"worker_threads": 3}}, None, 3),
        ("worker", {"mode": "sync"}, None, 8),
    ],
)
def test_threads_are_shared(role: Any, changes: dict[str, Any], computing: Computing | None, threads: int) -> None:
    settings = make_settings(**changes)
    assert threads_for(role, settings, SCHEDULES.load(settings.mode).takes_turns, computing) == threads


def test_a_training_gives_threads_back_while_others_compute() -> None:
    adapt = set_up_local("server", make_settings(server_num=2), takes_turns=False)
    seen = [torch.get_num_threads()]
    for computing in (Computing(1, 0), Computing(1, 1), Computing(2, 8), Computing(1, 0)):
        adapt(computing)
        seen.append(torch.get_num_threads())
    assert seen == [3, 8, 7, 1, 8]


def test_a_simulated_run_computes_with_all_cores_or_as_many_as_are_given() -> None:
    set_up_simulated(make_settings(engine="simulated"))
    assert torch.get_num_threads() == 8
    set_up_simulated(make_settings(engine="simulated", devices={"server_threads": 5}))
    assert torch.get_num_threads() == 5
