"""The bench of the engine ray: what it measures is the hub's actor as the engine starts it."""

from collections.abc import Iterator

import pytest

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

import ray

from bench import ray as bench
from bench import ray_many

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with bench.local(ray):
        yield


def test_ids_calls_and_draws_go_through_the_hubs_actor(cluster: None) -> None:
    assert bench.actor_ids_per_s(1.0) > 0
    assert bench.calls_per_s(0.5) > 0
    assert len(bench.actor_draws(8, 1.0)) > 8


def test_what_a_user_would_write_instead_is_ray_s_own_queue(cluster: None) -> None:
    assert bench.queue_ids_per_s(0.5) > 0
    assert len(bench.queue_gets(8, 1.0)) > 8


def test_a_run_of_many_is_made_on_both_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_many, "LABEL_S", 0.5)
    labels, waits = ray_many.rows(2, 10)
    assert labels.ours[0] > 0 and labels.limit and labels.limit[0] > 0
    assert all(0 <= value <= 100 for value in (*waits.ours, *(waits.limit or ())))
