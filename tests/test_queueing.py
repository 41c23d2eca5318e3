"""Waits and the depth of S on the virtual clock, against plain calculations and another simulation.

Times are fixed, and odd numbers, so that nothing happens at the same moment by chance.
"""

import heapq
import itertools
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.builders import query
from tests.test_simulated import FREE, simulate

pytestmark = pytest.mark.unit


def fixed(annotators: int, label_s: float, selection_s: float, training_s: float = 0.0) -> dict[str, Any]:
    """Settings of a run whose times do not vary."""
    return {
        "costs": {**FREE, "per_selection": selection_s, "per_model_published": training_s},
        "annotators": {"number": annotators, "seconds_per_label": label_s, "relative_std": 0.0},
    }


def waits_of(run: pathlib.Path) -> np.ndarray:
    """The waits (n,) in the order of asking."""
    return np.array(query(run, "SELECT got_at - asked_at FROM waits ORDER BY asked_at, got_at"))[:, 0]


def depth_of(run: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """When S grew or shrank (n,), and how many queries were in it from then on (n,)."""
    changes = query(
        run,
        """SELECT at, sum(change) FROM (SELECT offered_at AS at, 1 AS change FROM offers
        UNION ALL SELECT withdrawn_at, -1 FROM withdrawals UNION ALL SELECT got_at, -1 FROM waits)
        GROUP BY at ORDER BY at""",
    )
    at, change = np.array(changes, float).T
    return at, change.cumsum()


def mean_depth(run: pathlib.Path, start: float, end: float) -> float:
    """The depth of S, averaged over the time between."""
    at, depth = depth_of(run)
    edges = np.concatenate([[start], at[(at > start) & (at < end)], [end]])
    held = depth[np.searchsorted(at, edges[:-1], "right") - 1]
    return float((held * np.diff(edges)).sum() / (end - start))


# ---------------------------------------------------------------------- plain calculations

ONE_WORKER = {"worker_num": 1, "server_train_threshold": 2000, "max_staleness": None}


def test_where_selections_are_too_slow_every_draw_waits_for_its_share_of_them(tmp_path: pathlib.Path) -> None:
    """A batch of q every T seconds for N annotators: each gets one every N T / q seconds, and labels for s of them."""
    size = {"worker_query_num": 200, "query_batch": 10}
    run = simulate(tmp_path / "run", 2500, **ONE_WORKER, **size, **fixed(40, 3.1, 2.3))
    waits = waits_of(run)
    assert waits[len(waits) // 2 : -100].mean() == pytest.approx(40 * 2.3 / 10 - 3.1, rel=0.01)


def test_where_nobody_waits_s_is_as_full_as_its_bound_lets_it_be(tmp_path: pathlib.Path) -> None:
    """One draw every s seconds; a selection begins when q have room, and during it T / s are drawn."""
    size = {"worker_query_num": 100, "query_batch": 20, "query_pool_size": 100}
    run = simulate(tmp_path / "run", 2500, **ONE_WORKER, **size, **fixed(1, 0.1, 0.53))
    assert waits_of(run)[1:].max() < 1e-9
    assert mean_depth(run, 50.0, 150.0) == pytest.approx(100 - 0.53 / 0.1 - 20 / 2, abs=1.0)


def test_just_in_time_s_swings_between_what_is_drawn_during_a_selection_and_a_batch_more(
    tmp_path: pathlib.Path,
) -> None:
    size = {"worker_query_num": 100, "query_batch": 20, "worker_num": 1, "server_train_threshold": 2000}
    run = simulate(tmp_path / "run", 2500, **size, max_staleness="auto", **fixed(1, 0.1, 0.53))
    assert waits_of(run).max() < 1e-9, "nobody ever waits, from the first second"
    grants = np.array(query(run, "SELECT granted_at, waiting, mark, items FROM grants WHERE granted_at > 50"), float).T
    assert (grants[1] == grants[2]).all(), "each selection begins at the mark"
    # One annotator draws in step, so that no safety is needed, and it shrinks.
    drawn = 0.53 / 0.1
    assert (grants[2] > drawn).all() and grants[2][0] > grants[2][-1]
    start, end = 50.0, 150.0
    within = (grants[0] > start) & (grants[0] < end)
    expected = grants[2][within].mean() - drawn + 20 / 2
    assert mean_depth(run, start, end) == pytest.approx(expected, abs=1.0)


# ---------------------------------------------------------------------- an event simulation of its own


def event_simulation(
    *,
    annotators: int,
    label_s: float,
    workers: int,
    selection_s: float,
    batch: int,
    batches: int,
    servers: int,
    training_s: float,
    threshold: int,
    bound: int | None,
    initial: int,
) -> tuple[list[float], list[tuple[float, int]]]:
    """Returns the waits in the order of asking, and when S changed with its depth then; S has no bound."""
    events: list[tuple[float, int, str, int]] = []
    ties = itertools.count()
    offered = [0] * workers
    selecting: set[int] = set()
    training: dict[int, int] = {}
    asking = [(0.0, number) for number in range(annotators)]
    waits: list[tuple[float, float]] = []
    depth: list[tuple[float, int]] = []
    in_pool = trained_on = issued = models = 0
    labels = initial
    round_size, now = workers * batch, 0.0

    def later(seconds: float, kind: str, who: int) -> None:
        heapq.heappush(events, (now + seconds, next(ties), kind, who))

    while True:
        all_bought = labels - initial == workers * batches * batch
        for server in range(servers):
            growth = labels - trained_on
            if server not in training and (issued == 0 or growth >= threshold or (all_bought and growth > 0)):
                training[server], trained_on, issued = labels, labels, issued + 1
                later(training_s, "trained", server)
        for worker in range(workers):
            ahead = offered[worker] * round_size // threshold - (models - 1)
            if worker in selecting or offered[worker] == batches or not models or (bound is not None and ahead > bound):
                continue
            selecting.add(worker)
            later(selection_s, "selected", worker)
        while asking and in_pool:
            asked_at, annotator = asking.pop(0)
            waits.append((asked_at, now - asked_at))
            in_pool -= 1
            depth.append((now, in_pool))
            later(label_s, "labelled", annotator)
        if not events:
            return [wait for _, wait in sorted(waits)], depth
        now = events[0][0]
        while events and events[0][0] < now + 1e-9:  # annotators who keep step answer in one call
            _, _, kind, who = heapq.heappop(events)
            if kind == "trained":
                del training[who]
                models += 1
            elif kind == "selected":
                selecting.remove(who)
                offered[who] += 1
                in_pool += batch
                depth.append((now, in_pool))
            else:
                labels += 1
                asking.append((now, who))


@pytest.mark.parametrize("bound", [0, 1, 3, None])
@pytest.mark.parametrize(
    ("servers", "training_s", "annotators", "label_s"),
    [(1, 9.713, 7, 1.137), (2, 31.71, 7, 1.137), (3, 61.31, 23, 0.731), (1, 0.0, 40, 0.217)],
)
def test_waits_and_depth_are_those_of_another_simulation(
    tmp_path: pathlib.Path, bound: int | None, servers: int, training_s: float, annotators: int, label_s: float
) -> None:
    size = {"worker_num": 3, "worker_query_num": 12, "query_batch": 10, "server_train_threshold": 30}
    times = fixed(annotators, label_s, 2.3171, training_s)
    run = simulate(
        tmp_path / "run", 600, **size, server_num=servers, max_staleness=bound, query_pool_size=10_000, **times
    )
    people: dict[str, Any] = {"annotators": annotators, "label_s": label_s, "initial": 4}
    selecting: dict[str, Any] = {"workers": 3, "selection_s": 2.3171, "batch": 10, "batches": 12}
    training: dict[str, Any] = {"servers": servers, "training_s": training_s, "threshold": 30, "bound": bound}
    waits, changes = event_simulation(**people, **selecting, **training)
    found = waits_of(run)
    assert found.size == len(waits) == 360
    assert found == pytest.approx(np.array(waits), abs=1e-6)
    at, depth = depth_of(run)
    moments = np.linspace(0.5, at[-1], 500)
    other_at, other = np.array(changes, float).T
    expected = other[np.searchsorted(other_at, moments, "right") - 1] * (moments >= other_at[0])
    held = depth[np.searchsorted(at, moments, "right") - 1] * (moments >= at[0])
    assert np.mean(np.abs(held - expected) > 0.5) < 0.01, "but for moments of a change"


# ---------------------------------------------------------------------- nobody waits


@pytest.mark.parametrize("training_s", [2.0, 20.0, 200.0])
@pytest.mark.parametrize("relative_std", [0.0, 0.3, 1.0])
def test_whatever_trainings_take_nobody_waits_just_in_time(
    tmp_path: pathlib.Path, training_s: float, relative_std: float
) -> None:
    size = {"worker_num": 4, "worker_query_num": 25, "query_batch": 10, "server_train_threshold": 50, "server_num": 2}
    setting = fixed(8, 0.5, 0.4, training_s)
    setting["annotators"] |= {"relative_std": relative_std}
    setting["costs"] |= {"relative_std": relative_std}
    run = simulate(tmp_path / "run", 2000, **size, max_staleness="auto", **setting)
    waits = waits_of(run)
    assert waits.sum() < 0.01 * (waits.sum() + 1000 * 0.5)
    assert query(run, "SELECT count(*), count(label) FROM queries") == [(1000, 1000)]
