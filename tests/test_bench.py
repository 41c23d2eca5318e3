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
from aal.app.models import Dropout, build_model
from aal.config.errors import RunFailed, UserError
from aal.config.loading import resolve
from aal.training.networks import Architecture
from bench import __main__ as command
from bench import accuracy, bare, images, memory, plain, pools, score, sizes, startup, table, train, whole
from bench.chaos import survivors
from bench.images import Source
from bench.options import Options
from bench.table import Row

KEYS = ["name", "unit", "ours", "instead", "limit", "vs_instead", "of_limit", "spread"]


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[Source]:
    """A small set of random images."""
    monkeypatch.setattr(images, "NUMBER", 600)
    monkeypatch.setattr(images, "TEST", 100)
    monkeypatch.setattr(images, "CHUNK", 100)
    with images.made_up("cifar-10", images.CIFAR, classes=10) as folder:
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
    found = table.alternate(2, {name: functools.partial(next, turns) for name in "abc"})
    assert found == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}


@pytest.mark.unit
def test_the_table_is_markdown() -> None:
    lines = table.markdown([Row("pools/ids", "ids/s", [12345.0, 12345.0], [0.123456])]).splitlines()
    assert len(lines) == 3
    assert lines[2] == "| pools/ids | ids/s | 12,345 | 0.123 |  | 99995.14 |  | 0 % |"


@pytest.mark.unit
def test_json_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Source
) -> None:
    class Given:
        def __enter__(self) -> Source:
            return source

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(command, "cifar", lambda data_dir: Given())
    monkeypatch.setattr(pools, "measure", lambda options, source: iter([Row("pools/ids", "ids/s", [1.0])]))
    assert command.main(["pools", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["rows", "machine", "versions"]
    assert [list(row) for row in told["rows"]] == [KEYS]
    assert told["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert told["machine"]["notes"] == ["images: random images; speed does not depend on the pixels"]
    assert told["versions"]["torch"] == importlib.metadata.version("torch")
    assert command.main(["pools"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("| pools/ids | ids/s | 1 |")


@pytest.mark.unit
def test_mistakes_are_told(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["trian"])
    assert "there is no part trian; there are: score, train" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main(["--threads", "0"])
    assert "argument --threads: 0 is not a number from 1" in capsys.readouterr().err
    assert command.main(["pools", "--data_dir", str(tmp_path)]) == 2
    assert "holds no folder cifar-10-batches-py" in capsys.readouterr().err


@pytest.mark.unit
def test_train_measures_the_real_path(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    monkeypatch.setattr(train, "QUICK_CASES", (("quarter", 0.25, 70, 1, 1),))
    monkeypatch.setattr(bare, "SECONDS", 0.0)
    monkeypatch.setattr(bare.Bare, "compile", lambda self: None)
    options = Options(quick=True)
    rows = {row.name: row.as_dict() for row in train.measure(options, source)}
    assert list(rows) == ["train/vgg16/quarter/70"]
    for row in rows.values():
        assert row["ours"] > 0 and row["vs_instead"] > 0 and row["of_limit"] > 0
    assert options.notes == ["train/vgg16/quarter/uncompiled: PyTorch cannot compile here"]


@pytest.mark.unit
def test_whether_compiling_pays_is_told(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    rates = {False: 100.0, True: 125.0}
    monkeypatch.setattr(train, "QUICK_CASES", (("quarter", 0.25, 70, 1, 1),))
    monkeypatch.setattr(bare.Bare, "compile", lambda self: 20.0)
    monkeypatch.setattr(
        bare.Bare, "train_rate", lambda self, is_compiled=None: rates[self.is_compiled or bool(is_compiled)]
    )
    monkeypatch.setattr(bare.Bare, "score_rate", lambda self: 1e12)
    asked = []

    def compiled(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        asked.append(device)
        return model

    monkeypatch.setattr("aal.app.server_train.compile_network", compiled)
    options = Options(quick=True)
    rows = {row.name: row.as_dict() for row in train.measure(options, source)}
    assert rows["train/vgg16/quarter/uncompiled"]["vs_instead"] == 0.8
    assert options.notes == [
        "train/vgg16/quarter/uncompiled: instead is compiled (with PyTorch's dropout, as training.compile has it), "
        "which takes 20 s and pays after 10,000 images; so ours is compiled, and that not counted"
    ]
    assert rows["train/vgg16/quarter/70"]["limit"] == pytest.approx(125.0), "the limit is the better of the two"
    assert len(asked) == 2, "once to warm up, once to measure"


@pytest.mark.unit
def test_score_measures_the_real_path(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    monkeypatch.setattr(score, "QUICK_CASES", (("vgg16_bn", "quarter", 0.25, 70, 10),))
    monkeypatch.setattr(score, "_memory", lambda options, source, run: iter(()))
    options = Options(quick=True)
    row, evaluation = [row.as_dict() for row in score.measure(options, source)]
    assert row["name"] == "score/vgg16_bn/quarter/70"
    assert row["ours"] > 0 and row["vs_instead"] > 0 and row["of_limit"] > 0
    assert evaluation["name"] == "score/vgg16_bn/quarter/70/evaluation" and evaluation["of_limit"] > 0
    assert options.notes == ["score: overlap needs CIFAR-10 and a device that computes in bf16"]


@pytest.mark.process
def test_the_memory_of_a_selection_is_measured_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch, source: Source, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(score, "SIZES", (300, 600))
    (tmp_path / "models").mkdir()
    (row,) = score._memory(Options(quick=True), source, tmp_path)
    assert row.name == "score/memory/600-instead-of-300"
    assert row.ours[0] > 0


@pytest.mark.unit
def test_pools_of_two_sizes_are_timed() -> None:
    rows = list(sizes.rows((1000, 4000)))
    assert [row.name for row in rows] == [
        f"pools/{move}/of-{size}" for move in ("draw", "offer") for size in (1000, 4000)
    ]
    assert all(len(row.ours) == sizes.REPEATS for row in rows)


@pytest.mark.process
@pytest.mark.timeout(300)
def test_ids_go_through_a_real_hub_and_through_queues() -> None:
    assert pools.ids_per_s(1.0) > 0
    assert pools.queue_ids_per_s(0.5) > 0
    assert pools.rows_per_s(ids=2000) > 0


@pytest.mark.process
@pytest.mark.timeout(300)
def test_draws_are_timed_for_each_client() -> None:
    ours, instead = pools._of_desk(3, 1.0), pools._of_queue(3, 1.0)
    assert len(ours) >= 3 and len(instead) >= 3
    assert min(ours) > 0


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("spawn", [False, True])
def test_starts_are_timed_and_nothing_is_left(spawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "WORDS", [word for word in startup.WORDS if "worker_num=10" not in word])
    before = set(psutil.Process().children(recursive=True))
    found = startup._start(spawn)
    assert 0 < found["first-query"] <= found["first-annotator"]
    assert found["training"] > 0
    assert not survivors(list(set(psutil.Process().children(recursive=True)) - before), seconds=10.0)


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
    words = ["--config", "digits.yaml", "training.epochs=1", "annotators.seconds_per_label=0.05", "worker_query_num=2"]
    found = memory._watch(prepared, words)
    for role in ("server", "worker", "annotators", "hub", "main", "fork server"):
        assert found[role, "private"] > 0, role
    assert 0 < found["all", "images"] < 2 * (prepared / "images.npy").stat().st_size / 2**20


@pytest.mark.process
def test_a_run_that_fails_is_told(tmp_path: pathlib.Path) -> None:
    with whole.running(tmp_path / "run", ["--config", "nowhere.yaml"]) as process, pytest.raises(RunFailed):
        whole.wait_for(process, lambda: False, limit_s=60)


@pytest.mark.unit
def test_a_run_without_a_record_has_no_numbers(tmp_path: pathlib.Path) -> None:
    assert whole.value(tmp_path, "select count(*) from queries") == 0


@pytest.mark.unit
def test_the_plain_loop_learns(source: Source) -> None:
    model = plain.with_plain_dropout(build_model("vgg16", classes=10, channels=3, image_size=32, width=0.1, seed=0))
    assert not any(isinstance(layer, Dropout) for layer in model.modules())
    training = resolve({"data_type": "cifar-10"}, "test").training.model_copy(update={"epochs": 2})
    normalisation = {"mean": [0.5] * 3, "std": [0.25] * 3}
    epochs: list[int] = []
    arguments: dict[str, Any] = {"normalisation": normalisation, "device": torch.device("cpu")}
    plain.train(model, source.images, np.arange(130), training=training, after_epoch=epochs.append, **arguments)
    assert epochs == [1, 2]
    found = plain.probabilities(model, source.images, np.arange(30), **arguments)
    assert found.shape == (30, 10)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.unit
def test_accuracy_compares_two_trainings_from_the_same_weights(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    resolved, built = resolve, Architecture.build
    weights: list[torch.Tensor] = []

    def smaller(tree: dict[str, Any], where: str) -> Any:
        return resolved({**tree, "val_size": 50, "server_train_threshold": 100}, where)

    def watched(*args: Any, **kwargs: Any) -> Any:
        network = built(*args, **kwargs)
        weights.append(next(network.parameters()).detach().clone())
        return network

    monkeypatch.setattr(accuracy, "resolve", smaller)
    monkeypatch.setattr(Architecture, "build", watched)
    for way in accuracy.WAYS:
        assert 0 <= accuracy.train(way, source.images.folder, labels=64, seed=0, epochs=1) <= 100
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
    code = "import bench.startup as s\nfrom bench.__main__ import main\nprint('begins', flush=True)\nmain(['startup'])"
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
    with pytest.raises(UserError, match="holds no folder"), images.cifar(str(tmp_path)):
        pass
