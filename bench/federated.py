"""How long a federation's server takes to average the weights of its clients."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from aal.training.aggregation import State, weighted_mean
from bench.harness import Source, network_of
from bench.rows import Options, Row, alternate

CASES = (("resnet8", 10), ("resnet8", 100), ("resnet18", 10))  # network, clients
REPEATS = 5  # of a measurement, the fastest of which counts


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the milliseconds of an aggregation, of a bare mean of all tensors at once, and of sums in float32."""
    torch.set_num_threads(options.threads)
    for name, clients in CASES[:1] if options.quick else CASES:
        states = [network_of(name, 1.0, seed=seed).state_dict() for seed in range(clients)]
        averages = {"ours": _ours, "instead": _mean_of_all, "limit": _sums}
        found = alternate(
            options.rounds, {key: partial(_fastest, average, states) for key, average in averages.items()}
        )
        yield Row(f"federated/aggregate/{name}/{clients}", "ms", **found)
    options.note("federated/aggregate")


def _fastest(average: Callable[[Sequence[State]], object], states: Sequence[State]) -> float:
    times = []
    for _ in range(REPEATS):
        began_at = time.perf_counter()
        average(states)
        times.append(1e3 * (time.perf_counter() - began_at))
    return min(times)


def _ours(states: Sequence[State]) -> State:
    return weighted_mean((state, 1.0 + number) for number, state in enumerate(states))


def _mean_of_all(states: Sequence[State]) -> State:
    return {name: torch.stack([state[name] for state in states]).float().mean(0) for name in states[0]}


def _sums(states: Sequence[State]) -> State:
    sums = {name: value.to(torch.float32, copy=True) for name, value in states[0].items()}
    for state in states[1:]:
        torch._foreach_add_(list(sums.values()), [value.float() for value in state.values()])
    torch._foreach_div_(list(sums.values()), len(states))
    return sums
