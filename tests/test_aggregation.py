"""Averages of weights: against plain arithmetic in float64, whatever the number, order and weights of the clients."""

import weakref
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aal.app.models import build_model
from aal.training.aggregation import (
    Arrived,
    State,
    buffered,
    is_statistic,
    mixed,
    staleness_weight,
    state_problem,
    statistics_of,
    weighted_mean,
    with_statistics_of,
)

pytestmark = pytest.mark.unit
WEIGHTS = st.lists(st.integers(1, 5000), min_size=1, max_size=6)


def state(seed: int) -> dict[str, torch.Tensor]:
    """A state with what networks have: kernels, statistics, a counter, a type of low precision."""
    random = np.random.RandomState(seed)
    return {
        "kernel": torch.from_numpy(random.randn(3, 2).astype(np.float32)),
        "norm.running_mean": torch.from_numpy(random.randn(4).astype(np.float32)),
        "norm.running_var": torch.from_numpy(random.rand(4).astype(np.float32)),
        "norm.num_batches_tracked": torch.tensor(int(random.randint(1, 1000))),
        "half": torch.from_numpy(random.randn(2).astype(np.float32)).to(torch.bfloat16),
    }


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) and value.dtype == other[name].dtype for name, value in one.items()
    )


def exact_mean(states: Sequence[State], weights: Sequence[int], name: str) -> np.ndarray:
    """The mean in fractions, rounded once, number by number."""
    columns = [value[name].to(torch.float64).flatten().tolist() for value in states]
    found = [
        float(sum(Fraction(number) * weight for number, weight in zip(numbers, weights, strict=True)) / sum(weights))
        for numbers in zip(*columns, strict=True)
    ]
    return np.array(found).reshape(states[0][name].shape)


@settings(max_examples=60)
@given(weights=WEIGHTS, seed=st.integers(0, 10**6))
def test_the_mean_is_that_of_fractions(weights: list[int], seed: int) -> None:
    states = [state(seed + number) for number in range(len(weights))]
    before = [{name: value.clone() for name, value in one.items()} for one in states]
    found = weighted_mean(zip(states, map(float, weights), strict=True))
    for name in ("kernel", "norm.running_mean", "norm.running_var"):
        assert found[name].dtype == torch.float32
        np.testing.assert_allclose(found[name].numpy(), exact_mean(states, weights, name), rtol=1e-7, atol=1e-30)
    assert found["half"].dtype == torch.bfloat16
    np.testing.assert_allclose(found["half"].float().numpy(), exact_mean(states, weights, "half"), rtol=2**-8)
    assert found["norm.num_batches_tracked"] == max(int(one["norm.num_batches_tracked"]) for one in states)
    assert all(same(one, other) for one, other in zip(states, before, strict=True))


@settings(max_examples=40)
@given(weights=WEIGHTS, seed=st.integers(0, 10**6), data=st.data())
def test_neither_the_order_nor_the_scale_of_the_weights_matters(
    weights: list[int], seed: int, data: st.DataObject
) -> None:
    pairs = [(state(seed + number), float(weight)) for number, weight in enumerate(weights)]
    found = weighted_mean(pairs)
    others = weighted_mean(data.draw(st.permutations(pairs)))
    shares = weighted_mean((one, weight / sum(weights)) for one, weight in pairs)
    for other in (others, shares):
        for name, value in found.items():
            torch.testing.assert_close(other[name], value, rtol=0 if value.dtype == torch.int64 else 2**-7, atol=1e-7)


@settings(max_examples=40)
@given(weight=st.floats(1e-6, 1e9), copies=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_one_client_or_equal_ones_give_their_very_weights(weight: float, copies: int, seed: int) -> None:
    one = state(seed)
    assert same(weighted_mean([(one, weight)] * copies), one)


def test_a_client_may_go_on_with_its_own_statistics() -> None:
    mean, own = weighted_mean([(state(1), 1.0), (state(2), 3.0)]), state(2)
    found = with_statistics_of(mean, statistics_of(own))
    assert list(found) == list(mean)
    for name, value in found.items():
        assert torch.equal(value, own[name] if is_statistic(name) else mean[name]), name


def test_the_statistics_of_a_real_network_are_known_by_their_names() -> None:
    network = build_model("resnet18", classes=3, channels=1, image_size=8, width=0.1, seed=0)
    parameters = {name for name, _ in network.named_parameters()}
    assert {name for name in network.state_dict() if not is_statistic(name)} == parameters


def test_a_state_is_let_go_of_before_the_next_one_is_asked_for() -> None:
    known: list[weakref.ref[torch.Tensor]] = []

    def load(number: int) -> State:
        assert not [reference for reference in known if reference() is not None]
        kernel = torch.full((10,), float(number))
        known.append(weakref.ref(kernel))
        return {"kernel": kernel}

    assert torch.equal(weighted_mean((load(number), 1.0) for number in range(5))["kernel"], torch.full((10,), 2.0))
    start = {"kernel": torch.zeros(10)}
    stepped = buffered(start, (Arrived(load(number), start, 1.0, 0) for number in range(5)))
    assert torch.equal(stepped["kernel"], torch.full((10,), 2.0)) and len(known) == 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"kernel": None}, "kernel is missing"),
        ({"kernel": None, "half": None}, "half is missing, and 1 more"),
        ({"other": torch.zeros(1)}, "other is not of this network"),
        ({"kernel": torch.zeros(2, 3)}, r"kernel has shape (2, 3), not (3, 2)"),
        ({"kernel": torch.zeros(3, 2, dtype=torch.float64)}, "kernel is float64, not float32"),
        ({"kernel": torch.full((3, 2), torch.nan)}, "kernel has numbers that are not finite"),
        ({"norm.running_var": torch.tensor([1.0, torch.inf, -torch.inf, 0])}, "norm.running_var has numbers that"),
        ({"kernel": torch.full((3, 2), 3e38)}, None),  # whose sum is not finite
    ],
)
def test_what_cannot_be_averaged_is_named(change: dict[str, torch.Tensor | None], reason: str | None) -> None:
    changed = {name: value for name, value in {**state(0), **change}.items() if value is not None}
    found = state_problem(changed, state(1))
    assert found == reason if reason is None else found is not None and found.startswith(reason) and "\n" not in found


# ---------------------------------------------------------------------- without rounds


def test_staleness_weights_are_the_published_ones() -> None:
    assert staleness_weight(0) == 1.0
    assert staleness_weight(3) == pytest.approx(1 / 2)  # 1 / sqrt(1 + staleness), as FedBuff has it
    assert staleness_weight(1, exponent=2) == pytest.approx(1 / 4)
    assert staleness_weight(50, exponent=0) == 1.0


@settings(max_examples=30)
@given(share=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_a_single_client_is_mixed_in_by_its_share(share: float, seed: int) -> None:
    current, arrived = state(seed), state(seed + 1)
    found = mixed(current, arrived, share)
    wanted = (1 - share) * current["kernel"].double() + share * arrived["kernel"].double()
    np.testing.assert_allclose(found["kernel"].numpy(), wanted.float().numpy(), rtol=1e-6, atol=1e-7)
    assert share != 0 or torch.equal(found["kernel"], current["kernel"])
    assert share != 1 or torch.equal(found["kernel"], arrived["kernel"])


@settings(max_examples=30)
@given(
    ages=st.lists(st.integers(0, 20), min_size=1, max_size=5),
    rate=st.floats(0.1, 1.5),
    seed=st.integers(0, 10**6),
)
def test_a_buffer_makes_the_published_step(ages: list[int], rate: float, seed: int) -> None:
    current = state(seed)
    buffer = [Arrived(state(seed + 2 * n + 1), state(seed + 2 * n + 2), 10.0 + n, age) for n, age in enumerate(ages)]
    found = buffered(current, iter(buffer), learning_rate=rate)
    total = sum(one.weight for one in buffer)
    step = sum(
        one.weight / (one.staleness + 1) ** 0.5 * (one.state["kernel"].double() - one.start["kernel"].double())
        for one in buffer
    )
    wanted = current["kernel"].double() + rate * step / total
    np.testing.assert_allclose(found["kernel"].double().numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)
    assert list(found) == list(current) and (found["norm.running_var"] >= 0).all()
    assert {name: value.dtype for name, value in found.items()} == {name: v.dtype for name, v in current.items()}


def test_a_buffer_of_one_fresh_client_gives_its_weights() -> None:
    current, trained = state(0), state(1)
    found = buffered(current, [Arrived(trained, current, 7.0, 0)])
    for name, value in trained.items():
        if value.dtype != torch.int64:
            torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-8)
    old = buffered(current, [Arrived(trained, current, 7.0, 99)])
    torch.testing.assert_close(old["norm.running_mean"], mixed(current, trained, 0.1)["norm.running_mean"])
    torch.testing.assert_close(old["kernel"], mixed(current, trained, 0.1)["kernel"])
