"""A federation on the engine ray, on machines of its own that share no folder."""

import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

from aal.engines.base import RunResult, RunStatus
from aal.engines.local.engine import LocalEngine
from aal.engines.ray.engine import RayEngine
from aal.storage.checksum import is_intact
from bench.machines import Machines
from tests.builders import query, wait_for
from tests.ray_cluster import is_exact, on
from tests.test_faults import Notes
from tests.test_federated_runs import planned, weights

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.timeout(240)]
ROUNDS = 3
SHAPE = {
    **{"mode": "federated", "engine": "ray", "worker_num": 2, "width": 0.25, "devices": {"server_threads": 1}},
    "federated": {"rounds": ROUNDS, "keep_optimizer": True},
    "training": {"epochs": 150, "batch_size": 16, "validate_after": 0},
}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    made = Machines(tmp_path_factory.mktemp("machines"), {"head": 1, "a": 4, "b": 4})
    yield made
    made.close()


def test_a_federation_whose_clients_lose_their_machine_goes_on_and_is_the_same_as_on_the_local_engine(
    machines: Machines, tmp_path: pathlib.Path
) -> None:
    """Before labels are bought all weights follow from the seed, if clients go on with the momentum that they kept."""
    plan, notes = (
        on(machines, planned(tmp_path / "ray", **SHAPE), {"client": "a", "server": "b", "evaluator": "b"}),
        Notes(),
    )

    def versions() -> int:
        return len(list((plan.run / "models").glob("average*")))

    with ThreadPoolExecutor(1) as thread:  # what a machine is started from must last as long as the machine
        result = thread.submit(RayEngine().run, plan, notes)
        wait_for(lambda: versions() > 0, 120.0)
        machines.lose("a")
        lost_at = versions()
        machines.add("a")
        assert result.result() == RunResult(RunStatus.FINISHED)
    assert lost_at < ROUNDS
    assert any(note.startswith("client-0: its machine") for note in notes.notes)
    assert query(plan.run, "select version, count(*) from rounds where left_out is null group by version") == [
        (version, 2) for version in range(2 * ROUNDS)
    ]
    assert all(is_intact(plan.run / path) for (path,) in query(plan.run, "select path from models"))
    assert "begins anew" not in (plan.run / "log.txt").read_text()
    assert len(list((plan.run / "clients").iterdir())) == len(list((plan.run / "models").glob("local*"))) == 4
    sent = [np.load(path).any(axis=(1, 2, 3)) for path in (machines.folder / "a").rglob("images/*[0-9a-f]")]
    owned = [plan.partition.owned(client) for client in range(2)]
    assert sorted(np.flatnonzero(rows).tolist() for rows in sent) == sorted(own.tolist() for own in owned)
    local = planned(tmp_path / "local", **SHAPE)
    assert LocalEngine().run(local, Notes()) == RunResult(RunStatus.FINISHED)
    assert is_exact(plan.run, query(local.run, "select count(*) from answers")[0][0])
    for one, other in zip(weights(plan.run)[:ROUNDS], weights(local.run), strict=False):
        assert all(torch.equal(one[name], value) for name, value in other.items())
