"""A short, seeded part of what `python -m bench.chaos` does at length."""

import pytest

from bench import chaos


@pytest.mark.process
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("words", "faults"), [(["--faults", "8"], 8), (["--each", "1", "--mode", "federated"], 7)])
def test_processes_that_are_killed_lose_nothing(
    capsys: pytest.CaptureFixture[str], words: list[str], faults: int
) -> None:
    assert chaos.main([*words, "--seed", "3", "--json"]) == 0
    assert f'"total": {faults}' in capsys.readouterr().out
