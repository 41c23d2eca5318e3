import json
import pathlib
import re
import sqlite3
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.text import Text

from aal import report as command
from aal.config.errors import UserError
from aal.reporting import pages as report
from aal.reporting import plots
from aal.reporting.labelling_plots import waits
from aal.reporting.metrics import summary_of
from aal.reporting.pictures import PICTURES, draw
from aal.reporting.record import read
from aal.reporting.timeline import Spans, timeline
from aal.reporting.training_plots import confusion
from aal.reporting.units import duration
from aal.reporting.words import in_words
from tests.builders import CONFIG, make_run, model

pytestmark = pytest.mark.unit

META = {"ended": "finished", "wall_s": "12.5", "version_python": "3.11.9", "hardware": "a | b", "free_cores": "1.3"}
CLASSES = {"classes": '["cat", "<dog>"]'}
PAGE = """\
Ended: finished.
The test set was only reported; it chose nothing. The validation set chose the epoch of each training.
| Labels: initial + bought = total | 10 + 4 = 14 |
| Labels during training | 1 (25.0 %) |
| Servers trained | 44.0 % |
| Annotators waited | 58.3 % |
| Annotator wait | 1.96 s | 1 s | 4.96 s | 5.39 s | 5.5 s |
| Labels per second | 0.5 |
| Rounds ahead (max_staleness null) | mean -, max - |
In which precision accuracies were computed is not known.
| 0 | 2 | 50.0 % | 2.25 s | 48.9 % |
| 0 | cat | 1 | 0.0 % | 4 | 75.0 % | &lt;dog&gt; (1) |
| 1 | &lt;dog&gt; | 3 | 100.0 % | 4 | 100.0 % | |
(epochs.png)
(confusion.png)
mode=sync
| Staleness when answered, versions | mean 0.5, max 2 |
| Staleness when answered | mean 500 ms, max 2 s |
| Wrong labels | 1 (25.0 %) |
(timeline.png)
| 0 | margin | 2 | 3 |
| python | 3.11.9 |
Hardware: a | b; other programs left 1.3 cores to the run, in the mean"""
CONTRACT = (
    "data_type mode engine seed labels answers trainings curve final_test_accuracy mean_curve_accuracy aubc"
    " annotator_wait_s annotators_waited query_interval_s staleness staleness_when_answered queries labels_per_s wall_s"
    " rounds_ahead eval_precision"
)
# That of S is of runs with max_staleness auto.
FILES = {
    f"{name}.{kind}"
    for name in PICTURES.keys() - {"query_pool", "targets", "clients", "annotators_confusion"}
    for kind in ("png", "pdf")
}


def summarise(run: pathlib.Path) -> dict[str, Any]:
    return summary_of(read(run))


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """10 initial labels, 4 bought; of 5 offered queries one is still open."""
    return make_run(
        tmp_path / "odd #name?",
        examples=[(i, "initial" if i < 10 else "shard", None, 0 if i == 12 else 1) for i in range(20)],
        models=[
            model(1, 0, 10, 0.0, 2.0, 0.2),
            model(2, 1, 12, 5.0, 9.0, 0.4),
            model(3, 0, 12, 6.0, 10.0, 0.6),
            model(4, 1, 14, 11.0, 12.0, 0.8),
        ],
        offers=[
            (10, 0, "margin", 1, 1, 3.0),
            (11, 0, "margin", 1, 1, 3.0),
            (12, 1, "entropy", 1, 1, 4.0),
            (13, 0, "margin", 1, 3, 10.5),
            (14, 1, "entropy", 3, 3, 10.5),
        ],
        waits=[(0, 2.0, 3.0, 10), (1, 3.0, 3.0, 11), (0, 4.0, 4.5, 12), (1, 5.0, 10.5, 13), (0, 8.0, 10.8, 14)],
        answers=[(0, 10, 0, 1, 4.0), (1, 11, 1, 1, 5.0), (2, 12, 0, 1, 8.0), (3, 13, 1, 1, 11.0)],
        selections=[
            (0, 0, "margin", 1, 2, 2.5, 3.0),
            (1, 0, "entropy", 1, 1, 3.5, 4.0),
            (0, 1, "margin", 1, 1, 9.0, 10.5),
            (1, 1, "entropy", 3, 1, 10.1, 10.5),
        ],
        meta=(META | CLASSES).items(),
        epochs=[(1, 1, 0.9, None), (1, 2, 0.5, 0.4), (4, 1, 0.8, 0.5)],
        confusion=[(1, 0, 1, 5), (4, 0, 0, 3), (4, 0, 1, 1), (4, 1, 1, 4)],
    )


def test_every_number_of_the_summary(run: pathlib.Path) -> None:
    summary = summarise(run)
    assert " ".join(summary) == CONTRACT
    assert [summary[key] for key in ("data_type", "mode", "engine", "seed")] == ["digits", "async", "local", 7]
    assert summary["labels"] == {"initial": 10, "bought": 4, "total": 14}
    second = {"version": 2, "server": 1, "labels": 12, "queries": 2}
    untested = dict.fromkeys(("test_images", "test_low", "test_high"))
    assert summary["curve"][1] == {**second, "test_accuracy": 0.4, "val_accuracy": 0.5, "seconds": 9.0, **untested}
    last = [summary["curve"][3][key] for key in untested]
    assert last == [8, pytest.approx(0.4549, abs=1e-4), pytest.approx(0.9504, abs=1e-4)]
    assert [point["version"] for point in summary["curve"]] == [1, 2, 3, 4]
    assert (summary["trainings"], summary["final_test_accuracy"], summary["wall_s"]) == (4, 0.8, 12.5)
    assert summary["mean_curve_accuracy"] == pytest.approx(0.5)
    # (10, 0.2), (12, 0.5), (14, 0.8): 2 * 0.35 + 2 * 0.65 over a span of 4
    assert summary["aubc"] == pytest.approx(0.5)
    # waits 0, 0.5, 1, 2.8, 5.5; intervals 6.5 and 7.5
    wait = {"mean": 9.8 / 5, "p50": 1.0, "p95": 2.8 + 0.8 * 2.7, "p99": 2.8 + 0.96 * 2.7, "max": 5.5}
    assert summary["annotator_wait_s"] == pytest.approx(wait)
    interval = {"mean": 7.0, "p50": 7.0, "p95": 7.45, "p99": 7.49, "max": 7.5}
    assert summary["query_interval_s"] == pytest.approx(interval)
    assert summary["staleness"] == {"mean": pytest.approx(2 / 5), "max": 2}
    # item 13 was chosen by version 1 and answered 2 s after version 2 and 1 s after version 3 came
    late = summary["staleness_when_answered"]
    assert late["versions"] == {"mean": 0.5, "max": 2} and (late["seconds"]["mean"], late["seconds"]["max"]) == (
        0.5,
        2.0,
    )
    assert summary["queries"] == {"random": 0, "held_out": 0, "withdrawn": 0, "chosen_again": 0}
    # waited 9.8 s, labelled 1 + 2 + 3.5 + 0.5 s
    assert summary["annotators_waited"] == pytest.approx(9.8 / (9.8 + 7.0))
    assert summary["labels_per_s"] == pytest.approx(4 / (11.0 - 3.0))


def test_selection_just_in_time_is_reported(tmp_path: pathlib.Path) -> None:
    """Two ids at random; item 12 is withdrawn and chosen again, item 13 withdrawn for good."""
    run = make_run(
        tmp_path / "run",
        {**CONFIG, "max_staleness": "auto"},
        examples=[(i, "shard", 0, 1) for i in range(10, 16)],
        models=[model(0, 0, 5, 0.0, 2.0, 0.2), model(1, 0, 7, 3.0, 6.0, 0.4)],
        offers=[
            *((item, 0, "random", None, None, 1.0) for item in (10, 11)),
            *((item, 0, "margin", 0, 0, 3.0) for item in (12, 13, 14)),
            (12, 0, "margin", 1, 1, 7.0),
        ],
        withdrawals=[(12, 1, 6.5), (13, 1, 6.5)],
        waits=[(0, 1.0, 1.0, 10), (1, 1.0, 1.0, 11), (0, 3.0, 3.0, 14), (1, 7.0, 7.0, 12)],
        answers=[(0, 10, 0, 1, 1.5), (1, 11, 1, 1, 5.0), (2, 14, 0, 1, 9.0), (3, 12, 1, 1, 9.5)],
        selections=[
            (0, 0, "random", None, 2, 1.0, 1.0),
            (0, 1, "margin", 0, 3, 2.5, 3.0),
            (0, 2, "margin", 1, 1, 6.2, 7.0),
        ],
        grants=[
            (0, 1, 3, 2.5, "low", 0, 0, 0, 0, None, None, 2.33),
            (0, 2, 1, 6.2, "newer model", 2, 0, 2, 1, 1.5, 0.5, 2.3),
        ],
    )
    summary = summarise(run)
    assert summary["queries"] == {"random": 2, "held_out": 0, "withdrawn": 2, "chosen_again": 1}
    assert summary["staleness"] == {"mean": 0.0, "max": 0} and summary["rounds_ahead"] == {"mean": None, "max": None}
    # item 11: at random, 3 s after version 0 came; item 14: by version 0, 3 s after version 1 came
    assert summary["staleness_when_answered"]["versions"] == {"mean": 0.5, "max": 1}
    assert summary["staleness_when_answered"]["seconds"]["mean"] == pytest.approx((0 + 3 + 3 + 0) / 4)
    assert summary["query_interval_s"]["mean"] == 4.0, "what is random is no selection"
    page = report.write_report(run).read_text()
    for row in (
        "| Selections because S was low | 1 |",
        "| Selections because a newer model was there | 1 |",
        "| Queries at random, at the start | 2 (50.0 %) |",
        "| Queries withdrawn for those of a newer model | 2, 1 of them chosen again later |",
        "| Mark, queries in S | 0 to 1, in the middle 0 |",
    ):
        assert re.search(" +".join(map(re.escape, row.split())), page), row
    assert "query_pool.png" in page and "Rounds ahead (" not in page
    (line, mark) = draw(read(run))["query_pool"].axes[0].lines
    assert np.array(line.get_xydata()).tolist() == [[1.0, 0.0], [3.0, 2.0], [6.5, 0.0], [7.0, 0.0]]
    assert np.array(mark.get_xydata()).tolist() == [[2.5, 0.0], [6.2, 1.0]]


def test_several_networks_have_a_curve_each(tmp_path: pathlib.Path) -> None:
    tests = [(10, 0.2, "vgg16"), (20, 0.1, "cnn"), (30, 0.6, "vgg16"), (40, 0.5, "cnn")]
    models = [model(v, v % 2, labels, v, v + 1, test, name) for v, (labels, test, name) in enumerate(tests)]
    run = make_run(tmp_path / "run", models=models)
    cnn, vgg = summarise(run)["networks"]
    assert (cnn["name"], cnn["final_test_accuracy"], cnn["aubc"]) == ("cnn", 0.5, pytest.approx(0.3))
    assert ([point["version"] for point in vgg["curve"]], vgg["mean_curve_accuracy"]) == ([0, 2], pytest.approx(0.4))
    report.write_report(run)


def test_final_is_the_newest_of_the_models_with_most_labels(tmp_path: pathlib.Path) -> None:
    tests = [(9, 0.1), (12, 0.3), (12, 0.2), (9, 0.9)]
    models = [model(version, 0, labels, 0, version, test) for version, (labels, test) in enumerate(tests)]
    assert summarise(make_run(tmp_path / "run", models=models))["final_test_accuracy"] == 0.2


def test_one_point_is_its_own_aubc_and_the_last_time_is_the_wall_time(tmp_path: pathlib.Path) -> None:
    summary = summarise(make_run(tmp_path / "run", models=[model(0, 0, 9, 0, 1, 0.25)]))
    assert (summary["aubc"], summary["wall_s"]) == (0.25, 1.0)


def test_the_page_describes_the_run(run: pathlib.Path) -> None:
    page = report.write_report(run)
    text = re.sub(" +", " ", page.read_text())
    assert page == run / "report" / "report.md"
    assert json.loads((run / "summary.json").read_text()) == summarise(run)
    # Only the label at 8.0 came during a training: at 5.0 and 11.0 one starts.
    # Trained 2 + 4 + 4 + 1 of 2 * 12.5 s; waited 9.8 s and labelled 1 + 2 + 3.5 + 0.5 s.
    assert [line for line in PAGE.splitlines() if line not in text] == []
    assert not list(run.glob("*.part"))


@pytest.mark.parametrize("ended", ["interrupted", "failed: server 1: out\nof memory"])
def test_a_run_that_came_to_nothing_has_a_report(tmp_path: pathlib.Path, ended: str) -> None:
    run = make_run(tmp_path / "run", meta=[("ended", ended)])
    text = report.write_report(run).read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert "Ended: " + ended.replace("\n", " ") in text
    assert "![" not in text
    assert summary["curve"] == [] and summary["labels"] == {"initial": 0, "bought": 0, "total": 0}
    assert summary["staleness"] == {"mean": None, "max": None}
    assert set(summary["annotator_wait_s"].values()) == set(summary["query_interval_s"].values()) == {None}
    for key in ("final_test_accuracy", "mean_curve_accuracy", "aubc", "labels_per_s", "wall_s"):
        assert summary[key] is None


@pytest.mark.parametrize("missing", ["models", "offers", "waits", "answers", "selections"])
def test_any_table_may_be_empty(run: pathlib.Path, missing: str) -> None:
    with sqlite3.connect(run / "run.db") as db:
        db.execute(f"delete from {missing}")
    db.close()
    assert "nan" not in report.write_report(run).read_text().lower()
    assert "NaN" not in (run / "summary.json").read_text()


def test_where_all_queries_are_equally_stale_a_sentence_says_so(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path / "run", models=[model(0, 0, 9, 0, 1, 0.5)], offers=[(50, 0, "margin", 0, 0, 2.0)])
    record = read(run)
    assert "staleness" not in draw(record)
    text = report._page("run", record, summary_of(record), ())
    assert "every query was 0 versions behind the newest model when it was offered, so" in text


def test_a_simulated_run_says_virtual_wherever_time_is(run: pathlib.Path) -> None:
    config = {**CONFIG, "engine": "simulated", "max_staleness": 1}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = re.sub(" +", " ", report._page("run", read(run), summarise(run), ()))
    for words in (
        "All times are virtual",
        "| Virtual time | 12.5 virtual s",
        "| 1.96 virtual s",
        "Labels per virtual second",
    ):
        assert words in text
    assert "Started" not in text and "| Wall time" not in text
    assert in_words(summarise(run)) == (
        "test accuracy 0.800 [0.455, 0.950] with 14 labels after 12.5 virtual s; annotators waited 58.3 % of their time"
    )
    for figure in draw(read(run)).values():
        labels = [axes.get_xlabel() for axes in figure.axes]
        assert all("virtual s" in label for label in labels if "Time" in label or "Wait (" in label)


def test_a_final_model_of_fewer_labels_than_the_run_has_is_named_as_such(run: pathlib.Path) -> None:
    with sqlite3.connect(run / "run.db") as db:
        db.execute("delete from models where version = 4")
    db.close()
    summary = summarise(run)
    assert in_words(summary).startswith(
        "test accuracy 0.600 of the model of 12 labels; 14 labels in all after 12.5 s; annotators waited"
    )
    assert re.search(r"\| 60.0 % \(of the model of 12 labels\) +\|", report._page("run", read(run), summary, ()))


def test_rounds_ahead_is_what_the_bound_counts(run: pathlib.Path) -> None:
    """Batch 1 belongs to round 1 * 2 * 3 // 4 = 1: with version 0 it is a round ahead, though no version behind."""
    config = {**CONFIG, "worker_num": 2, "query_batch": 3, "server_train_threshold": 4}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with sqlite3.connect(run / "run.db") as db:
        db.execute("update selections set version = 0")
    db.close()
    assert summarise(run)["rounds_ahead"] == {"mean": 0.5, "max": 1}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"), (9.69e-05, "96.9 µs"), (0.0655, "65.5 ms"), (4.25, "4.25 s"), (1000.0, "16.7 min"),
        (20_000.0, "5.56 h"), (None, "-"),
    ],
)  # fmt: skip
def test_times_have_units(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_names_and_settings_cannot_become_markup(tmp_path: pathlib.Path) -> None:
    config = {**CONFIG, "data_dir": "a\n```\n<script>"}
    page = report.write_report(make_run(tmp_path / "<b>run", config)).read_text()
    assert "# Run &lt;b&gt;run" in page
    assert [line for line in page.splitlines() if line.startswith(("```", "<"))] == []


def test_names_are_drawn_as_they_are_and_are_no_formulas(tmp_path: pathlib.Path) -> None:
    names = ["$x^$", r"$\frac{$", "a$b", "_own.nets:Net"]
    figure = plots.accuracy_by_labels(
        np.arange(4.0), np.arange(4.0) / 4, plots.Series(names, are_networks=True), np.zeros(4, bool)
    )
    drawn = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert drawn == [*sorted(names, key=lambda name: (len(name), name)), "initial labels", "mean"]
    classes = confusion(np.eye(4), names)
    for one in (figure, classes):
        plots.save(one, tmp_path / "picture")
        assert not any(text.get_parse_math() for text in one.findobj(Text))
    assert [tick.get_text() for tick in classes.axes[0].get_yticklabels()] == names


def test_the_line_of_every_network_is_grey_in_the_legend() -> None:
    points = (np.arange(2.0), np.arange(2.0) / 2, plots.Series(["cnn", "vgg16"], are_networks=True), np.zeros(2, bool))
    for figure in (plots.accuracy_by_labels(*points), plots.accuracy_by_time(*points)):
        legend = figure.legends[0]
        assert legend.get_texts()[-1].get_text() in ("mean", "newest")
        assert legend.get_lines()[-1].get_color() == plots.GREY
        assert [line.get_color() for line in figure.axes[0].lines if line.get_linestyle() == "-"] == [
            *plots.COLOURS[:2], plots.GREY,
        ]  # fmt: skip


def test_a_model_without_accuracy_is_no_crash(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path / "run", models=[model(0, 0, 9, 0, 1, None)])
    assert re.search(r"\| Final test accuracy +\| - +\|", report.write_report(run).read_text())


@pytest.mark.usefixtures("whole_pictures")
def test_the_same_run_draws_the_same_bytes(run: pathlib.Path) -> None:
    folder = report.write_report(run).parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    report.write_report(run)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert all(len(content) > 1000 for content in first.values())
    assert all(first[name].startswith((b"\x89PNG", b"%PDF")) for name in FILES)


@pytest.mark.usefixtures("whole_pictures")
@pytest.mark.parametrize("seconds", [[0.0], [0.0] * 50, [1e-5, 0.002, 600.0], [90.0] * 3])
def test_waits_of_every_size_draw(tmp_path: pathlib.Path, seconds: list[float]) -> None:
    plots.save(waits(np.array(seconds), np.array([0.2] * 20), 0.2), tmp_path / "waits")
    assert (tmp_path / "waits.pdf").stat().st_size > 1000


@pytest.mark.usefixtures("whole_pictures")
def test_a_big_run_draws(tmp_path: pathlib.Path) -> None:
    labels, annotators, workers = 50_000, 1000, 64
    examples = [(i, "shard", i % workers, 1) for i in range(labels)]
    offered = np.linspace(0, 400, labels).tolist()
    run = make_run(
        tmp_path / "run",
        examples=examples,
        models=[model(v, v % 8, 100 * v, 10.0 * v, 10.0 * v + 30, v / 50) for v in range(40)],
        offers=[(i, i % workers, "margin", 0, 0, t) for i, t in enumerate(offered)],
        waits=[(i % annotators, t, t + i % 3, i) for i, t in enumerate(offered)],
        answers=[(i, i, i % annotators, 1, t + 8) for i, t in enumerate(offered)],
        selections=[(i % workers, i // workers, "margin", 0, 40, t, t + 1) for i, t in enumerate(offered[::40])],
    )
    folder = report.write_report(run).parent
    drawn = {name for name in FILES if not name.startswith(("epochs", "confusion"))}
    assert {path.name for path in folder.iterdir()} == drawn | {"report.md"}
    text = (folder / "report.md").read_text()
    assert "Of 1,000, the 40 with most wrong labels." in text
    assert max(path.stat().st_size for path in folder.iterdir()) < 500_000


def test_the_timeline_says_who_waited_and_shows_the_shortest_selection() -> None:
    one = Spans(np.array([0.0]), np.array([10.0]), np.array([100.0]))
    short = Spans(np.zeros(3), np.array([0.0, 50.0, 50.1]), np.array([1e-4, 50.0001, 50.2]))
    people = Spans(np.array([0.0, 1.0]), np.array([5.0, 5.0]), np.array([90.0, 60.0]))
    figure = timeline(one, short, people, 2, breaks=[20.0], waited=0.25, shares=np.array([0.1, 0.4]), virtual=True)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["waited 10.0 %", "waited 40.0 %"]
    assert "dotted: the run was interrupted here" in figure.axes[-1].get_xlabel()
    widths = [bar.get_extents().width for bar in figure.axes[1].collections[-1].get_paths()]
    assert widths[0] == pytest.approx(0.4) and widths[1] == pytest.approx(0.1), "never over the next one"


@pytest.mark.usefixtures("whole_pictures")
def test_many_labels_in_lanes_stay_small(tmp_path: pathlib.Path) -> None:
    start = np.arange(50_000, dtype=float)
    none = Spans(*np.empty((3, 0)))
    spans = Spans(start % 10, start, start + 9)
    plots.save(timeline(none, none, spans, annotators=10), tmp_path / "timeline")
    assert (tmp_path / "timeline.pdf").stat().st_size < 500_000


def test_the_command_reports_a_mistake_in_one_line(
    run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report" / "report.md")
    assert command.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: is no run directory, it has no run.db\n"


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "holds nothing: the run has not begun"), (b"not a database" * 100, "cannot be read")]
)
def test_a_damaged_record_is_reported(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "run.db").write_bytes(content)
    with pytest.raises(UserError, match=rf"run\.db: {message}"):
        summarise(tmp_path)
