"""PyTorch in a process: threads follow what the other roles of a run compute, and what other programs leave free."""

import os
from typing import Any

import pytest
import torch

from aal.coordination.messages import Computing
from aal.coordination.monitor import HubMonitor
from aal.coordination.schedules import schedule_of
from aal.training.networks import Architecture
from aal.training.process import set_up_local, set_up_simulated, threads_for
from tests.builders import make_hub, make_settings

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
        ("server", {}, Computing(1, 0, free_cores=7.8), 8),  # nearly a core is one
        ("server", {}, Computing(1, 0, free_cores=7.5), 7),
        ("server", {}, Computing(1, 1, free_cores=4.0), 3),
        ("server", {}, Computing(2, 1, free_cores=5.0), 2),
        ("server", {}, Computing(1, 0, free_cores=0.1), 1),
        ("server", {"devices": {"server_threads": 5}}, Computing(1, 0, free_cores=1.0), 5),
        ("server", {"mode": "sync"}, Computing(1, 0, free_cores=2.0), 2),
        ("worker", {"worker_num": 5000}, None, 1),
        ("worker", {"devices": {"worker_threads": 3}}, None, 3),
        ("worker", {"mode": "sync"}, None, 8),
        ("worker", {"mode": "sync"}, Computing(0, 1, free_cores=2.0), 2),
    ],
)
def test_threads_are_shared(role: Any, changes: dict[str, Any], computing: Computing | None, threads: int) -> None:
    settings = make_settings(**changes)
    assert threads_for(role, settings, schedule_of(settings).takes_turns, computing) == threads


def test_a_training_gives_threads_back_while_others_compute() -> None:
    adapt = set_up_local("server", make_settings(server_num=2), takes_turns=False)
    seen = [torch.get_num_threads()]
    for computing in (Computing(1, 0), Computing(1, 1), Computing(2, 8), Computing(1, 0)):
        adapt(computing)
        seen.append(torch.get_num_threads())
    assert seen == [3, 8, 7, 1, 8]


def test_threads_follow_what_other_programs_leave_free() -> None:
    hub, _ = make_hub(make_settings())
    monitor = HubMonitor(hub)
    adapt = set_up_local("server", make_settings(), takes_turns=False)
    hub.job(0)  # a training
    seen = []
    for free_cores in (None, 8.0, 1.3, 5.0):
        if free_cores is not None:
            monitor.share_cores(free_cores)
        adapt(monitor.heartbeat("server-0"))
        seen.append(torch.get_num_threads())
    assert seen == [8, 8, 1, 5]


def test_a_compiled_network_keeps_its_threads() -> None:
    adapt = set_up_local("server", make_settings(server_num=2, training={"compile": True}), takes_turns=False)
    seen = [torch.get_num_threads()]
    for computing in (Computing(1, 0, free_cores=5.0), Computing(1, 0), Computing(2, 8, free_cores=1.0)):
        adapt(computing)
        seen.append(torch.get_num_threads())
    assert seen == [3, 2, 2, 2], "of the first measure: both servers, beside a worker"


def test_a_simulated_run_computes_with_one_thread_or_as_many_as_are_given() -> None:
    set_up_simulated(make_settings(engine="simulated"))
    assert torch.get_num_threads() == 1
    set_up_simulated(make_settings(engine="simulated", devices={"server_threads": 5}))
    assert torch.get_num_threads() == 5


def test_initial_weights_do_not_depend_on_threads() -> None:
    def weights(threads: int) -> list[bytes]:
        torch.set_num_threads(threads)
        network = Architecture("cnn", classes=10, channels=1, image_size=8, options={}).build(seed=3)
        return [value.numpy().tobytes() for value in network.state_dict().values()]

    assert weights(1) == weights(4)
