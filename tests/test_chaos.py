"""A short, seeded part of what `python -m bench.chaos` does at length."""

import pytest

from bench import chaos


@pytest.mark.process
@pytest.mark.timeout(240)
def test_processes_killed_at_random_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--faults", "8", "--seed", "3", "--json"]) == 0
    assert '"total": 8' in capsys.readouterr().out
