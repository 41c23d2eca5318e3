"""The settings of a federated run, and what of them is wrong together with others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from aal.config.fields import Count, Group, Positive
from aal.config.registry import PARTITIONS

if TYPE_CHECKING:
    from aal.config.settings import Settings

PartitionName = Annotated[str, Field(max_length=200), BeforeValidator(PARTITIONS.canonical)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class AsynchronousSettings(Group):
    """How a server takes what arrives, without rounds."""

    buffer: Positive = Field(
        1, description="local models that a step of the server takes: 1 as in FedAsync, more as in FedBuff"
    )
    step: Annotated[float, Field(gt=0, le=2)] | None = Field(
        None, description="how far a step goes: null is 0.6 for a buffer of 1 (FedAsync), else 1 (FedBuff)"
    )
    staleness_exponent: Annotated[float, Field(ge=0, le=100)] = Field(
        0.5, description="a local model that is s versions old counts (s + 1) ^ -exponent"
    )


class FederatedSettings(Group):
    """How a federation trains; `worker_num` says how many clients there are, `query_batch` what one buys a cycle."""

    partition: PartitionName = Field(
        "dirichlet",
        description="which images are whose: dirichlet over the classes, labels: some classes each, quantity: shares "
        "of different size, iid: at random, or a function of one's own as package.module:function",
    )
    alpha: Annotated[float, Field(gt=0, le=10**6)] = Field(
        0.1, description="of dirichlet and quantity; the smaller, the more the clients differ"
    )
    classes_per_client: Positive = Field(2, description="of partition labels")
    rounds: Positive = Field(
        50, description="communication rounds a cycle; without rounds, versions after the last label"
    )
    fraction: Fraction = Field(1.0, description="share of the clients that take part in a round, rounded up")
    all_in_last_round: bool = Field(
        True, description="whether all clients take part in the last round of a cycle, as published"
    )
    chosen_by: Literal["local", "global", "both"] = Field(
        "local",
        description="which model a client's strategy chooses with: its own, the global one, or both as one; ksas and "
        "logo compare the two",
    )
    compensation: bool = Field(
        False,
        description="whether the last global model teaches what a client has few labels of (KCFU); "
        "trainer_options has what else clients minimise",
    )
    keep_optimizer: bool = Field(
        False, description="whether the optimiser of a client goes on from round to round of a cycle, as published"
    )
    share_statistics: bool = Field(
        True,
        description="whether clients take over the averaged statistics of batch norms, as published; false: each goes "
        "on with its own until the next cycle, and their average only scores images",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the local trainings whose client drops out before it has sent its weights"
    )
    test_every: Count = Field(
        0, description="versions from one that is scored on the test set to the next; 0: the last of each cycle alone"
    )
    asynchronous: AsynchronousSettings | None = Field(
        None, description="no rounds: the server takes local models as they arrive"
    )

    @property
    def step(self) -> float:
        """How far a step of the server goes, without rounds."""
        asynchronous = self.asynchronous or AsynchronousSettings()
        return asynchronous.step or (0.6 if asynchronous.buffer == 1 else 1.0)


def federated_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields settings that do not go with mode federated, and what is wrong with them."""
    alone = {
        "val_size": (s.val_size, 0, "clients keep their images, so that none are left to choose an epoch; use 0"),
        "targets": (s.targets, None, "a federation trains one network"),
        "features": (s.features, None, "clients train on images"),
        "pretrained": (s.pretrained, None, "a cycle begins with new weights"),
        "freeze": (s.freeze, False, "a cycle begins with new weights"),
        "snapshots": (s.snapshots, None, "local trainings keep no votes"),
        "split_strategy": (s.split_strategy, "RS", "federated.partition says which images are whose"),
        "initial_strategy": (s.initial_strategy, "random", "each client begins with labels of its own, at random"),
        "annotators.gold_share": (s.annotators.gold_share, 0.0, "the known images of a client are its own"),
        "annotators.aggregation": (s.annotators.aggregation, "majority", "it learns from the answers of all clients"),
        "query_pool_size": (s.query_pool_size, None, "each client has queries of its own"),
        "withdraw_stale": (s.withdraw_stale, None, "is for max_staleness auto in mode async"),
        "count_waiting": (s.count_waiting, False, "is not for mode federated"),
    }
    for key, (value, allowed, why) in alone.items():
        if value != allowed and key not in s.left_open:
            yield (key, "mode"), f"is not for mode federated: {why}"
    if len(s.models) > 1:
        yield ("models", "mode"), "a federation trains one network; name one"
    if s.initial_size == 0 and "initial_size" not in s.left_open:
        yield ("initial_size", "mode"), "clients need labels to begin with; use 1 or more"
    if s.trainer == "fit" and (s.federated or FederatedSettings()).compensation:
        yield ("federated.compensation", "federated", "trainer"), "is for trainer train_local; fit has no teacher"
    if s.query_strategy == "committee":
        yield ("query_strategy", "mode"), "committee is not for mode federated, where a client has two models"
    if s.needs_votes:
        yield ("query_strategy", "mode"), f"{s.query_strategy} needs votes of snapshots, which clients do not keep"
    rules = s.federated or FederatedSettings()
    if problem := PARTITIONS.problem(rules.partition):
        yield ("federated.partition",), problem
    if rules.asynchronous and rules.asynchronous.buffer > s.worker_num:
        text = f"{rules.asynchronous.buffer} is more than the {s.worker_num} clients that fill it"
        yield ("federated.asynchronous.buffer", "federated.asynchronous", "worker_num"), text
    if rules.asynchronous and rules.fraction < 1:
        yield ("federated.fraction", "federated.asynchronous"), "is for rounds, and asynchronous has none"
