"""Several target models: settings, lineages of versions, figures; a whole run on both engines, killed and resumed."""

import json
import pathlib
import subprocess
from typing import Any

import numpy as np
import pytest

from aal.app import eval as evaluation
from aal.config.errors import UserError
from aal.config.loading import dump
from aal.coordination.messages import ModelRef, Pending, TrainedModel, TrainingJob
from aal.engines.base import RunResult, RunStatus
from aal.engines.simulated.engine import SimulatedEngine
from aal.reporting.metrics import summary_of
from aal.reporting.pages import write_report
from aal.reporting.progress import Progress
from aal.reporting.record import read
from tests.builders import imagined_plan, make_hub, make_run, make_settings, query, wait_for
from tests.test_runs import QUICK, ROOT, command, kill, more_than, resume

THREE: list[dict[str, Any]] = [{"name": name, "model": "cnn", "options": {}} for name in ("one", "two", "three")]


# ---------------------------------------------------------------------- settings


@pytest.mark.unit
def test_the_name_of_a_network_stands_for_a_target() -> None:
    s = make_settings(targets=["cnn", {"model": "resnet18", "options": {"width": 0.5}}, {"name": "x", "model": "CNN"}])
    assert [(one.name, one.model, one.options) for one in s.networks] == [
        ("cnn", "cnn", {}),
        ("resnet18", "resnet18", {"width": 0.5}),
        ("x", "cnn", {}),
    ]
    assert make_settings(**{**s.tree()}) == s, "what a run writes down reads the same"
    assert [one.model for one in make_settings(models=["cnn", "resnet18"]).networks] == ["cnn", "resnet18"]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ["cnn", "cnn"]}, "test: targets: two are called cnn; give each a name of its own"),
        ({"targets": []}, "test: targets: must hold at least 1"),
        ({"targets": [{"name": "x"}]}, "test: targets.model: must be given"),
        ({"targets": [3]}, "test: targets: must hold `key: value` lines, not 3"),
        ({"targets": ["nonsense"]}, "test: targets: must be vgg16"),
        ({"targets": ["cnn"], "model_options": {"width": 1}}, "test: model_options: are for models; give each of the"),
        ({"snapshots": 21}, "test: snapshots: 21 are more than the 20 epochs of a training"),
        (
            {"assignment_type": "DA", "query_strategy": "diam", "training": {"epochs": 3}},
            "test: snapshots: diam needs votes of two epochs or more; half of training.epochs 3 are too few",
        ),
        ({"assignment_type": "DA", "query_strategy": "diam", "query_strategy_options": {"shortlist": 0}}, "shortlist"),
    ],
)
def test_mistakes_are_one_line(changes: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        make_settings(**changes)
    assert len(error.value.problems) == 1 and message in error.value.problems[0]


@pytest.mark.unit
def test_votes_are_kept_of_half_of_the_epochs_where_a_strategy_needs_them() -> None:
    diam = {"assignment_type": "DA", "query_strategy": "diam"}
    assert make_settings().votes_kept == 0 and make_settings(snapshots=3).votes_kept == 3
    assert make_settings(**diam).votes_kept == 10 and make_settings(**diam, snapshots=4).votes_kept == 4


# ---------------------------------------------------------------------- lineages


@pytest.mark.unit
@pytest.mark.parametrize("servers", [1, 3, 5])
def test_an_idle_server_takes_the_job_of_the_target_that_lags_most(servers: int) -> None:
    hub, _ = make_hub(make_settings(server_num=servers, targets=THREE, max_staleness=None, worker_query_num=6))
    initial = [hub.job(server % servers) for server in range(min(3, servers))]
    assert [job.target for job in initial if isinstance(job, TrainingJob)] == list(range(min(3, servers)))
    for server, job in enumerate(initial):
        assert isinstance(job, TrainingJob) and job.labels == 4
        hub.publish(TrainedModel(job.number, server, "cnn", f"{job.number}", 1, 0.0, None, 0.5))
    for number in range(len(initial), 3):
        assert isinstance(hub.grant(0), Pending), "no target may be left out"
        job = hub.job(0)
        assert isinstance(job, TrainingJob) and (job.number, job.target, job.network) == (number, number, number)
        hub.publish(TrainedModel(number, 0, "cnn", f"{number}", 1, 0.0, None, 0.5))
    grant = hub.grant(0)
    assert not isinstance(grant, Pending)
    assert grant.models == tuple(ModelRef(target, f"{target}", 4, target) for target in range(3))
    assert isinstance(hub.job(0), Pending), "no label has come"


@pytest.mark.unit
@pytest.mark.parametrize("changes", [{"mode": "sync"}, {"max_staleness": 1}, {"max_staleness": None}, {}])
def test_a_simulated_run_trains_every_target_on_every_label(changes: dict, tmp_path: pathlib.Path) -> None:
    words = {"max_staleness": "auto", "targets": THREE, "server_num": 2, "server_train_threshold": 40, **changes}
    plan = imagined_plan(tmp_path / "run", 500, worker_num=2, worker_query_num=4, query_batch=20, **words)
    (plan.run / "config.yaml").write_text(dump(plan.settings))
    assert SimulatedEngine().run(plan, Progress()) == RunResult(RunStatus.FINISHED)
    last = query(plan.run, "SELECT target, model, max(labels), count(*) FROM models GROUP BY target ORDER BY target")
    assert [(target, name, labels) for target, name, labels, _ in last] == [
        (0, "one", 164),
        (1, "two", 164),
        (2, "three", 164),
    ]
    versions = query(plan.run, "SELECT versions FROM selections WHERE version IS NOT NULL")
    lineage = dict(query(plan.run, "SELECT version, target FROM models"))
    for (text,) in versions:
        targets = [lineage[int(version)] for version in text.split(",")]
        assert targets == sorted(set(targets)) and (len(targets) == 3 or words["max_staleness"] == "auto")
    summary = summary_of(read(plan.run))
    assert [one["name"] for one in summary["targets"]] == ["one", "two", "three"]
    assert "networks" not in summary and summary["final_test_accuracy"] is None
    if words["max_staleness"] == "auto" and "mode" not in words:
        assert summary["annotators_waited"] == 0, "nobody waits here either"


# ---------------------------------------------------------------------- figures


@pytest.mark.unit
def test_top_figures_are_means_over_the_targets(tmp_path: pathlib.Path) -> None:
    def row(version: int, labels: int, test: float, target: int) -> tuple:
        model = (version, 0, labels, float(version), version + 0.5, None, test, "", THREE[target]["name"], 1, version)
        return (*model, target)

    models = [row(0, 10, 0.4, 0), row(1, 10, 0.6, 1), row(2, 20, 0.8, 0), row(3, 20, 0.9, 1), row(4, 15, 0.7, 0)]
    run = make_run(
        tmp_path / "run",
        {"data_type": "digits", "mode": "async", "engine": "local", "seed": 7, "targets": THREE[:2]},
        models=models,
        # the second one was made when v2 was there too: of target 0 it is one version behind, of target 1 none
        selections=[(0, 0, "diam", 1, 1, 1.0, 1.6, "0,1"), (0, 1, "diam", 1, 3, 2.0, 2.6, "0,1")],
        meta=[("wall_s", "9.5")],
    )
    summary = summary_of(read(run))
    assert summary["final_test_accuracy"] == pytest.approx(0.85)
    assert summary["target_std"]["final_test_accuracy"] == pytest.approx(0.05)
    assert summary["mean_curve_accuracy"] == pytest.approx((1.9 / 3 + 0.75) / 2)
    assert [len(one["curve"]) for one in summary["targets"]] == [3, 2] and len(summary["curve"]) == 5
    assert [one["staleness"] for one in summary["targets"]] == [{"mean": 0.75, "max": 1}, {"mean": 0.0, "max": 0}]
    assert summary["staleness"] == {"mean": 0.375, "max": 1}
    page = write_report(run).read_text()
    assert "Final test accuracy, mean of 2 targets | 85.0 % ± 5.0 %" in page and "standard deviation" in page
    assert (run / "report" / "targets.png").exists()


# ---------------------------------------------------------------------- whole runs

TARGETS = ["targets=[cnn,{name: narrow,model: cnn,options: {width: 0.5}}]", "assignment_type=DA", "query_strategy=diam"]


@pytest.mark.process
@pytest.mark.timeout(180)
def test_diam_is_killed_resumed_and_scored_together(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(command(run, *QUICK, *TARGETS), cwd=ROOT, stderr=subprocess.DEVNULL, text=True) as process:
        wait_for(lambda: more_than(run, 20), 120)
        kill(process, run, "server-1")
        process.kill()
    done = resume(run)
    assert done.returncode == 0, done.stderr
    assert not query(run, "SELECT item FROM answers GROUP BY item HAVING count(*) > 1")
    total = json.loads((run / "summary.json").read_text())["labels"]["total"]
    assert query(run, "SELECT target, max(labels) FROM models GROUP BY target") == [(0, total), (1, total)]

    last = query(run, "SELECT path, test_accuracy, max(version) FROM models GROUP BY target")
    paths = [str(run / path) for path, *_ in last]
    assert evaluation.main(["--path", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    accuracies = [accuracy for _, accuracy, _ in last]
    assert [one["accuracy"] for one in found["models"]] == accuracies
    assert found["mean_accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["std_accuracy"] == pytest.approx(np.std(accuracies))
    assert evaluation.main(["--path", *paths]) == 0
    assert f"{np.mean(accuracies):.4f}" in capsys.readouterr().out


@pytest.mark.process
def test_a_target_of_other_classes_is_named_before_the_run(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ten.py").write_text(
        "from torch import nn\n\ndef build(classes):\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))\n"
    )
    call = command(tmp_path / "run", *TARGETS[1:], "targets=[cnn,'ten:build']", *QUICK)
    done = subprocess.run(call, cwd=tmp_path, env=None, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if not one.startswith("preparing the images of ")]
    assert line == "error: models: ten:build: gives logits of shape (2, 7) for 2 images, not (2, 10)"
