"""Simulated people: their times, their errors, and that none is lost or served twice."""

import asyncio
import statistics
import time
from typing import Any

import numpy as np
import pytest

from aal.annotators.simulated import Annotator, Desk, annotate_all
from aal.config.settings import AnnotatorSettings
from aal.coordination.clock import WallClock
from tests.test_hub import make_hub, make_settings, offer, train

pytestmark = pytest.mark.unit


def person(index: int = 0, **settings: Any) -> Annotator:
    return Annotator(index, AnnotatorSettings(**settings), np.arange(70) % 3, 3, seed=0)


def test_times_have_the_mean_and_the_spread() -> None:
    settings: dict[str, Any] = {"seconds_per_label": 2.0, "relative_std": 0.5}
    assert person(0, **settings).respond(5) == person(0, **settings).respond(5), "the same person, item and seed"
    assert person(0, **settings).respond(5) != person(1, **settings).respond(5)
    many = Annotator(1, AnnotatorSettings(**settings), np.zeros(20_000, int), 3, seed=0)
    times = [many.respond(item)[0] for item in range(20_000)]
    assert statistics.mean(times) == pytest.approx(2.0, rel=0.03)
    assert statistics.stdev(times) == pytest.approx(1.0, rel=0.06)
    assert min(times) > 0
    assert person(0, seconds_per_label=2.0, relative_std=0.0).respond(1)[0] == 2.0


def test_errors_come_at_their_rate_and_are_other_classes() -> None:
    careless = Annotator(2, AnnotatorSettings(error_rate=0.2), np.ones(10_000, int), 3, seed=0)
    labels = [careless.respond(item)[1] for item in range(10_000)]
    assert labels.count(1) == pytest.approx(8000, abs=200)
    assert labels.count(0) == pytest.approx(1000, abs=150) and labels.count(2) == pytest.approx(1000, abs=150)
    assert [person(3).respond(item)[1] for item in range(70)] == [item % 3 for item in range(70)]


def test_hundreds_label_in_one_process_until_the_run_is_over() -> None:
    settings = make_settings(worker_query_num=6, query_pool_size=60)
    hub, _ = make_hub(settings)
    train(hub)

    async def live() -> None:
        clock = WallClock(time.monotonic())
        people = [person(index, seconds_per_label=0.01) for index in range(300)]
        crowd = asyncio.create_task(annotate_all(people, Desk(hub, clock), clock))
        while hub.status().labels < 60:
            for worker in range(2):
                if hub._schedule.next_count(worker):
                    offer(hub, worker)
            await asyncio.sleep(0.001)
            train(hub)
        hub.stop()
        await asyncio.wait_for(crowd, 10)

    asyncio.run(live())
    items, labels = hub.labels(4, 64)
    assert len(set(items.tolist())) == 60 and (labels == items % 3).all()


def test_what_is_there_at_once_leaves_the_others_of_a_process_their_turns() -> None:
    clock, turns = WallClock(time.monotonic()), []

    async def role(name: str) -> None:
        for _ in range(3):
            turns.append(await clock.until(lambda: name))

    async def process() -> None:
        await asyncio.gather(role("a"), role("b"))

    asyncio.run(process())
    assert turns == ["a", "b"] * 3
