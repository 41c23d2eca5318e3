"""The benches: what their rows mean, and that each part measures something."""

import functools
import importlib.metadata
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from aal.app import data
from aal.config.errors import RunFailed, UserError
from aal.config.loading import resolve
from aal.training import scorer
from aal.training.acceleration import LossFunction
from aal.training.cpu_speedups import Dropout
from aal.training.networks import Architecture
from bench import __main__ as command
from bench import (
    accuracy,
    contenders,
    end_to_end,
    harness,
    pools,
    rows,
    run_process,
    scaling,
    score,
    settings,
    train,
)
from bench.contenders import Baseline, Roofline
from bench.harness import GREY, Selector, Source, network_of
from bench.rows import Options, Row
from bench.run_process import survivors

KEYS = ["name", "unit", "ours", "instead", "limit", "vs_instead", "of_limit", "spread"]


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[Source]:
    """A small set of random images."""
    monkeypatch.setattr(harness, "NUMBER", 600)
    monkeypatch.setattr(harness, "TEST", 100)
    monkeypatch.setattr(harness, "CHUNK", 100)
    with harness.random_set("cifar-10", harness.CIFAR, classes=10) as folder:
        yield Source(data.open_set(folder), real=False)


@pytest.mark.unit
def test_ratios_are_above_one_where_ours_is_the_better() -> None:
    fast = Row("train/x", "images/s", [190, 200, 230], [100], [250]).as_dict()
    assert list(fast) == KEYS
    assert (fast["ours"], fast["vs_instead"], fast["of_limit"]) == (200, 2.0, 0.8)
    assert fast["spread"] == pytest.approx(0.1)
    short = Row("startup/x", "s", [2.0], [8.0], [1.0]).as_dict()
    assert (short["vs_instead"], short["of_limit"], short["spread"]) == (4.0, 0.5, None)
    alone = Row("memory/x", "MiB", [2.0]).as_dict()
    assert [alone[key] for key in ("instead", "limit", "vs_instead", "of_limit")] == [None] * 4


@pytest.mark.unit
def test_contenders_take_turns() -> None:
    turns = itertools.count(1)
    found = rows.alternate(2, {name: functools.partial(next, turns) for name in "abc"})
    assert found == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.unit
def test_the_table_is_markdown() -> None:
    lines = rows.markdown([Row("pools/ids", "ids/s", [12345.0, 12345.0], [0.123456])]).splitlines()
    assert len(lines) == 3
    assert cells(lines[2]) == ["pools/ids", "ids/s", "12,345", "0.123", "", "99995.14", "", "0 %"]


@pytest.mark.unit
def test_json_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Source
) -> None:
    class Given:
        def __enter__(self) -> Source:
            return source

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(harness, "cifar", lambda data_dir: Given())
    monkeypatch.setattr(pools, "measure", lambda options, source: iter([Row("pools/ids", "ids/s", [1.0])]))
    assert command.main(["pools", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["rows", "machine", "versions"]
    assert [list(row) for row in found["rows"]] == [KEYS]
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert found["machine"]["notes"] == ["images: random images; speed does not depend on the pixels"]
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert command.main(["pools"]) == 0
    assert cells(capsys.readouterr().out.splitlines()[2])[:3] == ["pools/ids", "ids/s", "1"]


@pytest.mark.unit
def test_mistakes_are_reported(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["trian"])
    assert "there is no part trian; there are: score, select, train" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main(["--threads", "0"])
    assert "argument --threads: 0 is not a number from 1" in capsys.readouterr().err
    assert command.main(["pools", "--data_dir", str(tmp_path)]) == 2
    assert "holds no folder cifar-10-batches-py" in capsys.readouterr().err


@pytest.mark.unit
def test_train_measures_the_real_path(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    monkeypatch.setattr(train, "QUICK_CASES", (("quarter", 0.25, 70, 1, 1),))
    monkeypatch.setattr(contenders, "SECONDS", 0.0)
    monkeypatch.setattr(Roofline, "compile", lambda self: None)
    options = Options(quick=True)
    found = {row.name: row.as_dict() for row in train.measure(options, source)}
    assert list(found) == ["train/vgg16/quarter/70"]
    for row in found.values():
        assert row["ours"] > 0 and row["vs_instead"] > 0 and row["of_limit"] > 0
    assert options.notes == ["train/vgg16/quarter/uncompiled: PyTorch cannot compile here"]


@pytest.mark.unit
def test_whether_compiling_pays_is_reported(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    rates = {False: 100.0, True: 125.0}
    monkeypatch.setattr(train, "QUICK_CASES", (("quarter", 0.25, 70, 1, 1),))
    monkeypatch.setattr(Roofline, "compile", lambda self: 20.0)
    monkeypatch.setattr(
        Roofline, "train_rate", lambda self, is_compiled=None: rates[self.is_compiled or bool(is_compiled)]
    )
    monkeypatch.setattr(Roofline, "score_rate", lambda self: 1e12)
    asked = []

    def compiled(loss_of: LossFunction, model: torch.nn.Module, *batch: torch.Tensor) -> LossFunction:
        asked.append(model)
        return loss_of

    monkeypatch.setattr("aal.app.server_train.compile_loss", compiled)
    options = Options(quick=True)
    found = {row.name: row.as_dict() for row in train.measure(options, source)}
    assert found["train/vgg16/quarter/uncompiled"]["vs_instead"] == 0.8
    assert options.notes == [
        "train/vgg16/quarter/uncompiled: instead is compiled (with PyTorch's dropout, as training.compile has it), "
        "which takes 20 s and pays after 10,000 images; so ours is compiled, and that not counted"
    ]
    assert found["train/vgg16/quarter/70"]["limit"] == pytest.approx(125.0), "the limit is the better of the two"
    assert len(asked) == 2, "once to warm up, once to measure"


@pytest.mark.unit
def test_score_measures_the_real_path(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    monkeypatch.setattr(score, "QUICK_CASES", (("vgg16_bn", "quarter", 0.25, 70, 10),))
    monkeypatch.setattr(score, "_memory", lambda options, selector: iter(()))
    monkeypatch.setattr(score, "NEW_MODEL", ("vgg16", 0.25, 70, 10))
    monkeypatch.setattr(contenders, "SECONDS", 0.0)
    options = Options(quick=True)
    row, evaluation, new = [row.as_dict() for row in score.measure(options, source)]
    assert row["name"] == "score/vgg16_bn/quarter/70"
    assert row["ours"] > 0 and row["vs_instead"] > 0 and row["of_limit"] > 0
    assert evaluation["name"] == "score/vgg16_bn/quarter/70/evaluation" and evaluation["of_limit"] > 0
    assert new["name"] == "score/new-model/vgg16-full" and new["unit"] == "ms"
    assert new["vs_instead"] > 0 and new["of_limit"] > 0
    assert options.notes[1:] == ["score: overlap needs CIFAR-10 and a device that computes in bf16"]


@pytest.mark.unit
def test_every_selection_with_a_new_model_reads_its_file(
    monkeypatch: pytest.MonkeyPatch, source: Source, tmp_path: pathlib.Path
) -> None:
    read: list[str] = []
    load = scorer.load_model

    def watched(path: pathlib.Path) -> dict[str, Any]:
        read.append(path.name)
        return load(path)

    monkeypatch.setattr(scorer, "load_model", watched)
    monkeypatch.setattr(score, "NEW_MODEL", ("vgg16", 0.25, 20, 10))
    monkeypatch.setattr(contenders, "SECONDS", 0.0)
    (row,) = score._new_model(Options(), Selector(tmp_path, source.images, torch.device("cpu")))
    assert len(row.ours) == 3 and read == [f"new-{number}.pt" for number in range(4)], "once to warm up"


@pytest.mark.slow
@pytest.mark.process
def test_the_memory_of_a_selection_is_measured_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch, source: Source, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(score, "SIZES", (300, 600))
    (row,) = score._memory(Options(quick=True), Selector(tmp_path, source.images, torch.device("cpu")))
    assert row.name == "score/memory/600-instead-of-300"
    assert row.ours[0] > 0


@pytest.mark.unit
def test_pools_of_two_sizes_are_timed() -> None:
    found = list(pools.sizes((1000, 4000)))
    assert [row.name for row in found] == [
        f"pools/{move}/of-{size}" for move in ("draw", "offer") for size in (1000, 4000)
    ]
    assert all(len(row.ours) == pools.REPEATS for row in found)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
def test_ids_go_through_a_real_hub_and_through_queues() -> None:
    assert pools.ids_per_s(1.0) > 0
    assert pools.queue_ids_per_s(0.5) > 0
    assert pools.rows_per_s(ids=2000) > 0


@pytest.mark.process
@pytest.mark.timeout(300)
def test_draws_are_timed_for_each_client() -> None:
    ours, instead = pools.hub_draws(3, 1.0), pools.queue_gets(3, 1.0)
    assert len(ours) >= 3 and len(instead) >= 3
    assert min(ours) > 0


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("spawn", [False, True])
def test_starts_are_timed_and_nothing_is_left(spawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = [word for word in settings.WORDS["startup"] if "worker_num=10" not in word]
    monkeypatch.setitem(settings.WORDS, "startup", fewer)
    before = set(psutil.Process().children(recursive=True))
    found = end_to_end.start(spawn)
    assert 0 < found["first-query"] <= found["first-annotator"]
    assert found["training"] > 0
    assert not survivors(list(set(psutil.Process().children(recursive=True)) - before), seconds=10.0)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
def test_memory_is_told_for_every_role(tmp_path: pathlib.Path) -> None:
    prepared = data.prepare(
        resolve(
            {
                "data_type": "digits",
                "models": "cnn",
                "initial_size": 60,
                "val_size": 100,
                "prepared_dir": str(tmp_path / "images"),
            },
            "test",
        )
    )
    words = ["--config", "digits.yaml", "training.epochs=1", "annotators.seconds_per_label=0.2", "worker_query_num=4"]
    found = end_to_end.largest_seen(prepared, words)
    for role in ("server", "worker", "annotators", "hub", "main", "fork server"):
        assert found[role, "private"] > 0, role
    # Shares are read one process after another while more processes map the file: at most 1 + 1/2 + ... + 1/10 files.
    assert 0 < found["all", "images"] < 3 * (prepared / "images.npy").stat().st_size / 2**20


@pytest.mark.process
def test_a_run_that_fails_is_reported() -> None:
    why = "exit code 2: error: --config nowhere.yaml: no such file"
    with run_process.running(["--config", "nowhere.yaml"]) as run, pytest.raises(RunFailed, match=why):
        run.wait(lambda: False, limit_s=60)


@pytest.mark.unit
def test_a_run_without_a_record_has_no_numbers(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen(["true"]) as process:
        assert run_process.Run(tmp_path, process).value("select count(*) from queries") == 0


@pytest.mark.unit
def test_the_plain_loop_learns(source: Source) -> None:
    baseline = Baseline(network_of("vgg16", 0.1), source.images, GREY, torch.device("cpu"))
    assert not any(isinstance(layer, Dropout) for layer in baseline.model.modules())
    training = resolve({"data_type": "cifar-10"}, "test").training.model_copy(update={"epochs": 2})
    before, ids = baseline.probabilities(np.arange(30)), np.arange(130)
    baseline.train(ids, np.arange(200, 230), training)
    found = baseline.probabilities(np.arange(30))
    assert found.shape == (30, 10) and not torch.allclose(found, before)
    np.testing.assert_allclose(found.sum(dim=1), 1, rtol=1e-5)
    chosen = np.isin(np.arange(30), baseline.choose(np.arange(30), 5))
    entropies = torch.special.entr(found).sum(dim=1).numpy()
    assert chosen.sum() == 5 and entropies[chosen].min() >= entropies[~chosen].max()


@pytest.mark.unit
def test_the_plain_loop_keeps_its_best_epoch(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = Baseline(network_of("vgg16", 0.1), source.images, GREY, torch.device("cpu"))
    weights: list[torch.Tensor] = []

    def accuracy(self: Baseline, ids: np.ndarray) -> float:
        weights.append(next(self.model.parameters()).detach().clone())
        return [0.5, 0.9, 0.7][len(weights) - 1]

    monkeypatch.setattr(Baseline, "accuracy", accuracy)
    few = {"epochs": 4, "validate_after": 1}
    baseline.train(
        np.arange(70), np.arange(9), resolve({"data_type": "cifar-10"}, "test").training.model_copy(update=few)
    )
    assert len(weights) == 3 and not torch.equal(weights[1], weights[2])
    assert torch.equal(next(baseline.model.parameters()), weights[1])


@pytest.mark.unit
def test_a_scaling_point_is_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"servers": 1, "workers": 2, "annotators": 5, "training_s": 10.0}
    point = scaling.simulate("servers", None, size, images=1000, threshold=20, rounds=4)
    assert (point["sweep"], point["bound"], point["servers"], point["labels"]) == ("servers", None, 1, 80)
    # Five people take 5 s a label: one a second where they never wait, and they wait for the first selection alone.
    assert 0.5 < point["labels_per_s"] <= 1.5 and point["wait_s"] < 20 and point["unseen_rounds"] > 0
    assert float(point["real_s"]) >= 0
    slower = {**point, "workers": 1000, "sweep": "workers", "wait_s": 500.0}
    panels = scaling.picture([point, slower]).axes
    assert len(panels) == 12 and all(axes.get_ylim()[1] > 500 for axes in panels[:4]), "all columns share their limits"


@pytest.mark.unit
def test_accuracy_compares_two_trainings_from_the_same_weights(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    build, words = Architecture.build, [*settings.WORDS["learn"], "val_size=50", "server_train_threshold=100"]
    weights: list[torch.Tensor] = []

    def watched(architecture: Architecture, seed: int) -> torch.nn.Module:
        network = build(architecture, seed)
        weights.append(next(network.parameters()).detach().clone())
        return network

    monkeypatch.setitem(settings.WORDS, "learn", words)
    monkeypatch.setattr(Architecture, "build", watched)
    for way in accuracy.WAYS:
        assert 0 <= accuracy.train(64, 0, way, source.images.folder, accuracy._changes(["width=0.1"], epochs=1)) <= 100
    assert len(weights) == 2 and torch.equal(*weights)


@pytest.mark.unit
def test_accuracy_needs_real_images(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--data_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: --data_dir {tmp_path}: holds no folder cifar-10-batches-py\n"
    for words in (["--labels", "50000"], ["--seeds", "0"], ["--epochs", "-1"], ["--jobs", "no"]):
        with pytest.raises(SystemExit, match="2"):
            accuracy.main(words)
        assert f"argument {words[0]}: {words[1]} is not a number from 1" in capsys.readouterr().err


@pytest.mark.process
def test_ending_a_bench_ends_what_it_started() -> None:
    code = "from bench.__main__ import main\nprint('begins', flush=True)\nmain(['startup'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None and bench.stdout.readline() == "begins\n"
        family: list[psutil.Process] = []
        while not family:
            family = psutil.Process(bench.pid).children(recursive=True)
        bench.terminate()
        bench.wait(60)
    assert not survivors(family, seconds=10.0)


@pytest.mark.unit
def test_no_set_is_downloaded_for_a_bench(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="holds no folder"), harness.cifar(str(tmp_path)):
        pass
