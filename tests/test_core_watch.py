"""What other programs leave of the machine is measured while a run goes on, passed to the roles, and reported."""

import logging
from typing import Any

import pytest

from aal.engines.local import core_watch
from aal.engines.local.core_watch import CoreWatch

pytestmark = pytest.mark.unit


class Noted:
    """A monitor and a display that keep what they are given."""

    def __init__(self) -> None:
        self.shared: list[float] = []
        self.notes: list[str] = []

    def share_cores(self, free_cores: float) -> None:
        self.shared.append(free_cores)

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_cores_are_shared_out_and_a_busy_machine_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, free = [0.0], [8.0]

    class Fake:
        most = 8.0

        def measure(self) -> float:
            return free[0]

    monkeypatch.setattr(core_watch, "FreeCores", Fake)
    monkeypatch.setattr(core_watch.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "aal")
    noted: Any = Noted()
    watch = CoreWatch(noted)
    watch.share(noted)
    for second in range(1, 61):
        now[0], free[0] = float(second), 2.0 if 15 < second < 42 else 8.0
        watch.look(noted)
    assert len(noted.shared) == 31, "every two seconds"
    assert noted.shared[5:10] == [8.0, 8.0, 8.0, 2.0, 2.0]
    busy, free_again = (record.getMessage() for record in caplog.records)
    assert busy == "other programs use this machine and leave 4.4 of 8 CPU cores to the run"
    assert free_again == "other programs use this machine less now and leave 8.0 of 8 CPU cores to the run"
    assert noted.notes == [busy], "the screen shows it once"
