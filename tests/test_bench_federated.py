"""The bench of aggregations: what is compared computes the same."""

import pytest
import torch

from bench import federated
from bench.harness import network_of
from bench.rows import Options


@pytest.mark.unit
def test_an_aggregation_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federated, "CASES", (("cnn", 3),))
    options = Options(quick=True)
    (row,) = federated.aggregations(options)
    assert row.name == "federated/aggregate/cnn/3" and row.unit == "ms"
    assert row.instead and row.limit and min(*row.ours, *row.instead, *row.limit) > 0
    assert len(options.notes) == 1


@pytest.mark.unit
def test_what_it_is_compared_with_is_a_mean_too() -> None:
    states = [network_of("cnn", 0.25, seed=seed).state_dict() for seed in range(3)]
    means = [federated._mean_of_all(states), federated._sums(states)]
    for name, value in states[0].items():
        torch.testing.assert_close(means[0][name], means[1][name])
        wanted = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(means[0][name].double(), wanted, rtol=1e-5, atol=1e-6)
        assert torch.equal(value, network_of("cnn", 0.25, seed=0).state_dict()[name])
