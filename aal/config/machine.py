"""What this machine, its container and the limits of its user leave free: memory, threads, open files."""

import contextlib
import os
import pathlib
import resource
from collections.abc import Iterator

CGROUPS = pathlib.Path("/sys/fs/cgroup")
PROC = pathlib.Path("/proc")


def free_memory(proc: pathlib.Path = PROC, cgroups: pathlib.Path = CGROUPS) -> int | None:
    """Returns the bytes that new processes may fill: of the machine, or of its container if that has less.

    Args:
        proc: where /proc is mounted.
        cgroups: where control groups are mounted.

    Returns:
        None where the system does not say.
    """
    free = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for group in control_groups("memory", proc, cgroups):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number: there is no limit
                most, now = _number(group / limit), _number(group / used)
                free.append(most - now + _file_pages(group))
    return max(0, min(free)) if free else None


def free_threads(proc: pathlib.Path = PROC, cgroups: pathlib.Path = CGROUPS) -> int | None:
    """Returns how many threads this user may start; None where there is no limit. Each process has at least one."""
    free = []
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit != resource.RLIM_INFINITY and os.geteuid():  # which does not bind root
        free.append(limit - _own_threads(proc))
    for group in control_groups("pids", proc, cgroups):
        with contextlib.suppress(OSError, ValueError):
            free.append(_number(group / "pids.max") - _number(group / "pids.current"))
    return max(0, min(free)) if free else None


def address_space() -> int | None:
    """Returns how many bytes of addresses a process of this user may have; None where there is no limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def most_open_files() -> int | None:
    """Returns how many files a process of this user may come to hold open; None where there is no limit."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if limit == resource.RLIM_INFINITY else limit


def allow_open_files(number: int) -> None:
    """Lets this process, and those that it starts, hold so many files open, or as many as the user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def control_groups(controller: str, proc: pathlib.Path, cgroups: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the folders of the control groups that this process is in, and of those above, as far as they are seen.

    A container sees its own group as the root, whatever /proc calls it.
    """
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            own = pathlib.PurePosixPath(path.lstrip("/"))
            for mount in (cgroups / controller,) if controllers else (cgroups, cgroups / "unified"):
                yield from (mount / group for group in (own, *own.parents) if (mount / group).is_dir())


def _number(path: pathlib.Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _file_pages(group: pathlib.Path) -> int:
    """Bytes of a group that hold files, which the kernel gives back when they are wanted."""
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def _own_threads(proc: pathlib.Path) -> int:
    """The threads of all processes of this user."""
    number, uid = 0, str(os.getuid())
    for status in proc.glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
            if fields["Uid"].split()[0] == uid:
                number += int(fields["Threads"])
    return number
