"""A run beside programs that only compute."""

import subprocess
from functools import partial
from typing import Any

import psutil
import pytest

from bench import busy
from bench.rows import Options, until


@pytest.mark.unit
@pytest.mark.parametrize("full", [False, True])
def test_a_busy_machine_is_compared_with_an_idle_one_and_with_the_best_fixed_threads(
    monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    monkeypatch.setattr(busy, "core_count", lambda: 4)
    asked: list[tuple[int, list[str]]] = []

    def seconds(loops: int, words: list[str]) -> float:
        asked.append((loops, words))
        threads = int(words[-1].partition("server_threads=")[2] or 0)
        return {0: 11.0, 1: 30.0, 2: 15.0, 4: 10.0}[threads] * (1 + loops / 4)

    monkeypatch.setattr(busy, "seconds_beside", seconds)
    source: Any = None
    options = Options(full=full)
    found = {row.name: row for row in busy.measure(options, source)}
    assert [(name, row.ours[0], next(iter(row.limit or []))) for name, row in found.items()] == [
        ("busy/idle", 11.0, 10.0),
        ("busy/2-loops", 16.5, 22.5),
        ("busy/2-loops/of-idle", 1.5, 3.0),
        ("busy/4-loops", 22.0, 60.0),
        ("busy/4-loops/of-idle", 2.0, 3.0),
    ]
    assert found["busy/2-loops/of-idle"].as_dict()["of_limit"] == 2.0, "above 1 where the aim is met"
    assert all(("worker_query_num=3" in words) != full for _, words in asked)
    assert len(options.notes) == 1


@pytest.mark.process
@pytest.mark.parametrize("mistake", [None, KeyboardInterrupt])
def test_busy_loops_compute_and_end_in_any_case(mistake: type[BaseException] | None) -> None:
    loops: list[subprocess.Popen[bytes]] = []
    try:
        with busy.busy_loops(2) as loops:
            for loop in loops:
                assert until(partial(computes, psutil.Process(loop.pid)), 60.0)
            if mistake:
                raise mistake
    except KeyboardInterrupt:
        pass
    assert len(loops) == 2 and all(loop.poll() is not None for loop in loops)


def computes(process: psutil.Process) -> bool:
    return process.cpu_times().user > 0.2
