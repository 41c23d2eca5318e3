"""Federated runs on both engines: equal to a plain run, repeated, killed, and what each role may open."""

import dataclasses
import os
import pathlib
import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch

from aal.app import client_train, data, server_average
from aal.app.main import wire
from aal.config.loading import resolve
from aal.config.seeding import derive
from aal.context import Context
from aal.coordination.federation import AggregationJob, Contribution, Facts, LocalJob, LocalModel
from aal.coordination.schedules import schedule_of
from aal.engines.base import Plan, RunResult, RunStatus, answers_of
from aal.engines.local.engine import LocalEngine
from aal.engines.simulated import engine
from aal.engines.simulated.engine import SimulatedEngine
from aal.engines.simulated.stand_ins import stand_ins
from aal.reporting.progress import Progress
from aal.storage.model_files import load_model, model_payload, save_model
from aal.training.networks import architecture_from, initial_network
from tests.builders import imagined_plan, make_settings, query
from tests.test_faults import Notes, meanwhile, strike

SMALL = {
    **{"data_type": "digits", "engine": "simulated", "models": "cnn", "width": 0.5, "val_size": 0, "initial_size": 30},
    **{"worker_query_num": 1, "query_batch": 12, "assignment_type": "DA", "query_strategy": "entropy"},
    **{"training": {"epochs": 2, "batch_size": 16, "validate_after": 0}, "server_train_threshold": 12},
    **{"annotators": {"number": 4, "seconds_per_label": 0.1}},
}


def planned(folder: pathlib.Path, **changes: Any) -> Plan:
    """What `main.py` would run, in a directory of its own; without a report, which takes longer than such a run."""
    s = resolve({**SMALL, **changes}, "test")
    images = data.open_set(data.prepare(s))
    s, _ = data.fit_to(images, s)
    partition = data.split(images, s, schedule_of(s).shard_num(s))
    (folder / "models").mkdir(parents=True)
    data.save_split(partition, folder / "split.npz")
    return wire(s, folder, images, partition, resume=None)


def run(folder: pathlib.Path, **changes: Any) -> pathlib.Path:
    """Runs a small config on the digits; returns its directory."""
    assert SimulatedEngine().run(planned(folder, **changes), Progress()) == RunResult(RunStatus.FINISHED)
    return folder


def weights(folder: pathlib.Path) -> list[dict[str, torch.Tensor]]:
    """The weights of every version."""
    paths = query(folder, "select path from models order by version")
    return [load_model(folder / path)["state_dict"] for (path,) in paths]


def assert_equal_weights(one: pathlib.Path, other: pathlib.Path) -> None:
    first, second = weights(one), weights(other)
    assert len(first) == len(second) > 0
    for state, like in zip(first, second, strict=True):
        assert state.keys() == like.keys() and all(torch.equal(state[name], like[name]) for name in like)


@pytest.mark.unit
def test_one_client_without_compensation_is_a_plain_run_to_the_last_weight(
    tmp_path: pathlib.Path, one_thread: None
) -> None:
    plain = run(tmp_path / "plain", mode="sync", worker_num=1)
    rules = {"rounds": 1, "partition": "iid"}
    shape: dict[str, Any] = {"trainer_options": {"balanced": False}, "worker_num": 1}
    federated = run(tmp_path / "federated", mode="federated", federated=rules, **shape)
    assert_equal_weights(plain, federated)
    answers = "select item, label from answers order by arrival"
    assert query(plain, answers) == query(federated, answers)
    accuracies = "select labels, test_accuracy from models order by version"
    assert query(plain, accuracies) == query(federated, accuracies)


KAFAL = {
    **{"mode": "federated", "worker_num": 3, "query_strategy": "ksas"},
    "costs": {"relative_std": 0.3, "client_factors": [1, 2, 5]},
}
RULES = {"rounds": 3, "compensation": True, "keep_optimizer": True, "dropout": 0.2, "test_every": 2}


class Breaking(SimulatedEngine):
    """Ends, as if it were interrupted, when it has some versions."""

    def _run(self, plan: Plan, display: Any, caught: list[str]) -> RunResult:
        def look() -> None:
            if len(list((plan.run / "models").glob("average*"))) > 1 and not caught:
                caught.append("SIGINT")
                self._interrupt(caught)

        display.show = lambda status: look()
        return super()._run(plan, display, caught)


@pytest.mark.unit
@pytest.mark.parametrize("more", [{"fraction": 0.6}, {"asynchronous": {"buffer": 2}}])
def test_a_simulated_federation_repeats_to_the_last_weight_also_when_it_was_broken_off(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], one_thread: None
) -> None:
    monkeypatch.setattr(engine, "SHOW_EVERY_S", 0.0)  # `Breaking` looks whenever it would show how far the run is
    whole = run(tmp_path / "whole", federated=RULES | more, **KAFAL)
    plan = planned(tmp_path / "broken", federated=RULES | more, **KAFAL)
    assert Breaking().run(plan, Progress()).status is RunStatus.INTERRUPTED
    assert SimulatedEngine().run(plan, Progress()) == RunResult(RunStatus.FINISHED)
    assert_equal_weights(whole, plan.run)
    for table in ("local_models", "rounds", "answers", "jobs", "selections"):
        assert query(whole, f"select * from {table}") == query(plan.run, f"select * from {table}"), table
    assert not query(whole, "select * from rounds where left_out is not null")
    assert query(whole, "select count(*) from local_models where dropped_out") > [(0,)]


@pytest.mark.unit
def test_fedprox_keeps_clients_near_the_global_model(tmp_path: pathlib.Path, one_thread: None) -> None:
    moved = {}
    for proximal in (0.0, 10.0):
        more: dict[str, Any] = {
            "federated": {"rounds": 2, "partition": "iid"},
            "query_strategy": "random",
            "trainer_options": {"balanced": False, "proximal": proximal},
            "training": {"epochs": 10, "batch_size": 16, "validate_after": 0},  # the first step has nothing to pull at
        }
        folder = run(tmp_path / str(proximal), **KAFAL | more)
        first, second = weights(folder)[:2]
        learned = [name for name in first if name.endswith(("weight", "bias"))]
        moved[proximal] = sum(float((second[name] - first[name]).square().sum()) for name in learned)
        assert query(folder, "select count(*) from rounds where left_out is null")[0][0] > 3
    assert 0 < moved[10.0] < moved[0.0] / 2


@pytest.mark.unit
def test_a_baseline_chooses_by_the_local_model_the_global_one_or_both(tmp_path: pathlib.Path, one_thread: None) -> None:
    chosen = {}
    for model in ("local", "global", "both"):
        more: dict[str, Any] = {"federated": RULES | {"dropout": 0.0, "chosen_by": model}, "query_strategy": "entropy"}
        folder = run(tmp_path / model, **KAFAL | more)
        chosen[model] = frozenset(query(folder, "select item from offers"))
    assert len(set(chosen.values())) == 3 and len({len(items) for items in chosen.values()}) == 1


# ---------------------------------------------------------------------- real processes


def plan_of(folder: pathlib.Path, **federated: Any) -> Any:
    """A federation of real processes that compute nothing; its annotators take some seconds."""
    shape = {"worker_num": 2, "worker_query_num": 3, "query_batch": 6, "val_size": 0, "mode": "federated"}
    people = {"number": 2, "seconds_per_label": 0.2}
    return stand_ins(
        imagined_plan(folder, 100, **shape, annotators=people, hung_after_s=30.0, federated={"rounds": 2} | federated)
    )


@pytest.mark.process
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("federated", "names"),
    [
        ({}, ("client-0", "server-0", "evaluator-0", "annotators")),
        ({"asynchronous": {"buffer": 1}}, ("hub", "client-1")),
    ],
)
def test_killed_roles_are_replaced_and_nothing_is_lost(
    tmp_path: pathlib.Path, federated: dict[str, Any], names: tuple[str, ...]
) -> None:
    plan, notes = plan_of(tmp_path / "run", **federated), Notes()

    def kill() -> None:
        for name in names:
            strike(plan.run, name, signal.SIGKILL)

    with meanwhile(plan.run, kill):
        result = LocalEngine().run(plan, notes)
    assert result == RunResult(RunStatus.FINISHED), (result, notes.notes)
    answers, _ = answers_of(plan.settings, plan.partition, plan.classes, 0)
    bought = sum(plan.schedule.make_pools(plan.settings, plan.partition, plan.labels, 0, answers).batches) * 3
    assert query(plan.run, "select count(*), count(distinct item), count(label) from queries") == [(bought,) * 3]
    assert query(plan.run, "select max(labels) from models") == [(4 + bought,)]
    foreign = "select count(*) from queries where annotator % 2 <> worker"
    assert query(plan.run, foreign) == [(0,)], "annotators answer for their own client alone"


FORBIDDEN = {"server": ("images.npy", "labels.npy", "run.db"), "client": ("labels.npy", "run.db")}


def guarded(role: str, build: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a build that ends its process when that opens a file which its role may not open."""

    def built(*args: Any) -> Any:
        def watch(event: str, details: tuple[Any, ...]) -> None:
            if event in ("open", "sqlite3.connect") and str(details[0]).partition("?")[0].endswith(FORBIDDEN[role]):
                raise PermissionError(f"{role} opens {details[0]}")

        sys.addaudithook(watch)
        for name in FORBIDDEN[role]:
            with pytest.raises(PermissionError):
                if name == "run.db":
                    sqlite3.connect(f"file:{name}?mode=ro", uri=True)
                else:
                    pathlib.Path(name).read_bytes()
        return build(*args)

    return built


build_server = guarded("server", server_average.build)


def build_client(context: Context[Any], images: pathlib.Path, facts: Facts) -> client_train.Client:
    """Returns a client that has no image but its own, and fails when it is given a label that is not."""
    client: client_train.Client = guarded("client", client_train.build)(context, images, facts)
    own = data.load_split(context.run / "split.npz").owned(context.index)
    foreign = np.setdiff1d(np.arange(len(np.load(images, mmap_mode="r"))), own)
    for item in foreign:
        with pytest.raises(KeyError):
            client.bank.batch(torch.tensor([item]))
    train = client.train

    def checked(job: LocalJob, ids: np.ndarray, *rest: Any) -> LocalModel:
        assert len(ids) and np.isin(ids, own).all(), "labels of another client"
        return train(job, ids, *rest)

    client.train = checked  # type: ignore[assignment, method-assign]
    return client


BUILDS = {"aal.app.server_average:build": "build_server", "aal.app.client_train:build": "build_client"}


@pytest.mark.process
@pytest.mark.timeout(180)
def test_a_run_passes_whose_server_may_open_no_image_and_whose_clients_open_no_labels(tmp_path: pathlib.Path) -> None:
    plan = planned(tmp_path / "run", engine="local", mode="federated", worker_num=2, federated={"rounds": 2})
    roles = [
        dataclasses.replace(role, build=f"{__name__}:{BUILDS[role.build]}") if role.build in BUILDS else role
        for role in plan.roles
    ]
    assert {role.build for role in roles} > {f"{__name__}:{name}" for name in BUILDS.values()}
    assert LocalEngine().run(dataclasses.replace(plan, roles=roles), Progress()) == RunResult(RunStatus.FINISHED)
    assert query(plan.run, "select version, test_accuracy > 0.1 from models") == [(0, None), (1, 1), (2, None), (3, 1)]


class DyingServer(server_average.AverageServer):
    """The first two processes of its slot are killed when they have read one of the local models of version 1."""

    def _read(self, one: Contribution, current: Any) -> Any:
        found = super()._read(one, current)
        if self.incarnation < 2 and one.model.version == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def build_dying(context: Any, facts: Facts) -> DyingServer:
    return DyingServer(context.index, context.run, context.settings, facts, context.incarnation)


@pytest.mark.process
@pytest.mark.timeout(180)
def test_a_server_that_is_killed_in_the_middle_of_an_average_changes_no_weight(tmp_path: pathlib.Path) -> None:
    shape: dict[str, Any] = {"engine": "local", "mode": "federated", "worker_num": 2, "federated": {"rounds": 2}}
    shape["devices"] = {"server_threads": 1}  # as many as before whatever else computes, so that sums are the same
    whole, plan = (planned(tmp_path / name, **shape) for name in ("whole", "killed"))
    roles = [
        dataclasses.replace(role, build=f"{__name__}:build_dying") if role.name == "server" else role
        for role in plan.roles
    ]
    notes = Notes()
    assert LocalEngine().run(dataclasses.replace(plan, roles=roles), notes) == RunResult(RunStatus.FINISHED)
    assert sum(note.startswith("server-0: was killed by SIGKILL") for note in notes.notes) == 2, notes.notes
    assert LocalEngine().run(whole, Progress()) == RunResult(RunStatus.FINISHED)
    first, second = (weights(folder)[:2] for folder in (whole.run, plan.run))  # answers come in any order, so no others
    assert all(torch.equal(state[name], like[name]) for state, like in zip(first, second, strict=True) for name in like)
    shares = "select version, client, weight from rounds order by version, client"
    assert query(plan.run, shares) == query(whole.run, shares)


# ---------------------------------------------------------------------- what is wrong with a client's weights


@pytest.mark.unit
@pytest.mark.parametrize("wrong", ["damaged", "not finite"])
def test_a_client_whose_model_was_left_out_chooses_with_the_global_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    train, fitted = client_train.Client.train, client_train.Client._fitted

    def damaged(client: client_train.Client, *args: Any) -> LocalModel:
        model = train(client, *args)
        if client.index == 0:
            (client.run / model.path).write_bytes(b"no weights")
        return model

    def infinite(client: client_train.Client, model: torch.nn.Module, task: Any) -> Any:
        found: Any = fitted(client, model, task)
        if client.index == 0:
            next(iter(found.state_dict.values())).fill_(np.inf)
            next(iter(next(iter(found.continuation.optimizer.values())).values())).fill_(np.nan)
        return found

    if wrong == "damaged":
        monkeypatch.setattr(client_train.Client, "train", damaged)
    else:
        monkeypatch.setattr(client_train.Client, "_fitted", infinite)
    federated = {"rounds": 1, "keep_optimizer": True}
    done = run(tmp_path / "run", mode="federated", worker_num=2, query_strategy="ksas", federated=federated)
    assert query(done, "select distinct client from rounds where left_out is not null") == [(0,)]
    assert query(done, "select count(*), count(label) from queries")[0] == (25, 25)
    line = "client 0 chooses with the global model in the place of its own: "
    assert any(line in one and wrong in one for one in caplog.messages)
    kept = [path.name for path in (done / "clients").iterdir()]
    assert any("client-0" in name for name in kept) == (wrong == "damaged"), "an optimiser that is not finite goes"


@pytest.mark.unit
def test_weights_that_are_not_finite_or_of_another_shape_are_named_and_left_out(tmp_path: pathlib.Path) -> None:
    s = make_settings(mode="federated", val_size=0, trainer="fit", federated={}, width=0.5)
    facts = Facts(tuple("0123456789"), 1, 8, "digits", (0.0,), (1.0,))
    architecture = architecture_from(s, facts)
    (tmp_path / "models").mkdir()
    contributions = []
    for client in range(4):
        state = initial_network(s, architecture, cycle=client).state_dict()
        name = next(iter(state))
        if client == 1:
            state[name] = torch.full_like(state[name], np.nan)
        if client == 2:
            state[name] = state[name][:1]
        path = f"models/local-{client}.pt"
        about: dict[str, Any] = {
            "architecture": architecture.as_dict(),
            "class_names": facts.classes,
            "images": "digits",
        }
        about |= {"normalisation": {"mean": [0.0], "std": [1.0]}, "labels": 5, "epoch": 1}
        save_model(tmp_path / path, model_payload(s, state_dict=state, **about))
        contributions.append(Contribution(LocalModel(client, client, 0, 5 + client, None, path, 0.0), 0, ""))
    (tmp_path / "models" / "local-3.pt").write_bytes(b"no weights")
    server = server_average.AverageServer(0, tmp_path, s, facts)
    found = server.average(AggregationJob(4, 20, contributions=tuple(contributions)), 0.0, lambda: None)
    assert [share.left_out == "" for share in found.shares] == [True, False, False, False]
    assert [share.weight for share in found.shares] == [1, 0, 0, 0]
    assert "client 1 was left out: " in found.warning and "not finite" in found.warning
    assert "client 2 was left out: " in found.warning and "shape" in found.warning
    assert "client 3 was left out: " in found.warning and "damaged" in found.warning
    expected = initial_network(s, architecture, cycle=0).state_dict()
    averaged = load_model(tmp_path / found.path)["state_dict"]
    assert all(torch.equal(averaged[name], value) for name, value in expected.items())
    nobody = server.average(AggregationJob(5, 20, contributions=tuple(contributions[1:])), 0.0, lambda: None)
    kept = load_model(tmp_path / nobody.path)["state_dict"]
    assert all(torch.equal(kept[name], value) for name, value in expected.items()), "the version before stays"
    assert derive(s.seed, "weights", 0) != derive(s.seed, "weights", 1)


# ---------------------------------------------------------------------- clients of different speed


def simulated(folder: pathlib.Path, **federated: Any) -> pathlib.Path:
    """Four clients, of which the last one takes ten times as long, and which drop out now and then."""
    shape = {"worker_num": 4, "worker_query_num": 3, "query_batch": 8, "val_size": 0, "mode": "federated"}
    costs = {"client_factors": [1, 1, 1, 10], "per_model_published": 0.5}
    plan = imagined_plan(folder, 300, **shape, costs=costs, federated={"rounds": 4, "dropout": 0.1} | federated)
    assert SimulatedEngine().run(plan, Progress()) == RunResult(RunStatus.FINISHED)
    return folder


@pytest.mark.unit
def test_without_rounds_nobody_waits_for_a_slow_client(tmp_path: pathlib.Path) -> None:
    rounds = simulated(tmp_path / "rounds")
    without = simulated(tmp_path / "without", asynchronous={"buffer": 3})
    waited = "select sum(got_at - asked_at) from waits where annotator % 4 < 3"
    assert query(without, waited)[0][0] < query(rounds, waited)[0][0] / 3
    trained = "select count(*) from local_models where client = ? and not dropped_out"
    with closing(sqlite3.connect(without / "run.db")) as db:
        counts = [db.execute(trained, (client,)).fetchone()[0] for client in range(4)]
    assert min(counts[:3]) > 5 * counts[3] > 0
    assert query(without, "select max(staleness) > 5 from rounds where client = 3") == [(1,)]
    assert query(rounds, "select max(staleness) from rounds") == [(0,)]
    assert query(without, "select sum(weight) from rounds where version = 0")[0][0] == pytest.approx(1.0)


@pytest.mark.gpu
@pytest.mark.process
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_clients_of_a_federation_share_a_gpu(tmp_path: pathlib.Path) -> None:
    plan = planned(tmp_path / "run", engine="local", mode="federated", worker_num=3, trainer_options={"balanced": True})
    assert LocalEngine().run(plan, Progress()) == RunResult(RunStatus.FINISHED)
    assert re.search(r" client-0 \d+ INFO computes on cuda:0", (plan.run / "log.txt").read_text())
    assert query(plan.run, "select count(*), count(distinct item) from answers") == [(37, 37)]  # shares rounded up
