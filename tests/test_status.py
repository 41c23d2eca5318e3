"""How far a run is: the hub says it with the words, and in the sense, of the report."""

import pathlib

import pytest

from aal.coordination.messages import Status, Training
from aal.engines.simulated import engine
from aal.reporting.metrics import summary_of
from aal.reporting.record import read
from aal.storage.resume_state import read_resume_state
from tests.builders import imagined_plan, make_hub, make_settings

pytestmark = pytest.mark.unit


class Seen:
    """A display that keeps what it is shown."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []

    def show(self, status: Status) -> None:
        self.statuses.append(status)

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def test_labels_per_second_of_bar_and_report_are_the_same(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SHOW_EVERY_S", 0.0)
    display = Seen()
    engine.SimulatedEngine().run(imagined_plan(tmp_path, 1000), display)
    (tmp_path / "config.yaml").write_text("mode: async\n")
    summary, last = summary_of(read(tmp_path)), display.statuses[-1]
    assert last.labels == summary["labels"]["bought"] == last.budget
    assert last.labels_per_s == pytest.approx(summary["labels_per_s"])
    assert last.is_virtual and last.initial == summary["labels"]["initial"]
    state = read_resume_state(tmp_path / "run.db")
    assert state is not None and state.answering[0] is not None and state.answering[1] is not None
    assert summary["labels"]["bought"] / (state.answering[1] - state.answering[0]) == pytest.approx(last.labels_per_s)


def test_a_status_names_the_trainings_that_go_on() -> None:
    hub, clock = make_hub(make_settings(server_num=2))
    assert hub.status().labels_per_s is None and not hub.status().trainings
    clock.time = 3.0
    hub.job(1)
    clock.time = 5.0
    assert list(hub.status().trainings) == [Training(server=1, labels=4, seconds=2.0)]
