"""Several runs in one picture: groups, statistics at equal labels, and the reasons why runs cannot be compared."""

import csv
import pathlib
import re

import numpy as np
import pytest

from aal import report as command
from aal.reporting.comparison import write_comparison
from aal.reporting.groups import by_labels, by_time, grouped, whole_runs
from tests.builders import CONFIG, make_run, model

pytestmark = pytest.mark.unit


def runs_of_two_strategies(folder: pathlib.Path) -> list[pathlib.Path]:
    """margin: seeds 0 and 1 with curves that end at 30 and 20 labels; random: seed 0."""
    curves = {
        ("margin", 0): [(10, 0.2), (20, 0.6), (30, 0.8)],
        ("margin", 1): [(10, 0.4), (15, 0.5), (20, 0.8)],
        ("random", 0): [(10, 0.2), (30, 0.5)],
    }
    runs = []
    for (strategy, seed), points in curves.items():
        config = {**CONFIG, "query_strategy": strategy, "seed": seed, "name": f"{strategy}-{seed}"}
        models = [model(v, 0, labels, v, v + 1, test) for v, (labels, test) in enumerate(points)]
        waits = [(0, 0.0, 1.0, 50)] if strategy == "margin" else []
        name = f"{strategy}-{seed}"
        runs.append(make_run(folder / name, config, models=models, waits=waits, offers=[(50, 0, strategy, 0, 0, 0.5)]))
    return runs


def test_runs_that_differ_in_the_seed_alone_are_a_group(tmp_path: pathlib.Path) -> None:
    groups = grouped(runs_of_two_strategies(tmp_path))
    assert {name: len(runs) for name, runs in groups.items()} == {
        "query_strategy=margin": 2,
        "query_strategy=random": 1,
    }
    counts, accuracy = by_labels(groups["query_strategy=margin"])
    assert counts.tolist() == [10, 15, 20]
    np.testing.assert_allclose(accuracy, [[0.2, 0.4, 0.6], [0.4, 0.5, 0.8]])
    times, newest = by_time(groups["query_strategy=margin"])
    assert (times[0], times[-1]) == (1, 3)
    np.testing.assert_allclose(newest[:, [0, -1]], [[0.2, 0.8], [0.4, 0.8]])


def test_the_command_writes_picture_points_and_page(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = runs_of_two_strategies(tmp_path), tmp_path / "out"
    assert command.main([*map(str, runs), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "comparison.md")
    assert {path.name for path in out.iterdir()} == {f"comparison.{kind}" for kind in ("md", "csv", "png", "pdf")}
    page = re.sub(" +", " ", (out / "comparison.md").read_text())
    assert "# 3 runs compared" in page
    # Final 0.8 and 0.8; the areas are 0.55 and (0.45 * 5 + 0.65 * 5) / 10 = 0.55.
    assert "| query_strategy=margin | 2 | 2 | 0 ± 0 | 80.0 ± 0.0 | 0.550 ± 0.000 |" in page
    assert "| 10 | 30.0 ± 14.1 | 20.0 |" in page
    assert "| query_strategy=margin | 100.0 ± 0.0 | 1.00 ± 0.00 |" in page
    assert "| query_strategy=random | - | - |" in page
    with (out / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert (rows[4]["group"], rows[4]["seed"], rows[4]["labels"]) == ("query_strategy=margin", "1", "15")
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_each_network_of_a_run_is_a_group_and_the_run_waits_once(tmp_path: pathlib.Path) -> None:
    tests = [(10, 0.2, "cnn"), (20, 0.1, "vgg16"), (30, 0.6, "cnn"), (40, 0.5, "vgg16")]
    models = [model(v, v % 2, labels, v, v + 1, test, name) for v, (labels, test, name) in enumerate(tests)]
    config = {**CONFIG, "engine": "simulated"}
    mixed = make_run(tmp_path / "mixed", {**config, "max_staleness": None}, models=models, waits=[(0, 0.0, 1.0, 50)])
    plain = make_run(tmp_path / "plain", {**config, "max_staleness": 1}, models=models[::2])
    groups = grouped([mixed, plain])
    names = ["max_staleness=null, network cnn", "max_staleness=null, network vgg16", "max_staleness=1"]
    assert list(groups) == names
    assert [runs[0].summary["final_test_accuracy"] for runs in groups.values()] == [0.6, 0.5, 0.6]
    assert {name: len(runs) for name, runs in whole_runs(groups).items()} == {"max_staleness=null": 1, names[2]: 1}
    page = write_comparison([mixed, plain], tmp_path / "out").read_text()
    text = re.sub(" +", " ", page)
    assert "# 2 runs compared" in text and "mean wait (virtual s)" in text
    assert "| max_staleness=null | 100.0 | 1.00 |" in text


def test_curves_with_nothing_in_common_still_make_a_picture(tmp_path: pathlib.Path) -> None:
    early = make_run(tmp_path / "early", models=[model(0, 0, 10, 0, 1, 0.2)])
    late = make_run(tmp_path / "late", models=[model(0, 0, 20, 5, 6, 0.4)])
    assert command.main([str(early), str(late), "--out", str(tmp_path / "out")]) == 0
    assert "no label counts in common" in (tmp_path / "out" / "comparison.md").read_text()


def test_runs_that_cannot_be_compared_are_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = make_run(tmp_path / "digits", models=[model(0, 0, 10, 0, 1, 0.2)])
    cifar = make_run(tmp_path / "cifar", {**CONFIG, "data_type": "cifar-10"}, models=[model(0, 0, 10, 0, 1, 0.2)])
    empty = make_run(tmp_path / "empty")
    out = ["--out", str(tmp_path / "out")]
    for other, reason in ((cifar, "runs of different data sets"), (empty, "no curve"), (tmp_path, "no run.db")):
        assert command.main([str(digits), str(other), *out]) == 2
        error = capsys.readouterr().err
        assert reason in error and str(other) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
