"""The simulated engine: waits that end by the change itself, the paper's example, the same run to the last row."""

import asyncio
import dataclasses
import hashlib
import itertools
import math
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aal.config.errors import RunFailed
from aal.config.settings import CostSettings
from aal.coordination.answers import Kind, Said
from aal.coordination.clock import Work
from aal.coordination.messages import Change, Pending, Status
from aal.engines.base import RunResult, RunStatus
from aal.engines.simulated import engine
from aal.engines.simulated.engine import SimulatedEngine
from aal.engines.simulated.virtual_time import VirtualClock, VirtualLoop
from aal.reporting.progress import Progress
from aal.storage.journal import Journal
from aal.storage.resume_state import ResumeState
from tests.builders import imagined_plan, query, wait_for
from tests.test_runs import QUICK, ROOT, command, resume

FREE = {"per_image_trained": 0.0, "per_image_scored": 0.0, "per_selection": 0.0, "per_model_published": 0.0}


def simulate(run: pathlib.Path, pool: int = 1000, **changes: Any) -> pathlib.Path:
    """Runs it; returns its directory."""
    result = SimulatedEngine().run(imagined_plan(run, pool, **changes), Progress())
    assert result == RunResult(RunStatus.FINISHED), result
    return run


def rows(run: pathlib.Path) -> str:
    """Every row of every table."""
    with closing(sqlite3.connect(run / "run.db")) as db:
        return "\n".join(db.iterdump())


# ---------------------------------------------------------------------- the loop and the clock


@pytest.mark.unit
def test_an_hour_passes_at_once_and_ties_keep_their_order() -> None:
    loop = VirtualLoop()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, loop.time()))

    async def all_of_them() -> None:
        await asyncio.gather(*(sleeper(name, seconds) for name, seconds in (("b", 3600), ("a", 1), ("c", 3600))))

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(all_of_them())
    assert [name for name, _ in seen] == ["a", "b", "c"]
    assert [when for _, when in seen] == pytest.approx([1, 3600, 3600])


@pytest.mark.unit
def test_waiting_for_what_nobody_does_is_an_error() -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(RunFailed, match="every role waits"):
        runner.run(forever())


@pytest.mark.unit
def test_work_takes_what_the_cost_model_says() -> None:
    costs = CostSettings(per_image_trained=0.5, per_image_scored=0.1, per_selection=2, per_model_published=7)
    with closing(VirtualLoop()) as loop:
        clock = VirtualClock(loop, costs, seed=0)
        spread = VirtualClock(loop, costs.model_copy(update={"relative_std": 0.5}), seed=0)
    assert clock.cost(Work("training", 0, 0, trained=10, scored=20)) == 10 * 0.5 + 20 * 0.1 + 7
    assert clock.cost(Work("selection", 0, 0, trained=0, scored=20)) == 20 * 0.1 + 2
    times = np.array([spread.cost(Work("selection", 0, number, 0, 20)) for number in range(20_000)])
    assert times.mean() == pytest.approx(4.0, rel=0.02) and times.std() == pytest.approx(2.0, rel=0.05)
    assert spread.cost(Work("selection", 0, 5, 0, 20)) == times[5], "the same work costs the same, whenever it is done"


@pytest.mark.unit
def test_who_leaves_a_line_lets_the_next_one_try() -> None:
    """Two wait in turn for room; the first then waits for a model instead, and the second is served."""
    room = 0
    served: list[str] = []

    async def wait(clock: VirtualClock, name: str) -> None:
        def attempt(*_: object) -> str | Pending:
            if not room:
                return Pending(Change.ROOM, in_turn=True)
            return Pending(Change.MODELS) if name == "first" and len(served) == 0 else name

        served.append(await clock.until(attempt))

    async def live(clock: VirtualClock) -> None:
        nonlocal room
        tasks = [asyncio.create_task(wait(clock, name)) for name in ("first", "second")]
        await asyncio.sleep(1)
        room = 1
        clock.notify(Change.ROOM)
        await asyncio.sleep(1)
        assert served == ["second"]
        clock.notify(Change.MODELS)
        await asyncio.gather(*tasks)

    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(live(VirtualClock(loop, CostSettings(), seed=0)))
    assert served == ["second", "first"]


@pytest.mark.unit
def test_a_simulation_never_deletes_answers_that_it_cannot_repeat(tmp_path: pathlib.Path) -> None:
    plan = imagined_plan(tmp_path / "run", worker_num=1, query_batch=10, server_train_threshold=10)
    meta = {"config": yaml.safe_dump({"engine": "local", "annotators": {"source": "simulated"}})}
    said = [Said(10, 0, 1, Kind.LABEL)]
    state = ResumeState([(10, 1)], said, [], [], [0], [], None, [], 1, 5.0, None, meta)
    (plan.run / "run.db").write_text("answers")
    result = SimulatedEngine().run(dataclasses.replace(plan, resume=state), Progress())
    assert result.exit_code == 2 and "1 answers that a simulation cannot repeat" in result.cause
    assert (plan.run / "run.db").read_text() == "answers"


# ---------------------------------------------------------------------- runs that compute nothing


def one_by_one(server_num: int) -> dict[str, Any]:
    """Queries one at a time, a second each, and trainings of three seconds (paper, section 3.2)."""
    example: dict[str, Any] = {"worker_num": 1, "worker_query_num": 24, "query_batch": 1, "server_train_threshold": 1}
    return dict(
        **example,
        server_num=server_num,
        max_staleness=None,
        query_pool_size=1,
        # A hair less than three seconds, so that a model is there when the query of the same moment is chosen.
        costs={**FREE, "per_selection": 1.0, "per_model_published": 2.999},
        annotators={"number": 1, "seconds_per_label": 0.0, "relative_std": 0.0},
    )


@pytest.mark.unit
def test_the_papers_worked_example(tmp_path: pathlib.Path) -> None:
    """Section 3.2: with one server the first 4 queries use version 0 and every 3 further ones a new version; with three
    servers every query after the first 4 sees a new model."""
    versions = "select version from queries order by offered_at"
    one = [version for (version,) in query(simulate(tmp_path / "one", **one_by_one(1)), versions)]
    assert one == [0] * 4 + [1 + number // 3 for number in range(20)]
    three = [version for (version,) in query(simulate(tmp_path / "three", **one_by_one(3)), versions)]
    assert three == [0] * 4 + list(range(1, 21))


@pytest.mark.unit
@settings(max_examples=60, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate))
@given(
    drawn=st.fixed_dictionaries(
        {
            "server_num": st.integers(1, 4),
            "worker_num": st.integers(1, 5),
            "worker_query_num": st.integers(1, 5),
            "query_batch": st.integers(1, 6),
            "max_staleness": st.sampled_from([0, 1, 2, None, "auto", "auto"]),
            "mode": st.sampled_from(["async", "async", "sync"]),
            "server_train_num": st.sampled_from([None, 1, 3]),
            "seed": st.integers(0, 1000),
            "withdraw_stale": st.sampled_from([None, None, False]),
        }
    ),
    threshold=st.integers(1, 40),
    pool=st.integers(8, 120),
    room=st.sampled_from([None, 6, 20]),
    seconds=st.sampled_from([0.0, 0.3, 3.0]),
    lease=st.sampled_from([4.0, 1000.0]),
    annotators=st.integers(1, 12),
    width=st.sampled_from([0.5, 2.0]),
)
def test_any_run_ends_and_is_the_same_to_the_last_row(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: dict[str, Any],
    threshold: int,
    pool: int,
    room: int | None,
    seconds: float,
    lease: float,
    annotators: int,
    width: float,
) -> None:
    """No wake-up is forgotten (that would be an error of the loop), whatever waits for whatever."""
    budget = drawn["worker_num"] * drawn["worker_query_num"] * drawn["query_batch"]
    threshold = min(threshold, budget)
    setting: dict[str, Any] = dict(
        **drawn,
        server_train_threshold=threshold,
        query_pool_size=max(room, threshold) if room and drawn["mode"] == "sync" else room,
        costs={"per_image_trained": 0.002, "per_image_scored": 0.01, "relative_std": width},
        annotators={"number": annotators, "seconds_per_label": seconds, "relative_std": 1.0, "lease_s": lease},
    )
    folder = tmp_path_factory.mktemp("runs")
    first, second = (simulate(folder / name, pool, **setting) for name in ("first", "second"))
    assert rows(first) == rows(second)
    plan = imagined_plan(folder / "first", pool, **setting)
    s = plan.settings
    shards = [min(len(shard), s.worker_query_num * s.query_batch) for shard in plan.partition.shards]
    bought = min(s.budget, pool) if s.mode == "sync" or s.max_staleness == "auto" else sum(shards)
    assert query(first, "select count(*), count(distinct arrival) from queries where label >= 0") == [(bought, bought)]
    assert query(first, "select max(labels) from models") == [(4 + bought,)]
    assert query(
        first, "select count(*) from queries where not offered_at <= drawn_at or not drawn_at <= answered_at"
    ) == [(0,)]


@pytest.mark.unit
def test_a_late_annotators_query_goes_to_another_at_the_very_end_of_its_lease(tmp_path: pathlib.Path) -> None:
    setting: dict[str, Any] = dict(
        **{"worker_num": 1, "worker_query_num": 1, "query_batch": 80, "server_train_threshold": 80},
        annotators={"number": 80, "seconds_per_label": 1.0, "relative_std": 3.0, "lease_s": 5.0},
    )
    run = simulate(tmp_path / "run", **setting)
    draws = query(run, "select count(*) from waits")[0][0]
    assert draws > 80, "a label took more than five seconds, and the query was drawn again"
    (offered,) = query(run, "select offered_at from queries limit 1")[0]
    again = {round(when - offered, 6) for (when,) in query(run, "select got_at from waits where got_at > asked_at")}
    assert 5.0 in again


@pytest.mark.unit
def test_nobody_waits_for_models_unless_labels_come_faster(tmp_path: pathlib.Path) -> None:
    plenty: dict[str, Any] = {"worker_num": 4, "worker_query_num": 6, "query_batch": 25, "server_train_threshold": 100}
    people: dict[str, Any] = {"number": 10, "seconds_per_label": 1.0, "relative_std": 0.0}
    slow: dict[str, Any] = {"costs": {**FREE, "per_model_published": 1000.0}, "max_staleness": 1, "annotators": people}
    quick: dict[str, Any] = {**slow, "costs": {**FREE, "per_model_published": 9.0}}
    waits = (
        "select coalesce(max(got_at - asked_at), 0) from waits where asked_at > (select min(published_at) from models)"
    )
    assert query(simulate(tmp_path / "quick", **plenty, **quick), waits)[0][0] < 0.5
    assert query(simulate(tmp_path / "slow", **plenty, **slow), waits)[0][0] > 900


@pytest.mark.unit
def test_a_role_that_fails_is_named(tmp_path: pathlib.Path) -> None:
    plan = imagined_plan(tmp_path / "run", worker_num=1, query_batch=10, server_train_threshold=10)
    roles = [dataclasses.replace(plan.roles[0], live="tests.test_simulated:failing")]
    result = SimulatedEngine().run(dataclasses.replace(plan, roles=roles), Progress())
    assert result == RunResult(RunStatus.FAILED, "server-0: ZeroDivisionError: division by zero", 1)


@pytest.mark.unit
def test_a_record_that_cannot_be_written_is_the_reason_that_is_reported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Journal.write, itertools.count()

    def broken(journal: Journal, *statements: Any) -> None:
        write(journal, *statements, *([("INSERT INTO nowhere VALUES(?)", [(1,)])] if next(calls) == 40 else []))

    monkeypatch.setattr(Journal, "write", broken)
    plan = imagined_plan(tmp_path / "run", 6000, worker_num=2, query_batch=500, server_train_threshold=1000)
    result = SimulatedEngine().run(plan, Progress())
    assert result.status is RunStatus.FAILED and "run.db: cannot be written: no such table: nowhere" in result.cause


async def failing(*_: object) -> None:
    raise ZeroDivisionError("division by zero")


# ---------------------------------------------------------------------- runs that compute

SIMULATED = [
    *QUICK,
    "engine=simulated",
    "costs.relative_std=0.3",
    "annotators.relative_std=0.5",
]


def tables(run: pathlib.Path) -> tuple[str, list[tuple[str, str]]]:
    models = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in (run / "models").iterdir()}
    return rows(run), sorted(models.items())


@pytest.mark.process
@pytest.mark.parametrize("mode", ["async", pytest.param("sync", marks=pytest.mark.slow)])
def test_the_same_config_gives_the_same_run_to_the_last_row_also_when_it_is_killed_and_resumed(
    tmp_path: pathlib.Path, mode: str
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = [*SIMULATED, f"mode={mode}", "training.epochs=8", "server_train_threshold=15"]  # so it lasts some seconds
    done = subprocess.run(command(whole, *words), cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "All times are virtual" in (whole / "report" / "report.md").read_text()
    with subprocess.Popen(command(broken, *words), cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        wait_for(lambda: (broken / "models").exists() and list((broken / "models").glob("*.pt")))
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it was not killed while it went on"
    resumed = resume(broken)
    assert resumed.returncode == 0, resumed.stderr
    assert tables(whole) == tables(broken)
    trained = re.findall(r"trains on", (broken / "log.txt").read_text())
    assert len(trained) > len(list((broken / "models").glob("*.pt"))), "it was repeated from the start"


@pytest.mark.process
def test_ctrl_c_ends_a_simulated_run_and_it_can_go_on(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        command(run, *SIMULATED, "training.epochs=40"),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        wait_for(lambda: (run / "models").exists() and list((run / "models").glob("*.pt")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in out, (out, err)
    assert resume(run).returncode == 0


@pytest.mark.unit
def test_ctrl_c_after_the_roles_have_ended_changes_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SHOW_EVERY_S", math.inf)  # a look at the start, and the one after the roles

    class AtTheEnd(Progress):
        def show(self, status: Status) -> None:
            if status.finished:
                signal.raise_signal(signal.SIGINT)

    assert SimulatedEngine().run(imagined_plan(tmp_path, 20), AtTheEnd()) == RunResult(RunStatus.FINISHED)


@pytest.mark.slow
@pytest.mark.process
def test_costs_of_this_machine_are_measured_once_and_written_down(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = [*QUICK, "engine=simulated", "costs=measured", "worker_query_num=1"]
    done = subprocess.run(command(run, *words), cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    costs = resolve_costs(run)
    assert not costs.measured
    found = [cost for name, cost in costs.model_dump().items() if name.startswith("per_")]
    assert all(0 <= cost < 60 for cost in found) and any(found)
    again = tmp_path / "again"
    call = [sys.executable, "main.py", "--config", str(run / "config.yaml"), "--out", str(again)]
    assert subprocess.run(call, cwd=ROOT, capture_output=True, timeout=100).returncode == 0
    assert rows(run) == rows(again), "a run's own config repeats it"


def resolve_costs(run: pathlib.Path) -> CostSettings:
    from aal.config.loading import load

    return load(str(run / "config.yaml")).costs
