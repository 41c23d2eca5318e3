"""The bench of the strategies, in small; and the memory of a million rows."""

import pytest

from bench import contenders, select, select_baselines
from bench.rows import Options
from bench.select import told
from tests.test_bench import source  # noqa: F401 - a fixture


@pytest.mark.unit
def test_every_strategy_is_timed(monkeypatch: pytest.MonkeyPatch, source: object) -> None:  # noqa: F811
    monkeypatch.setattr(select, "QUICK_SIZE", (1200, 8, 20))
    monkeypatch.setattr(select, "LABELLED", 40)
    monkeypatch.setattr(select, "QUICK_BALD_SIZE", (60, 4, 10))
    monkeypatch.setattr(select, "QUICK_PASSES_SIZE", (20, 2, 5))
    monkeypatch.setattr(select, "_memory", lambda options: iter(()))
    monkeypatch.setattr(contenders, "SECONDS", 0.0)
    rows = list(select.measure(Options(quick=True), source))  # type: ignore[arg-type]
    assert [row.name.split("/")[1] for row in rows] == [
        *("coreset", "badge", "typiclust", "cluster_margin", "batchbald", "bald", "committee")
    ]
    for row in rows:
        assert row.unit == "s" and row.ours[0] > 0 and row.instead and row.limit and row.limit[0] > 0


@pytest.mark.unit
def test_the_baselines_choose() -> None:
    model = told(1000, 8, labelled=50)
    chosen = select_baselines.typiclust(model.embeddings, 1000, 30)
    assert len(set(chosen)) == 30 and max(chosen) < 1000
    near = select_baselines.cluster_margin(model.embeddings, model.probabilities, 1000, 30)
    assert len(set(near.tolist())) == 30


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "count"), [("coreset", 100), ("cluster_margin", 1000)])
def test_a_choice_from_a_million_takes_less_than_a_gibibyte(name: str, count: int) -> None:
    assert select.memory_of(name, 1_000_000, 64, count, threads=1)[1] < 1024
