"""Selection just in time on the virtual clock against another simulation, written from its description alone."""

import heapq
import itertools
import math
import pathlib

import numpy as np
import pytest

from tests.builders import query
from tests.test_queueing import depth_of, fixed, waits_of
from tests.test_simulated import simulate

pytestmark = pytest.mark.unit


def smoothed(seconds: list[float]) -> tuple[float, float]:
    """Mean and mean deviation as RFC 6298 has them."""
    mean, deviation = seconds[0], seconds[0] / 2
    for second in seconds[1:]:
        mean, deviation = 7 / 8 * mean + second / 8, 3 / 4 * deviation + abs(mean - second) / 4
    return mean, deviation


class Shop:
    """Annotators, workers and one server whose times are fixed; no query is withdrawn, S has no bound.

    Attributes:
        waits: (since when, how long) of each draw.
        depth: (when, queries in S from then on).
        batches: (when it was granted, its size) of each selection.
    """

    def __init__(self, annotators: int, label_s: float, workers: int, selection_s: float, training_s: float) -> None:
        self.label_s, self.selection_s, self.training_s = label_s, selection_s, training_s
        self.now, self.events, self.ties = 0.0, [(0.0, -1, "asks", number) for number in range(annotators)], 0
        self.asking: list[tuple[float, int]] = []
        self.free, self.selecting = list(range(workers)), dict[int, tuple[float, int]]()
        self.training: tuple[float, int] | None = None
        self.queries = self.labels = self.offered = self.trained_on = self.models = 0
        self.waits, self.depth, self.batches = list[tuple[float, float]](), [(0.0, 0)], list[tuple[float, int]]()
        # what is measured
        self.draws, self.served_s, self.noted_at = list[tuple[float, int]](), 0.0, 0.0
        self.window, self.starved, self.missed, self.deviations = max(20, 4 * annotators), 0, False, 2.33
        self.selections, self.per_label = list[float](), list[float]()
        self.due_since: float | None = None

    def later(self, seconds: float, kind: str, who: int) -> None:
        self.ties += 1
        heapq.heappush(self.events, (self.now + seconds, self.ties, kind, who))

    def rate(self) -> float | None:
        """Draws a second while nobody waits, over the last draws."""
        served_s = self.served_s + (0.0 if self.starved else self.now - self.noted_at)
        numbers = list(itertools.accumulate(number for _, number in reversed(self.draws)))
        kept = 1 + sum(number < self.window for number in numbers)
        recent = self.draws[-kept:]
        drawn = sum(number for _, number in recent[1:])
        return drawn / (served_s - recent[0][0]) if drawn and served_s > recent[0][0] else None

    def mark(self) -> tuple[int, float]:
        """The queries at which a selection is due, and what is drawn during one on average."""
        rate = self.rate()
        if rate is None:
            return 0, 0.0
        if not self.selections:
            demand = rate * (self.now - min((at for at, _ in self.selecting.values()), default=self.now))
            return math.ceil(demand), demand
        seconds, deviation = smoothed(self.selections)
        demand = rate * seconds
        return math.ceil(demand + self.deviations * math.sqrt(demand + (rate * deviation) ** 2)), demand

    def late_after(self) -> float:
        """The seconds after which a worker that selects is not counted on any more."""
        mean, deviation = smoothed(self.selections) if self.selections else (math.inf, 0.0)
        return mean + max(mean / 10, 4 * deviation)

    def let_select(self, query_batch: int, budget: int) -> None:
        """Starts the selections that are due."""
        while self.models and self.free:
            mark, demand = self.mark()
            late_at = [(since + self.late_after(), size) for since, size in self.selecting.values()]
            underway = sum(size for at, size in late_at if self.now < at)
            stock, left = self.queries + underway, budget - self.offered - underway
            if stock > mark or left <= 0:
                for at, _ in late_at:
                    if self.now < at < math.inf:
                        self.later(at - self.now, "is late", 0)
                return
            wanted = mark + query_batch
            rate = self.rate()
            if rate is not None and self.per_label and self.training:
                since, labels = self.training
                remaining = abs(smoothed(self.per_label)[0] * labels - (self.now - since))
                wanted = mark + math.ceil(demand + rate * remaining)
            size = min(query_batch, left, max(1, wanted - stock))
            worker = self.free.pop(0)
            self.selecting[worker] = (self.now if self.due_since is None else self.due_since, size)
            self.due_since = None
            self.batches.append((self.now, size))
            self.later(self.selection_s, "selected", worker)

    def let_draw(self, query_batch: int, budget: int, workers: int) -> None:
        """Gives queries to those who ask; before the first selection, as many as they ask for."""
        if not self.selections:
            chosen_at_random = max(0, min(len(self.asking) - self.queries, budget - self.offered))
            self.queries, self.offered = self.queries + chosen_at_random, self.offered + chosen_at_random
        served, self.asking = self.asking[: self.queries], self.asking[self.queries :]
        self.queries -= len(served)
        for since, annotator in served:
            self.waits.append((since, self.now - since))
            self.later(self.label_s, "answers", annotator)
        self.depth.append((self.now, self.queries))
        self.served_s += 0.0 if self.starved else self.now - self.noted_at
        self.noted_at = self.now
        if served:
            self.draws.append((self.served_s, len(served)))
        underway = sum(size for _, size in self.selecting.values())
        if len(self.asking) > self.starved and len(self.selecting) < workers and self.offered < budget:
            self.missed = True
        self.starved = len(self.asking)
        if not self.selections or self.queries + underway > self.mark()[0]:
            self.due_since = None
        elif self.due_since is None:
            self.due_since = self.now

    def run(self, query_batch: int, budget: int, threshold: int, initial: int) -> None:
        workers = len(self.free)
        while True:
            growth = self.labels - self.trained_on
            due = growth >= threshold or (growth > 0 and self.labels == budget)
            if self.training is None and (due if self.models else True):
                self.training, self.trained_on = (self.now, initial + self.labels), self.labels
                self.later(self.training_s, "trained", 0)
            self.let_select(query_batch, budget)
            if self.asking:
                self.let_draw(query_batch, budget, workers)
                self.let_select(query_batch, budget)
            if not self.events:
                return
            self.now = self.events[0][0]
            while self.events and self.events[0][0] < self.now + 1e-9:
                _, _, kind, who = heapq.heappop(self.events)
                if kind == "trained":
                    assert self.training is not None
                    self.per_label.append((self.now - self.training[0]) / self.training[1])
                    self.training, self.models = None, self.models + 1
                elif kind == "selected":
                    since, size = self.selecting.pop(who)
                    self.selections.append(self.now - since)
                    self.deviations = max(0.0, self.deviations + (0.99 if self.missed else -0.01))
                    self.missed, self.offered, self.queries = False, self.offered + size, self.queries + size
                    self.free.append(who)
                    self.depth.append((self.now, self.queries))
                elif kind != "is late":
                    self.labels += kind == "answers"
                    if self.labels < budget:
                        self.asking.append((self.now, who))


@pytest.mark.parametrize(
    ("annotators", "label_s", "selection_s", "training_s"),
    [(7, 1.137, 2.3171, 9.713), (7, 1.137, 0.3171, 61.31), (1, 0.113, 0.5317, 4.917), (23, 0.731, 1.1171, 31.71)],
)
def test_waits_depth_and_batches_are_those_of_another_simulation(
    tmp_path: pathlib.Path, annotators: int, label_s: float, selection_s: float, training_s: float
) -> None:
    size = {"worker_num": 3, "worker_query_num": 40, "query_batch": 10, "server_train_threshold": 60, "server_num": 1}
    rule = {"max_staleness": "auto", "withdraw_stale": False}
    run = simulate(tmp_path / "run", 1500, **size, **rule, **fixed(annotators, label_s, selection_s, training_s))
    shop = Shop(annotators, label_s, 3, selection_s, training_s)
    shop.run(query_batch=10, budget=1200, threshold=60, initial=4)
    assert waits_of(run) == pytest.approx([wait for _, wait in sorted(shop.waits)], abs=1e-6)
    grants = query(run, "SELECT granted_at, items FROM grants ORDER BY granted_at")
    assert np.array(grants) == pytest.approx(np.array(shop.batches), abs=1e-6)
    at, depth = depth_of(run)
    moments = np.linspace(0.5, at[-1], 2000)
    other_at, other = np.array(shop.depth, float).T
    held = depth[np.searchsorted(at, moments, "right") - 1]
    expected = other[np.searchsorted(other_at, moments, "right") - 1]
    assert np.mean(np.abs(held - expected) > 0.5) < 0.01, "but for moments of a change"
