"""Label sources: simulated people, sources of one's own, and the client through which they reach the hub."""

import asyncio
import pathlib
import statistics
import time
from typing import Any

import numpy as np
import pytest

from aal.annotators.client import AnnotatorClient
from aal.annotators.label_source import LabellingTask, PacedLabelSource, annotate
from aal.annotators.simulated import Simulated
from aal.config.errors import UserError
from aal.config.settings import AnnotatorSettings
from aal.context import Context
from aal.coordination.clock import WallClock
from aal.coordination.hub import Hub
from aal.coordination.messages import Pending
from aal.engines.base import RunResult, RunStatus
from aal.engines.simulated.engine import SimulatedEngine
from aal.reporting.progress import Progress
from tests.builders import imagined_plan, make_hub, make_settings, query
from tests.test_hub import offer, train

pytestmark = pytest.mark.unit


def people(labels: np.ndarray, **settings: Any) -> Simulated:
    return Simulated(LabellingTask(AnnotatorSettings(**settings), 0, labels, ("a", "b", "c")))


def test_times_have_the_mean_and_the_deviation() -> None:
    some = people(np.arange(70) % 3, seconds_per_label=2.0, relative_std=0.5)
    assert some.respond(0, 5) == some.respond(0, 5), "the same annotator, example and seed"
    assert some.respond(0, 5) != some.respond(1, 5)
    many = people(np.zeros(20_000, int), seconds_per_label=2.0, relative_std=0.5)
    times = [many.respond(1, example)[0] for example in range(20_000)]
    assert statistics.mean(times) == pytest.approx(2.0, rel=0.03)
    assert statistics.stdev(times) == pytest.approx(1.0, rel=0.06)
    assert min(times) > 0
    assert people(np.zeros(2, int), seconds_per_label=2.0, relative_std=0.0).respond(0, 1)[0] == 2.0


def test_errors_come_at_their_rate_and_are_other_classes() -> None:
    careless = people(np.ones(10_000, int), error_rate=0.2)
    labels = [careless.respond(2, example)[1] for example in range(10_000)]
    assert labels.count(1) == pytest.approx(8000, abs=200)
    assert labels.count(0) == pytest.approx(1000, abs=150) and labels.count(2) == pytest.approx(1000, abs=150)
    careful = people(np.arange(70) % 3)
    assert [careful.respond(3, example)[1] for example in range(70)] == [example % 3 for example in range(70)]


def test_simulated_people_cannot_know_an_unknown_label() -> None:
    with pytest.raises(UserError, match="image 1 is unknown; name a label source of your own"):
        people(np.array([0, -1])).respond(0, 1)


class Slowpoke(PacedLabelSource):
    """A label source of one's own: always the same class, after a time that is an option."""

    def __init__(self, task: LabellingTask, seconds: float, label: int = 2) -> None:
        super().__init__(task)
        self.seconds, self.label = seconds, label

    def respond(self, annotator: int, example: int) -> tuple[float, int]:
        return self.seconds, self.label


def test_a_label_source_of_ones_own_answers(tmp_path: pathlib.Path) -> None:
    own = {"source": "tests.test_annotators:Slowpoke", "options": {"seconds": 7.0}, "number": 3}
    shape = {"worker_num": 1, "worker_query_num": 1, "query_batch": 6, "server_train_threshold": 6}
    plan = imagined_plan(tmp_path / "run", **shape, annotators=own)
    assert SimulatedEngine().run(plan, Progress()) == RunResult(RunStatus.FINISHED)
    rows = query(plan.run, "select label, round(answered_at - drawn_at, 6), count(*) from queries group by 1, 2")
    assert rows == [(2, 7.0, 6)]


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ({"source": "nobody"}, "annotators.source: must be recorded, simulated or package.module:object, not nobody"),
        ({"source": "tests.test_annotators:Slowpoke"}, "annotators.options.seconds: must be given"),
        (
            {"source": "tests.test_annotators:Slowpoke", "options": {"seconds": "long"}},
            "annotators.options.seconds: must be a number, not long",
        ),
        (
            {"source": "tests.test_annotators:Slowpoke", "options": {"seconds": 1.0, "speed": 2}},
            "annotators.options.speed: no such option; there are: seconds, label",
        ),
        ({"source": "nosuchfile:Source"}, "annotators.source: nosuchfile:Source: there is no module nosuchfile"),
    ],
)
def test_a_wrong_label_source_is_one_line(own: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        make_settings(annotators=own)
    (line,) = error.value.problems
    assert problem in line


class Answering(PacedLabelSource):
    """A label source that gives what no answer is."""

    def __init__(self, task: LabellingTask, kind: str) -> None:
        super().__init__(task)
        self.answer: Any = {"none": None, "text": (1.0, "3"), "class": (1.0, 10), "time": (-1.0, 0)}[kind]

    def respond(self, annotator: int, example: int) -> tuple[float, int]:
        return self.answer


@pytest.mark.parametrize("kind", ["none", "text", "class", "time"])
def test_an_answer_that_is_none_ends_the_run_in_one_line(tmp_path: pathlib.Path, kind: str) -> None:
    own = {"source": "tests.test_annotators:Answering", "options": {"kind": kind}}
    plan = imagined_plan(tmp_path / "run", worker_num=1, query_batch=10, server_train_threshold=10, annotators=own)
    result = SimulatedEngine().run(plan, Progress())
    assert result.exit_code == 2 and "annotators.source: respond must return (seconds, label)" in result.cause


class Leaving:
    """A label source that ends too early."""

    def __init__(self, task: LabellingTask) -> None:
        self.task = task

    async def annotate(self, client: AnnotatorClient, clock: Any) -> None:
        await client.answer(await client.draw(0), 0, 0)


def test_a_label_source_that_ends_early_ends_the_run_in_one_line(tmp_path: pathlib.Path) -> None:
    own = {"source": "tests.test_annotators:Leaving"}
    plan = imagined_plan(tmp_path / "run", worker_num=1, query_batch=10, server_train_threshold=10, annotators=own)
    result = SimulatedEngine().run(plan, Progress())
    assert result.status is RunStatus.FAILED and "the label source ended before the run did" in result.cause


def test_a_cancelled_draw_takes_no_query() -> None:
    hub, _ = make_hub(make_settings())

    def heartbeat() -> None:
        hub.computing()

    async def live() -> None:
        client = AnnotatorClient(hub, WallClock(time.monotonic()), heartbeat)
        running = asyncio.create_task(client.run())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.draw(0), 0.02)
        train(hub)
        offer(hub, 0)
        assert await asyncio.wait_for(client.draw(1), 5) in range(10, 40)
        hub.stop()
        await running

    asyncio.run(live())
    assert hub.status().waiting == 4


def test_hundreds_label_in_one_process_until_the_run_is_over(tmp_path: pathlib.Path) -> None:
    annotators = {"number": 300, "seconds_per_label": 0.01}
    settings = make_settings(worker_query_num=6, query_pool_size=60, annotators=annotators)
    hub, _ = make_hub(settings)
    train(hub)

    async def live() -> None:
        clock = WallClock(time.monotonic())
        context: Context[Hub] = Context("annotators", 0, tmp_path, settings, hub, clock, lambda: None)
        source = Simulated(LabellingTask(settings.annotators, 0, np.arange(70) % 3, ("a", "b", "c")))
        everyone = asyncio.create_task(annotate(source, context))
        while hub.status().labels < 60:
            for worker in range(2):
                if len(hub.remaining(worker)):
                    offer(hub, worker)
            await asyncio.sleep(0.001)
            train(hub)
        hub.stop()
        await asyncio.wait_for(everyone, 10)

    asyncio.run(live())
    ids, labels = hub.labels(4, 64)
    assert len(set(ids.tolist())) == 60 and (labels == ids % 3).all()


def test_who_still_waits_at_the_end_is_released() -> None:
    hub, _ = make_hub(make_settings())

    async def live() -> list[Any]:
        client = AnnotatorClient(hub, WallClock(time.monotonic()))
        draws = [asyncio.create_task(client.draw(number)) for number in range(3)]
        running = asyncio.create_task(client.run())
        await asyncio.sleep(0.01)
        hub.stop()
        await running
        return await asyncio.gather(*draws, return_exceptions=True)

    assert [type(error).__name__ for error in asyncio.run(live())] == ["Stopped"] * 3


def test_annotators_of_a_group_have_numbers_of_their_own() -> None:
    hub, _ = make_hub(make_settings())
    train(hub)
    offer(hub, 0)

    def heartbeat() -> None:
        hub.computing()

    async def live() -> None:
        client = AnnotatorClient(hub, WallClock(time.monotonic()), heartbeat, group=(2, 3))
        running = asyncio.create_task(client.run())
        first = await client.draw(1)
        (second,) = client.draw_now(1, 1)
        assert hub.renew([first, second], [5, 5]) == [True, True], "1 of group 2 of 3"
        assert client.pass_on(first, 1, 4)
        assert await client.answer(first, 4, 1) and await client.answer(second, 1, 1)
        assert hub.undo(14) == [first] and hub.undo(5) == [second]
        hub.stop()
        await running

    asyncio.run(live())


def test_what_is_there_at_once_leaves_the_others_of_a_process_their_turns() -> None:
    clock, turns = WallClock(time.monotonic()), []

    def attempt(name: str) -> str | Pending:
        return name

    async def role(name: str) -> None:
        for _ in range(3):
            turns.append(await clock.until(attempt, name))

    async def process() -> None:
        await asyncio.gather(role("a"), role("b"))

    asyncio.run(process())
    assert turns == ["a", "b"] * 3
