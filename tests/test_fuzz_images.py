"""Image sets at random: a short part of what `python -m bench.fuzz_images` does at length."""

import pytest

from bench.fuzz_images import fuzz

pytestmark = pytest.mark.unit


def test_sets_at_random_are_opened_or_refused() -> None:
    found = fuzz(sets=80, seed=1)
    assert not found["failures"]
    assert found["opened"] and found["refused"]
