"""The cores that a program may use, by affinity and by the limits of containers, and those that others leave free."""

import os
import pathlib
from collections.abc import Iterator

import psutil
import pytest

from aal.config import cores
from aal.config.cores import CpuLimit, FreeCores, core_count, cpu_limits

pytestmark = pytest.mark.unit

V1, V2 = "1:cpu:{path}\n2:cpuacct:{path}\n0::/\n", "0::{path}\n"


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def write(root: pathlib.Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def quota_1(group: str, quota: int) -> dict[str, str]:
    return {
        f"cpu/{group}/cpu.cfs_quota_us": f"{quota}\n",
        f"cpu/{group}/cpu.cfs_period_us": "100000\n",
        f"cpuacct/{group}/cpuacct.usage": "3500000000\n",
    }


def quota_2(group: str, quota: str) -> dict[str, str]:
    return {f"{group}/cpu.max": f"{quota} 100000\n", f"{group}/cpu.stat": "usage_usec 3500000\nuser_usec 1\n"}


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        (V2.format(path="/"), quota_2("", "250000"), [2.5]),  # a container, which sees its own group as the root
        (V2.format(path="/docker/abc"), quota_2("", "250000"), [2.5]),  # one whose /proc names the host's group
        (V2.format(path="/"), quota_2("", "max"), []),
        (V2.format(path="/user/job"), quota_2("user/job", "max") | quota_2("user", "300000"), [3.0]),
        (V2.format(path="/user/job"), quota_2("user/job", "100000") | quota_2("user", "300000"), [1.0, 3.0]),
        (V2.format(path="/job"), quota_2("unified/job", "150000"), [1.5]),
        (V1.format(path="/"), quota_1("", 250000), [2.5]),
        (V1.format(path="/"), quota_1("", -1), []),
        (V1.format(path="/docker/abc"), quota_1("", 50000), [0.5]),
        (V1.format(path="/a/b"), quota_1("a/b", 400000) | quota_1("a", -1), [4.0]),
        (V1.format(path="/"), {"cpu/cpu.cfs_quota_us": "what?\n"}, []),
        (V2.format(path="/"), {}, []),
    ],
)
def test_limits_of_containers_are_found(
    tmp_path: pathlib.Path, membership: str, files: dict[str, str], limits: list[float]
) -> None:
    write(tmp_path, {"self/cgroup": membership, **{f"cgroup/{name}": text for name, text in files.items()}})
    found = cpu_limits(tmp_path, tmp_path / "cgroup")
    assert [limit.cores for limit in found] == limits
    assert all(limit.used() == 3.5 for limit in found)


def test_without_control_groups_there_is_no_limit(tmp_path: pathlib.Path) -> None:
    assert cpu_limits(tmp_path, tmp_path) == []


@pytest.mark.parametrize(("limits", "count"), [([], 8), ([2.5], 2), ([12.0, 3.0], 3), ([0.5], 1)])
@pytest.mark.usefixtures("eight_cores")
def test_affinity_and_limits_bound_the_cores(monkeypatch: pytest.MonkeyPatch, limits: list[float], count: int) -> None:
    monkeypatch.setattr(cores, "cpu_limits", lambda: [CpuLimit(limit, pathlib.Path()) for limit in limits])
    assert core_count() == count


def seen(
    monkeypatch: pytest.MonkeyPatch, limits: list[float], looks: list[tuple[float, float, float, list[float]]]
) -> FreeCores:
    """Free cores by what is seen: at which time, idle seconds, seconds of this program, and of each limit's group."""
    me = psutil.Process()
    sequence: Iterator[cores._Look] = iter([cores._Look(at, idle, {me: own}, used) for at, idle, own, used in looks])
    monkeypatch.setattr(cores._Look, "now", classmethod(lambda cls, limits: next(sequence)))
    monkeypatch.setattr(cores, "cpu_limits", lambda: [CpuLimit(limit, pathlib.Path()) for limit in limits])
    return FreeCores()


@pytest.mark.usefixtures("eight_cores")
def test_free_is_what_is_idle_and_what_the_program_uses_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[float, float, float, list[float]]] = [
        (10.0, 100.0, 5.0, []),
        (12.0, 116.0, 5.0, []),  # no role computes
        (14.0, 120.0, 17.0, []),  # the program uses six cores
        (16.0, 120.0, 25.0, []),  # others take half of the machine
        (16.05, 120.0, 25.0, []),  # too soon to measure again
        (18.0, 136.2, 26.0, []),  # counters that tick a little early
    ]
    free = seen(monkeypatch, [], looks)
    assert [free.measure() for _ in looks[1:]] == [8.0, 8.0, 4.0, 4.0, 8.0]


@pytest.mark.usefixtures("eight_cores")
def test_what_others_in_the_same_container_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [
        (0.0, 1.0, 0.0, [0.0]),
        (2.0, 13.0, 0.0, [0.0]),  # the host is idle, the container may use three cores
        (4.0, 23.0, 2.0, [6.0]),  # all of them are used, one by this program
    ]
    free = seen(monkeypatch, [3.0], looks)
    assert [free.measure() for _ in looks[1:]] == [3.0, 1.0]


@pytest.mark.usefixtures("eight_cores")
def test_where_the_system_does_not_say_all_cores_count_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, [], [(0.0, 0.0, 0.0, []), (2.0, 0.0, 1.0, [])]).measure() == 8

    def forbidden(percpu: bool) -> None:
        raise PermissionError("/proc/stat")

    monkeypatch.undo()
    monkeypatch.setattr(psutil, "cpu_times", forbidden)
    free = FreeCores()
    assert free.measure() == free.most


def test_this_machine_can_be_measured() -> None:
    assert 0 <= cores.free_cores_now() <= core_count()
