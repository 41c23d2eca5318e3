"""The CPU cores that this program may use, and how many of them other programs leave free."""

import contextlib
import os
import pathlib
import time
from dataclasses import dataclass

import psutil

from aal.config.machine import CGROUPS, PROC, control_groups

SHORTEST_S = 0.1  # a shorter time is not measured: the kernel counts in ticks of 0.01 s
LOOK_S = 0.5  # to measure once


def core_count() -> int:
    """Returns the CPU cores that this process may use, by its affinity and the limits of its container, at least 1."""
    return max(1, int(_allowed(cpu_limits())))


@dataclass(frozen=True)
class CpuLimit:
    """How much CPU time the processes of a container, or of another control group, may use together.

    Attributes:
        cores: CPU seconds a second.
        usage: the file that counts what they have used.
    """

    cores: float
    usage: pathlib.Path

    def used(self) -> float:
        """Returns the CPU seconds used so far."""
        text = self.usage.read_text(encoding="ascii")
        if self.usage.name == "cpu.stat":
            return int(text.split()[1]) / 1e6  # its first line: usage_usec N
        return int(text) / 1e9


def cpu_limits(proc: pathlib.Path = PROC, cgroups: pathlib.Path = CGROUPS) -> list[CpuLimit]:
    """Returns the CPU limits of the control groups that this process is in: its own and all above it.

    Docs: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), and cgroup-v1, scheduler/sched-bwc.html.

    Args:
        proc: where /proc is mounted.
        cgroups: where control groups are mounted.
    """
    limits = []
    for group in control_groups("cpu", proc, cgroups):
        with contextlib.suppress(OSError, ValueError):  # a file that is not there, or "max": there is no limit
            if (group / "cpu.max").exists():
                quota, period = map(int, (group / "cpu.max").read_text(encoding="ascii").split())
                usage = group / "cpu.stat"
            else:
                files = (group / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
                quota, period = (int(file.read_text(encoding="ascii")) for file in files)
                usage = cgroups / "cpuacct" / group.relative_to(cgroups / "cpu") / "cpuacct.usage"
            if quota > 0:
                limits.append(CpuLimit(quota / period, usage))
    return limits


def _affinity() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _allowed(limits: list[CpuLimit]) -> float:
    return min([len(_affinity()), *(limit.cores for limit in limits)])


@dataclass(frozen=True)
class _Look:
    """Counters of CPU time, in seconds, at one moment."""

    at: float
    idle: float  # of the cores that this process may use
    own: dict[psutil.Process, float]  # of this process and all that it has started
    used: list[float]  # of each limit

    @classmethod
    def now(cls, limits: list[CpuLimit]) -> "_Look":
        every, allowed = psutil.cpu_times(percpu=True), _affinity()
        if len(allowed) < len(every):
            every = [every[core] for core in allowed if core < len(every)]
        idle = sum(times.idle + getattr(times, "iowait", 0.0) for times in every)
        own = {}
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended
                times = process.cpu_times()
                own[process] = times.user + times.system
        return cls(time.monotonic(), idle, own, [limit.used() for limit in limits])


class FreeCores:
    """Measures, from one look to the next, how many cores this program and all that it has started could use.

    That is what was idle and what they used themselves: so it does not matter how many cores they use meanwhile.
    """

    def __init__(self) -> None:
        self._limits = cpu_limits()
        self._free = self.most = _allowed(self._limits)
        self._before = self._look()

    def measure(self) -> float:
        """Returns the cores that were free since the last time; all of them where the system does not say."""
        now, before = self._look(), self._before
        if now is None or before is None or not now.idle:
            return self._free
        seconds = now.at - before.at
        if seconds >= SHORTEST_S:
            self._before = now
            idle = [(now.idle - before.idle) / seconds]
            for limit, used_now, used_before in zip(self._limits, now.used, before.used, strict=True):
                idle.append(limit.cores - (used_now - used_before) / seconds)
            own = sum(max(0.0, used - before.own.get(process, 0.0)) for process, used in now.own.items()) / seconds
            self._free = min(max(0.0, min(idle)) + own, self.most)
        return self._free

    def _look(self) -> _Look | None:
        try:
            return _Look.now(self._limits)
        except (OSError, psutil.Error, ValueError, IndexError):
            return None


def free_cores_now() -> float:
    """Returns how many cores this program could use, measured for `LOOK_S`."""
    free = FreeCores()
    time.sleep(LOOK_S)
    return free.measure()
