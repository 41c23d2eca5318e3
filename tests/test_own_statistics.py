"""Clients that go on with the statistics of their own batch norms."""

import pathlib
from typing import Any

import pytest
import torch
from torch import nn

from aal.app.client_train import Client
from aal.coordination.federation import LocalJob
from aal.storage.model_files import load_model
from aal.training.aggregation import State, is_statistic
from aal.training.trainer import FittedModel, TrainingTask
from tests.test_federated_runs import run

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("shared", [True, False])
def test_a_client_begins_with_the_average_and_its_own_statistics_unless_they_are_shared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    begun: list[tuple[LocalJob, State | None]] = []
    ended: dict[str, State] = {}
    network, fitted = Client._network, Client._fitted

    def seen(client: Client, job: LocalJob, *others: Any) -> Any:
        begun.append((job, others[1]))
        return network(client, job, *others)

    def kept(client: Client, model: nn.Module, task: TrainingTask) -> FittedModel:
        found = fitted(client, model, task)
        assert isinstance(task.job, LocalJob)
        ended[client._file_of(task.job)] = found.state_dict
        return found

    monkeypatch.setattr(Client, "_network", seen)
    monkeypatch.setattr(Client, "_fitted", kept)
    folder = run(tmp_path / "run", mode="federated", worker_num=2, federated={"rounds": 3, "share_statistics": shared})
    later = [(job, start) for job, start in begun if job.previous and start is not None]
    assert later
    for job, start in later:
        assert start is not None and job.start is not None
        average = load_model(folder / job.start.path)["state_dict"]
        own = average if shared else ended[job.previous]
        for name, value in start.items():
            assert torch.equal(value, own[name] if is_statistic(name) else average[name]), name
