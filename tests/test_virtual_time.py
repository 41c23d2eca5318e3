"""Virtual time goes on however long a run is."""

import asyncio

import pytest

from aal.engines.simulated.virtual_time import VirtualLoop

pytestmark = pytest.mark.unit


@pytest.mark.timeout(20)
@pytest.mark.parametrize("seconds", [0.1, 1e7, 1e8])
def test_waits_end_at_any_time(seconds: float) -> None:
    """From three months on, a billionth of a second more is the same number; asyncio then took nothing as due."""
    loop = VirtualLoop()

    async def wait() -> None:
        for pause in (seconds, seconds / 3, 0.1, 1e-9):
            await asyncio.sleep(pause)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(wait())
    assert loop.time() == pytest.approx(seconds * 4 / 3 + 0.1)
