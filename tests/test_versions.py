"""Several versions of a model in a selection: the grant that holds them, committees, and networks drawn by dropout."""

import numpy as np
import pytest
import torch
from skactiveml.pool import vote_entropy
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.coordination.messages import ModelRef, SelectionGrant
from aal.strategies.pool import CandidatePool
from aal.strategies.strategy import build_strategy, passes_of, versions_of
from aal.training.consistent_dropout import sampled_network
from aal.training.cost import selection_cost
from tests.builders import make_hub, make_settings
from tests.test_hub import three_trainings
from tests.test_strategies import Fixed, labelled, rng

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]


def test_a_grant_holds_as_many_versions_as_are_asked_for_the_newest_first() -> None:
    hub, _ = make_hub(make_settings())
    three_trainings(hub)
    for asked, expected in ((1, [2]), (2, [2, 1]), (9, [2, 1, 0])):
        grant = hub.grant(0, asked)
        assert isinstance(grant, SelectionGrant)
        assert [model.version for model in grant.models] == expected and grant.version == 2


def test_versions_are_of_each_target() -> None:
    hub, _ = make_hub(make_settings(targets=["cnn", "resnet18"]))
    schedule, models = hub._schedule, [ModelRef(version, "", 0, target=version % 2) for version in range(5)]
    schedule._add_models(models)
    grant = SelectionGrant(0, 1, (models[3], models[4]))  # of a schedule that looks at version 4 for target 0
    found = schedule.with_earlier(grant, 2).models
    assert [(model.target, model.version) for model in found] == [(1, 3), (1, 1), (0, 4), (0, 2)]


def test_the_cost_counts_every_pass() -> None:
    grant = SelectionGrant(2, 10, (ModelRef(1, "", 0), ModelRef(0, "", 0)))
    committee, bald = build_strategy("committee", {"members": 7}), build_strategy("bald", {"passes": 3})
    assert (versions_of(committee), passes_of(committee)) == (7, 1) and (versions_of(bald), passes_of(bald)) == (1, 3)
    assert selection_cost(1, grant, "committee", 50).scored == 100
    assert selection_cost(1, grant, "bald", 50, passes=3).scored == 150, "of the first model"


def test_vote_entropy_is_that_of_scikit_activeml_on_the_probabilities_of_every_member() -> None:
    members = [rng(seed).dirichlet(np.ones(4), 300).astype(np.float32) for seed in range(5)]
    pool = CandidatePool(np.arange(300), [Fixed(member) for member in members], labelled)
    votes = np.stack([member.argmax(axis=1) for member in members], axis=1)
    expected = vote_entropy(votes, np.arange(4))
    chosen = build_strategy("committee", {}).select(pool, 40, rng())
    assert np.sort(expected[chosen]) == pytest.approx(np.sort(expected)[-40:])
    assert pool.votes().tolist() == votes.T.tolist()


@pytest.mark.parametrize("members", [1, 101, "two"])
def test_a_committee_has_at_least_two_members(members: object) -> None:
    with pytest.raises(UserError, match=r"query_strategy_options.members"):
        resolve(
            {"data_type": "digits", "models": "cnn", "assignment_type": "DA", "query_strategy": "committee"}
            | {"query_strategy_options": {"members": members}},
            "test",
        )


# ---------------------------------------------------------------------- networks drawn by dropout


class Net(nn.Module):
    """Dropout of channels, then of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.numbers = nn.Dropout2d(0.5), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.numbers(self.channels(images).flatten(1))


def test_a_drawn_network_drops_the_same_for_all_images_and_scales_the_rest() -> None:
    network, images = Net().eval(), torch.ones(4, 30, 2, 2)
    torch.manual_seed(0)
    with sampled_network(network):
        first, second = network(images), network(images[:1])
    assert torch.equal(first, first[:1].expand(4, -1)) and torch.equal(first[:1], second)
    assert set(first.unique().tolist()) == {0.0, 4.0}
    whole = first[0].view(30, 4).sum(dim=1)
    assert (whole == 0).sum() > 5, "channels are dropped as a whole"
    assert torch.equal(network(images), images.flatten(1)), "nothing is dropped any more"
    with sampled_network(network):
        assert not torch.equal(network(images), first)


def test_a_network_without_dropout_is_reported() -> None:
    for network in (nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.0))):
        with pytest.raises(UserError, match="Monte-Carlo passes need a network with dropout"), sampled_network(network):
            pass


def test_a_built_in_network_without_dropout_is_reported_before_the_run() -> None:
    tree = {"data_type": "cifar-10", "assignment_type": "DA", "query_strategy": "bald", "models": ["vgg16", "resnet18"]}
    with pytest.raises(UserError) as caught:
        resolve(tree, "test")
    (line,) = caught.value.problems
    assert "bald draws networks by dropout, and resnet18 has none; these have: vgg16" in line
    resolve({**tree, "models": ["vgg16", "mynets:build"]}, "test")
