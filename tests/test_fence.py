"""Fencing: what a process does that counts as dead, and only was slow, changes nothing."""

import pathlib
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aal.config.errors import Superseded
from aal.coordination.fence import Fence, Incarnations
from aal.coordination.hub import Hub
from aal.coordination.interfaces import AnnotatorHub, ServerHub, WorkerHub
from aal.coordination.messages import ModelRef, QueryBatch, SelectionGrant, TrainedModel, TrainingJob
from aal.engines.local.hub_process import HubManager
from tests.builders import imagined_plan, make_hub, make_settings

pytestmark = pytest.mark.unit


class Part:
    """The hub as one process of a slot calls it."""

    def __init__(self, fence: Fence, hub: Hub, slot: str, incarnation: int) -> None:
        fence.admit(slot, incarnation)
        self._call = lambda name, *args: fence.guarded(slot, incarnation, getattr(hub, name))(*args)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self._call(name, *args)


def trained(job: TrainingJob, path: str) -> TrainedModel:
    return TrainedModel(job.number, 0, "cnn", path, 1, 0.0, None, None)


def test_a_server_thought_dead_publishes_nothing_and_its_successors_model_is_taken() -> None:
    fence, (hub, _) = Fence(), make_hub(make_settings())
    former: ServerHub = Part(fence, hub, "server-0", 0)
    job = former.job(0)
    successor: ServerHub = Part(fence, hub, "server-0", 1)
    hub.release("server", 0)
    assert successor.job(0) == job and isinstance(job, TrainingJob)
    with pytest.raises(Superseded, match="server-0: another process has taken the place of this one"):
        former.publish(trained(job, "models/former.pt"))
    assert successor.publish(trained(job, "models/successor.pt")) == 0
    grant = hub.grant(0)
    assert isinstance(grant, SelectionGrant) and grant.models == (ModelRef(0, "models/successor.pt", 4),)


def test_a_worker_or_annotators_thought_dead_change_nothing() -> None:
    fence, (hub, _) = Fence(), make_hub(make_settings())
    job = hub.job(0)
    assert isinstance(job, TrainingJob)
    hub.publish(trained(job, "models/x.pt"))
    worker: WorkerHub = Part(fence, hub, "worker-0", 0)
    annotators: AnnotatorHub = Part(fence, hub, "annotators", 0)
    grant = worker.grant(0)
    assert isinstance(grant, SelectionGrant)
    batch = QueryBatch(0, grant.batch, worker.remaining(0)[:5].tolist(), "margin", (0,), 0.0)
    Part(fence, hub, "worker-0", 1)
    with pytest.raises(Superseded):
        worker.offer(batch)
    assert hub.status().waiting == 0
    hub.offer(batch)
    ids = annotators.draw([0, 1], [0.0, 0.0], 2)
    Part(fence, hub, "annotators", 1)
    with pytest.raises(Superseded):
        annotators.answer(ids, [0, 1], [0, 0])
    assert (hub.status().labels, hub.status().waiting) == (0, 3)


@given(st.lists(st.lists(st.sampled_from(["server-0", "worker-0"]), max_size=20), max_size=5))
def test_incarnations_rise_from_one_process_to_the_next_and_from_one_hub_to_the_next(hubs: list[list[str]]) -> None:
    last = {"server-0": -1, "worker-0": -1}
    for epoch, starts in enumerate(hubs):
        incarnations = Incarnations(epoch)
        for slot in starts:
            following = incarnations.next(slot)
            assert following == incarnations.newest(slot) > last[slot]
            last[slot] = following


def test_a_call_under_way_ends_before_the_successor_is_admitted() -> None:
    fence, begun, go_on, done = Fence(), threading.Event(), threading.Event(), list[str]()

    def call() -> None:
        begun.set()
        go_on.wait(30)
        done.append("the former")

    def admit() -> None:
        fence.admit("server-0", 1)
        done.append("admitted")

    threads = [threading.Thread(target=target) for target in (fence.guarded("server-0", 0, call), admit)]
    fence.admit("server-0", 0)
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    threads[1].join(0.2)
    assert not done
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert done == ["the former", "admitted"]


@pytest.mark.process
def test_the_hub_refuses_the_former_process_of_a_slot(tmp_path: pathlib.Path) -> None:
    with HubManager() as manager:
        hubs: Any = manager
        hubs.open(imagined_plan(tmp_path / "run"), 0.0)
        former, other = hubs.annotators("annotators", 0), hubs.worker("worker-0", 0)
        former.heartbeat("annotators")
        successor = hubs.annotators("annotators", 1)
        for call in (lambda: former.heartbeat("annotators"), lambda: former.answer([1], [0], [0])):
            with pytest.raises(Superseded):
                call()
        assert successor.draw([0], [0.0], 1) == []
        assert len(other.remaining(0))
