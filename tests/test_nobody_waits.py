"""Selection just in time with real processes: annotators go on while servers and workers hang or die."""

import contextlib
import functools
import pathlib
import signal
import sqlite3
from collections.abc import Iterator

import pytest

from aal.engines.base import RunResult, RunStatus
from aal.engines.local.engine import LocalEngine
from aal.reporting.progress import Progress
from tests.builders import query, wait_for
from tests.test_faults import meanwhile, plan_of, processes

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def answered(run: pathlib.Path) -> int:
    """Answers on disk."""
    with contextlib.suppress(sqlite3.OperationalError):  # while the hub is replaced
        return int(query(run, "SELECT count(*) FROM queries WHERE answered_at IS NOT NULL")[0][0])
    return 0


@contextlib.contextmanager
def stopped(run: pathlib.Path, *names: str) -> Iterator[None]:
    """Stops processes of a run, and lets them go on in the end."""
    those = [processes(run)[name] for name in names]
    for process in those:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in those:
            process.send_signal(signal.SIGCONT)


def stop_until_all_is_labelled(run: pathlib.Path, labels: int, *names: str) -> None:
    """Stops processes when a model has chosen, and lets them go on when there is nothing left to label.

    The annotators are stopped until then: on a busy machine they would be done before the first model.
    """
    with contextlib.ExitStack() as until_labelled:
        with stopped(run, "annotators"):
            wait_for(lambda: query(run, "SELECT count(*) FROM standing_queries WHERE version >= 0")[0][0])
            until_labelled.enter_context(stopped(run, *names))
        wait_for(lambda: answered(run) == labels)


@pytest.mark.parametrize("names", [("server-0",), ("worker-0",), ("server-0", "worker-1")])
def test_every_label_is_given_while_a_server_or_a_worker_hangs(tmp_path: pathlib.Path, names: tuple[str, ...]) -> None:
    plan = plan_of(tmp_path / "run", hung_after_s=100.0, max_staleness="auto", seconds_per_label=0.5)
    hung: list[bool] = []

    def strike() -> None:
        stop_until_all_is_labelled(plan.run, 60, *names)
        hung.append(True)

    with meanwhile(plan.run, strike):
        assert LocalEngine().run(plan, Progress(None)) == RunResult(RunStatus.FINISHED)
    assert hung, "labels came to an end while it hung"
    assert query(plan.run, "SELECT count(*), count(DISTINCT item), count(label) FROM queries") == [(60, 60, 60)]
    assert query(plan.run, "SELECT max(labels) FROM models") == [(64,)], "the last training uses every label"


def kill_each(run: pathlib.Path, *names: str) -> None:
    """Kills processes, one after another, while labels are given."""

    def has(labels: int) -> bool:
        return answered(run) > labels

    def is_there(name: str) -> bool:
        return name in processes(run)

    for number, name in enumerate(names):
        wait_for(functools.partial(has, 5 * (number + 1)))
        wait_for(functools.partial(is_there, name))
        processes(run)[name].kill()


def test_killed_workers_and_servers_lose_nothing(tmp_path: pathlib.Path) -> None:
    plan = plan_of(tmp_path / "run", labels=100, max_staleness="auto")
    names = ("worker-0", "worker-1", "server-0", "worker-0", "hub", "worker-1")
    with meanwhile(plan.run, functools.partial(kill_each, plan.run, *names)):
        assert LocalEngine().run(plan, Progress(None)) == RunResult(RunStatus.FINISHED)
    assert query(plan.run, "SELECT count(*), count(DISTINCT item), count(label) FROM queries") == [(100, 100, 100)]
    offered, withdrawn = query(plan.run, "SELECT (SELECT count(*) FROM offers), (SELECT count(*) FROM withdrawals)")[0]
    assert offered - withdrawn == 100
