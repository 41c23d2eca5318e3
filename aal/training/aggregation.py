"""Averages of the weights of clients, as a federation's server computes them; it sees no image and no label.

States are added one at a time, so that whatever the number of clients, one state is held beside the sum, which is in
float64: twice the memory of a state in float32. Floats are averaged. Whole numbers, such as the batches that a batch
norm has counted, have no mean that is one: the largest is taken.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = Mapping[str, Tensor]  # the state dict of a network

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # buffers of batch norms


def is_statistic(name: str) -> bool:
    """Whether a tensor of a state dict is a running statistic of a batch norm."""
    return name.rpartition(".")[2] in STATISTICS


def state_problem(state: State, expected: State) -> str | None:
    """Returns why a client's weights cannot be averaged, in one line; None where they can.

    Args:
        state: of the client.
        expected: a state of the same network, whose names, shapes and types count.
    """
    if missing := sorted(expected.keys() - state.keys()):
        return f"{missing[0]} is missing{_and_more(missing)}"
    if unknown := sorted(state.keys() - expected.keys()):
        return f"{unknown[0]} is not of this network{_and_more(unknown)}"
    for name, like in expected.items():
        value = state[name]
        if value.shape != like.shape:
            return f"{name} has shape {tuple(value.shape)}, not {tuple(like.shape)}"
        if value.dtype != like.dtype:
            return f"{name} is {_plain(value.dtype)}, not {_plain(like.dtype)}"
        # A sum that is finite is ten times as fast to have; one of finite numbers may overflow.
        if not (torch.isfinite(value.sum()) or torch.isfinite(value).all()):
            return f"{name} has numbers that are not finite"
    return None


def _and_more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class StateSum:
    """A weighted sum of the states of one network, to which one is added at a time."""

    def __init__(self) -> None:
        self._types: dict[str, torch.dtype] = {}  # of all that was added, in its order
        self._floats: dict[str, Tensor] = {}
        self._whole: dict[str, Tensor] = {}

    def add(self, state: State, coefficient: float, only: Callable[[str], bool] = lambda name: True) -> None:
        """Adds a state.

        Args:
            state: that stays as it is.
            coefficient: that its floats are multiplied by; whole numbers are not.
            only: which of the tensors, by name.
        """
        chosen = {name: value for name, value in state.items() if only(name)}
        if not self._types:
            self._types = {name: value.dtype for name, value in chosen.items()}
            self._floats = {name: torch.zeros_like(chosen[name], dtype=torch.float64) for name in _floats_of(chosen)}
            self._whole = {name: chosen[name].clone() for name in chosen.keys() - self._floats.keys()}
        if self._floats:  # one call for all: small networks have as much work in the calls as in the numbers
            torch._foreach_add_(list(self._floats.values()), [chosen[name] for name in self._floats], alpha=coefficient)
        for name, largest in self._whole.items():
            torch.maximum(largest, chosen[name], out=largest)

    def divided(self, divisor: float = 1.0) -> dict[str, Tensor]:
        """Returns the sum, divided, in the types of the states; nothing may be added after it."""
        if self._floats:
            torch._foreach_div_(list(self._floats.values()), divisor)
        found = self._floats | self._whole
        return {name: found[name].to(dtype) for name, dtype in self._types.items()}


def _floats_of(state: State) -> list[str]:
    return [name for name, value in state.items() if value.is_floating_point()]


def weighted_mean(states: Iterable[tuple[State, float]]) -> dict[str, Tensor]:
    """Returns sum_i w_i state_i / sum_i w_i (FedAvg: McMahan et al., 2017; KAFAL, equation 7, w_i its labels).

    The statistics of batch norms are averaged as well, as published. Where clients go on with their own
    (`with_statistics_of`), their average is for scoring images with the global model alone.

    Args:
        states: with their weights > 0, at least one; each is let go of before the next one is asked for.
    """
    total, sums = 0.0, StateSum()
    for state, weight in states:
        total += weight
        sums.add(state, weight)
        del state  # before the next one is loaded
    return sums.divided(total)


def statistics_of(state: State) -> dict[str, Tensor]:
    """Returns the running statistics of the batch norms of a state."""
    return {name: value for name, value in state.items() if is_statistic(name)}


def with_statistics_of(state: State, own: State) -> dict[str, Tensor]:
    """Returns a state with the batch norms' statistics of another one, for a client that keeps its own.

    Its images then decide how its numbers are normalised, and the average of the others what is learnt from them (as
    SiloBN: Andreux et al., 2020).
    """
    return {name: own[name] if is_statistic(name) else value for name, value in state.items()}


# ---------------------------------------------------------------------- without rounds


def staleness_weight(staleness: int, exponent: float = 0.5) -> float:
    """Returns (staleness + 1)^-exponent, which 1 over the root is for 0.5 (FedAsync: Xie et al., 2019, section 5.2).

    Args:
        staleness: versions of the server's state that were published since the client took the one it began with.
        exponent: 0 counts old states like new ones.
    """
    return math.pow(staleness + 1, -exponent)


def mixed(current: State, arrived: State, share: float) -> dict[str, Tensor]:
    """Returns (1 - share) current + share arrived: the step of FedAsync for a single client (algorithm 1).

    Args:
        current: the server's state.
        arrived: the client's.
        share: from 0 to 1; in the paper a constant times `staleness_weight`.
    """
    return weighted_mean([(current, 1 - share), (arrived, share)])


class Arrived(NamedTuple):
    """What a client sends to a server that waits for no round.

    Attributes:
        state: after the client's training.
        start: the server's state that the training began with.
        weight: of the client, such as its labels.
        staleness: versions that were published since `start`.
    """

    state: State
    start: State
    weight: float
    staleness: int


def buffered(
    current: State, arrived: Iterable[Arrived], *, exponent: float = 0.5, learning_rate: float = 1.0
) -> dict[str, Tensor]:
    """Returns the server's step for a buffer of clients (FedBuff: Nguyen et al., 2022, algorithm 1).

    current + learning_rate sum_i w_i s_i (state_i - start_i) / sum_i w_i, where s_i is the `staleness_weight`: a buffer
    of old states makes a small step. Statistics of batch norms take the share learning_rate sum_i w_i s_i / sum_i w_i,
    at most 1, of the way to the mean of the clients' own ones instead, for differences may make a variance negative.

    Args:
        current: the server's state.
        arrived: the buffer, at least one; each is let go of before the next one is asked for.
        exponent: of the staleness.
        learning_rate: of the server.
    """
    total = stepped = 0.0
    steps, statistics = StateSum(), StateSum()
    for one in arrived:
        scaled = one.weight * staleness_weight(one.staleness, exponent)
        total, stepped = total + one.weight, stepped + scaled
        steps.add(one.state, scaled, lambda name: not is_statistic(name))
        steps.add(one.start, -scaled, lambda name: not is_statistic(name))
        statistics.add(one.state, scaled, is_statistic)
        del one
    steps.add(current, total / learning_rate, lambda name: not is_statistic(name))
    moved = steps.divided(total / learning_rate)
    share = min(1.0, learning_rate * stepped / total)
    moved |= mixed(statistics_of(current), statistics.divided(stepped), share)
    return {name: moved[name] for name in current}
