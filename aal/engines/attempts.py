"""A run goes on from `run.db` when its hub is lost, whatever engine it is on."""

import dataclasses
import logging
from collections.abc import Callable, Sequence

from aal.config.errors import RunFailed
from aal.engines.base import Display, Plan, RunResult
from aal.engines.processes import HubLost
from aal.storage.resume_state import take_over

log = logging.getLogger("aal")


def run_to_its_end(
    plan: Plan, display: Display, caught: Sequence[str], attempt: Callable[[Plan], RunResult]
) -> RunResult:
    """Makes attempts to run, each with a hub of its own, until one comes to an end.

    Args:
        plan: of the run.
        display: where it is shown that a hub is lost.
        caught: names of the signals that came.
        attempt: runs a plan until its end; raises `HubLost` when the hub is gone, and says why.

    Raises:
        RunFailed: the hub was lost, and may not be replaced once more.
    """
    settings, restarts = plan.settings, 0
    while True:
        try:
            return attempt(plan)
        except HubLost as loss:
            if caught:
                return RunResult.interrupted(caught[0])
            if settings.on_failure == "stop":
                raise RunFailed(str(loss)) from None
            if restarts >= settings.restart_limit:
                raise RunFailed(f"{loss}; restart_limit={restarts} is reached") from None
            restarts += 1
            display.note(f"{loss}; going on from run.db ({restarts} of {settings.restart_limit})")
            log.warning("%s; going on from run.db", loss)
            plan = dataclasses.replace(plan, resume=take_over(plan.run / "run.db"))
