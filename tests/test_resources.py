"""What a run needs of its machine is estimated, and what cannot fit is refused with the figures."""

import pathlib
from typing import Any

import pytest
import torch

from aal.app.models import build_model
from aal.config import machine
from aal.config.errors import UserError
from aal.config.loading import load
from aal.config.registry import NETWORKS
from aal.engines import resources
from aal.engines.resources import check_resources, parts_of
from tests.builders import make_settings

pytestmark = pytest.mark.unit
DIGITS, CIFAR = (1797, 8, 8, 1), (60_000, 32, 32, 3)
MEMINFO = "MemTotal:       100 kB\nMemAvailable:   {free} kB\n"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 8 GB, 500 threads and 1024 open files left."""
    monkeypatch.setattr(resources, "free_memory", lambda: 8 * 10**9)
    monkeypatch.setattr(resources, "free_threads", lambda: 500)
    monkeypatch.setattr(resources, "most_open_files", lambda: 1024)


def refused(shape: tuple[int, ...] = DIGITS, **changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        check_resources(make_settings(**changes), shape)
    return list(caught.value.problems)


@pytest.mark.usefixtures("small")
def test_runs_of_the_repository_fit_a_small_machine() -> None:
    check_resources(load("digits.yaml"), DIGITS)
    check_resources(load("cifar10-cpu.yaml"), CIFAR)
    check_resources(load("scaling.yaml", ["annotators.number=10000"]), (10**6, 1, 1, 1))


@pytest.mark.usefixtures("small")
def test_what_cannot_fit_is_refused_with_the_figures() -> None:
    memory, threads, files = refused(server_num=1000)
    assert memory.startswith("server_num: the run needs about 1") and "1000 servers of 0.1" in memory
    assert memory.endswith("and 8.0 GB are free; make server_num smaller")
    assert threads.startswith("server_num: the run needs about 40") and "may start 500" in threads
    assert files.startswith("server_num: the run needs about 20") and "ulimit -n" in files
    assert refused(worker_num=1000, split_strategy="DS", query_batch=1)[0].startswith("worker_num: ")
    assert refused(engine="simulated", compute="none", shape=(10**9, 1, 1, 1))[0].startswith("examples: ")
    (wide,) = refused(models="vgg16", data_type="cifar-10", width=4, server_num=8, shape=CIFAR)
    assert wide.startswith("server_num: ")
    assert not refused(annotators={"number": 10**6, "seconds_per_label": 1.0}, server_num=40)[0].startswith("worker")


@pytest.mark.usefixtures("small")
def test_a_process_without_room_for_pytorch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "address_space", lambda: 4 * 10**8)
    assert refused() == ["compute: a process may have 0.4 GB of addresses (ulimit -v), and PyTorch takes 3.3"]


@pytest.mark.parametrize(("shape", "most"), [(DIGITS, 1.2), (CIFAR, 2.2)])
def test_processes_that_share_need_no_more(shape: tuple[int, ...], most: float) -> None:
    each = sum(part.number * part.bytes for part in parts_of(make_settings(worker_num=20), shape))
    changed = make_settings(worker_num=20, devices={"worker_processes": 2})
    assert sum(part.number * part.bytes for part in parts_of(changed, shape)) < each < most * 3e9


@pytest.mark.parametrize("name", NETWORKS.entries)
def test_networks_are_of_the_size_that_they_are_registered_with(name: str) -> None:
    network, facts = build_model(name, classes=10, channels=3, image_size=32, seed=0).train(), NETWORKS.facts(name)
    weights = {weight.data_ptr(): weight.numel() for weight in network.parameters()}
    kept: dict[int, float] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size() / 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(2, 3, 32, 32))
    assert facts["parameters"] == pytest.approx(sum(weights.values()), rel=0.05)
    assert facts["activations"] == pytest.approx(sum(kept.values()) / 2 / 32**2, rel=0.1)


def written(root: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("membership", "groups", "free"),
    [
        ("0::/\n", {}, 4096),
        ("0::/a/b\n", {"a/memory.max": "2000", "a/memory.current": "500", "a/b/memory.max": "max"}, 1500),
        ("0::/\n", {"memory.max": "2000", "memory.current": "500", "memory.stat": "anon 1\ninactive_file 100\n"}, 1600),
        ("4:memory:/x\n0::/\n", {"memory/memory.limit_in_bytes": "900", "memory/memory.usage_in_bytes": "1000"}, 0),
        ("4:cpu:/x\n", {"memory/memory.limit_in_bytes": "900", "memory/memory.usage_in_bytes": "100"}, 4096),
    ],
)
def test_the_memory_of_a_container_counts(
    membership: str, groups: dict[str, str], free: int, tmp_path: pathlib.Path
) -> None:
    proc = written(tmp_path / "proc", {"meminfo": MEMINFO.format(free=4), "self/cgroup": membership})
    assert machine.free_memory(proc, written(tmp_path / "groups", groups)) == free


def test_threads_are_those_of_the_container_and_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    statuses = {
        f"{number}/status": f"Name: x\nUid:\t{uid}\t0\nThreads:\t7\n" for number, uid in ((1, 5), (2, 5), (3, 6))
    }
    proc = written(tmp_path / "proc", {"self/cgroup": "0::/\n", **statuses})
    groups = written(tmp_path / "groups", {"pids.max": "100", "pids.current": "60"})
    monkeypatch.setattr(machine.os, "geteuid", lambda: 5)
    monkeypatch.setattr(machine.os, "getuid", lambda: 5)
    monkeypatch.setattr(machine.resource, "getrlimit", lambda kind: (50, 50))
    assert machine.free_threads(proc, groups) == 36
    assert machine.most_open_files() == 50
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    assert machine.free_threads(proc, groups) == 40


def test_where_the_system_does_not_say_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    assert machine.free_memory(tmp_path, tmp_path) is None
