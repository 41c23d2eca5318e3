"""Settings of a federation: what is filled in, what contradicts what, how much labels and versions there will be."""

from typing import Any

import pytest

from aal.config.errors import UserError
from aal.config.loading import dump, load, resolve
from aal.config.ray import ray_problems
from aal.config.yaml_text import parse
from aal.coordination.schedules import schedule_of
from aal.engines.resources import parts_of
from tests.builders import make_partition

pytestmark = pytest.mark.unit
BASE: dict[str, Any] = {"data_type": "digits", "mode": "federated", "models": "cnn", "worker_num": 3}


def test_a_federation_has_a_group_a_trainer_and_no_validation_images_of_its_own() -> None:
    s = resolve(BASE, "x")
    assert s.federated is not None and (s.trainer, s.val_size) == ("train_local", 0)
    assert (s.federated.step, s.federated.rounds) == (0.6, 50)
    tree: Any = parse(dump(s), "x")
    assert resolve(tree, "x") == s
    assert resolve({**BASE, "mode": "async"}, "x").federated is None
    buffered = resolve({**BASE, "federated": {"asynchronous": {"buffer": 3}}}, "x")
    assert buffered.federated is not None and buffered.federated.step == 1.0


def test_contradictions_are_reported_together() -> None:
    wrong = {
        **{"val_size": 10, "targets": ["cnn"], "freeze": True, "split_strategy": "DS", "initial_size": 0},
        **{"query_pool_size": 9, "trainer": "fit", "query_strategy": "committee", "assignment_type": "DA"},
        "federated": {"asynchronous": {"buffer": 4}, "fraction": 0.5, "compensation": True},
    }
    with pytest.raises(UserError) as refused:
        resolve({**BASE, **wrong}, "x")
    keys = [problem.split(": ")[1] for problem in refused.value.problems]
    assert set(keys) >= {
        *("val_size", "targets", "freeze", "split_strategy", "initial_size", "query_pool_size", "query_strategy"),
        *("federated.asynchronous.buffer", "federated.fraction", "federated.compensation"),
    }


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"federated": {"rounds": 2}}, "federated"),
        ({"costs": {"client_factors": [1.0]}, "engine": "simulated"}, "costs.client_factors"),
        ({"assignment_type": "DA", "query_strategy": "ksas"}, "query_strategy"),
        ({"assignment_type": "DA", "query_strategy": "logo", "compute": "none"}, "query_strategy"),
    ],
)
def test_what_is_for_federations_is_refused_elsewhere(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^x: {key}: "):
        resolve({**BASE, "mode": "async", **changes}, "x")


def test_the_published_config_buys_what_the_published_code_buys() -> None:
    s = load("kafal-cifar10")
    rules, schedule = s.federated, schedule_of(s)
    assert rules is not None and (rules.rounds, rules.fraction, rules.alpha) == (50, 0.8, 0.1)
    assert s.training.milestones == [260] and s.training.epochs == 40 and s.worker_query_num + 1 == 6
    import numpy as np

    from aal.aggregation.majority import Majority
    from aal.coordination.answers import Answers
    from aal.coordination.partition import Partition

    sizes = [5021, 4556, 5008, 5014, 5565, 5826, 5177, 5186, 4522, 4125]
    ends = np.cumsum(sizes)
    own = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    initial = [ids[: -(-len(ids) // 10)] for ids in own]
    owner = np.repeat(np.arange(10), [len(ids) for ids in initial])
    none = np.empty(0, np.int64)
    shards = [ids[len(first) :] for ids, first in zip(own, initial, strict=True)]
    one = np.ones(3, np.float32)
    partition = Partition(none, none, np.concatenate(initial), shards, 0 * one, one, owner)
    pools: Any = schedule.make_pools(s, partition, np.zeros(50_000, np.int64), 0, Answers(Majority(10)))
    assert pools.batches == [252, 228, 251, 251, 279, 292, 259, 260, 227, 207]
    assert pools.labels == 5005 and [5005 + cycle * sum(pools.batches) for cycle in range(6)][-1] == 17_535


def test_what_a_federation_needs_of_the_machine_is_told_by_role() -> None:
    s = resolve({**BASE, "devices": {"worker_processes": 2}}, "x")
    names = {part.name: part.number for part in parts_of(s, (1797, 8, 8, 1))}
    assert names == {"main and hub": 1, "clients": 2, "server": 1, "evaluator": 1, "annotators": 1}
    assert make_partition(s, 30).owned(0).tolist() == [6, 9, *range(10, 20)]


@pytest.mark.parametrize(
    ("ray", "mode", "problem"),
    [
        (
            {"pins": {"worker": "x"}},
            "federated",
            "ray.pins: worker: mode federated has none; it has hub, server, client",
        ),
        ({"pins": {"client": "x"}}, "async", "ray.pins: client: mode async has none; it has hub, server, worker, anno"),
        ({"worker_gpus": 1}, "async", "ray.worker_gpus: asks for GPUs, and devices.workers=cpu keeps it off them; use"),
        ({"server_gpus": 0.5}, "async", "ray.server_gpus: asks for GPUs, and devices.servers=cpu keeps it off them"),
        ({"pins": {"servr": "x"}}, "async", "ray.pins.servr: must be 'hub', 'server', 'worker', 'client', 'eval"),
    ],
)
def test_what_a_run_asks_of_a_cluster_is_for_roles_and_devices_that_it_has(
    ray: dict[str, Any], mode: str, problem: str
) -> None:
    devices = {"servers": "cpu", "workers": "cpu"}
    with pytest.raises(UserError) as found:
        resolve({**BASE, "mode": mode, "engine": "ray", "ray": ray, "devices": devices}, "x")
    assert any(problem in one for one in found.value.problems), found.value.problems


def test_a_wrong_number_hides_no_other_mistake_of_its_group() -> None:
    wrong = {"rounds": 0, "fraction": 1.5, "partition": "dirichle", "asynchronous": {"buffer": 50}, "alfa": 1}
    with pytest.raises(UserError) as found:
        resolve({**BASE, "federated": wrong}, "x")
    keys = [one.split(": ")[1] for one in found.value.problems]
    assert sorted(keys) == [
        f"federated.{key}" for key in ("alfa", "asynchronous.buffer", "fraction", "partition", "rounds")
    ]


def test_a_schedule_of_ones_own_may_have_clients_or_workers() -> None:
    pins = {"client": "x", "worker": "y"}
    settings = resolve({**BASE, "mode": "async"}, "x").model_copy(update={"engine": "ray", "mode": "mine:Federation"})
    own = settings.model_copy(update={"ray": settings.ray.model_copy(update={"pins": pins})})
    assert not [text for keys, text in ray_problems(own) if keys[0] == "ray.pins"]
    assert [text for keys, text in ray_problems(own.model_copy(update={"mode": "sync"})) if keys[0] == "ray.pins"]
