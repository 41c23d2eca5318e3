"""The roles as tasks of one loop whose time is virtual: the same run every time, however many roles there are.

Heavy work really computes (unless `compute: none`), at one instant of virtual time; then the time passes that it costs.
A run that was interrupted is repeated from its start, which gives the same rows; models that are there are not trained
again.
"""

import asyncio
import contextlib
import contextvars
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator

import yaml

from aal.config.errors import RecordFailed, RunFailed, Stopped, UserError
from aal.config.registry import LABEL_SOURCES
from aal.context import Context, at_most_every
from aal.coordination.hub import Hub
from aal.coordination.messages import Change
from aal.coordination.parts import part_of
from aal.engines.base import Display, Engine, Plan, Role, RunResult, RunStatus, open_hub
from aal.engines.simulated.stand_ins import stand_ins
from aal.engines.simulated.virtual_time import VirtualClock, VirtualLoop
from aal.storage.earlier_record import compare, set_aside

SHOW_EVERY_S = 0.5
ROLE: contextvars.ContextVar[str] = contextvars.ContextVar("role", default="")

log = logging.getLogger("aal")


class SimulatedEngine(Engine):
    """Runs all roles in this process, on a virtual clock."""

    _hub: Hub | None = None
    _loop: VirtualLoop | None = None

    def _run(self, plan: Plan, display: Display, caught: list[str]) -> RunResult:
        _check_repeatable(plan)
        set_aside(plan.run / "run.db")
        if plan.settings.compute == "full":
            from aal.training.process import set_up_simulated  # loads PyTorch

            set_up_simulated(plan.settings)
        plan = dataclasses.replace(stand_ins(plan), resume=None)
        began = time.monotonic()
        self._loop = loop = VirtualLoop()
        clock = VirtualClock(loop, plan.settings.costs, plan.settings.seed)

        def show_now() -> None:
            display.show(dataclasses.replace(hub.status(), is_virtual=True))

        show = at_most_every(SHOW_EVERY_S, show_now)

        def notify(changes: Change) -> None:
            clock.notify(changes)
            if changes & Change.LABELS:
                show()

        self._hub = hub = open_hub(plan, clock, durable=False, notify=notify)
        failure: RunFailed | UserError | RecordFailed | None = None
        with _names_in_log():
            try:
                with asyncio.Runner(loop_factory=lambda: loop) as runner:
                    runner.run(_live(plan, hub, clock, show))
            except (RunFailed, UserError, RecordFailed) as error:
                failure = error
        show_now()  # also what came after the last look, such as a warning
        finished = hub.status().finished
        if finished:
            result = RunResult(RunStatus.FINISHED)
        elif caught:
            result = RunResult.interrupted(caught[0])
        else:
            result = RunResult.failed(failure or RunFailed("every role ended before the budget was bought"))
        unwritten = hub.close(result.ended)
        log.info("took %.1f s, of which it computed %.1f s", time.monotonic() - began, clock.computed_s)
        if unwritten:  # whatever else failed, failed because of it
            return RunResult.failed(RunFailed(unwritten))
        if differs := compare(plan.run / "run.db"):
            log.warning("%s", differs)
            display.note(differs)
        return result

    def _interrupt(self, caught: list[str]) -> None:
        if self._hub is not None and self._loop is not None and not self._loop.is_closed():
            self._hub.stop()
            self._loop.call_soon(self._hub.stop)  # once more, for a task that was just about to wait


async def _live(plan: Plan, hub: Hub, clock: VirtualClock, show: Callable[[], None]) -> None:
    """Runs every role as a task, and lets leases run out."""
    leases = asyncio.create_task(_expire_leases(hub, clock))
    try:
        async with asyncio.TaskGroup() as group:
            for role in plan.roles:
                for index in range(role.number):
                    group.create_task(_role(plan, role, index, hub, clock, show))
    except BaseExceptionGroup as failures:  # the first one is the cause of the others
        raise failures.exceptions[0] from None
    finally:
        leases.cancel()


async def _role(plan: Plan, role: Role, index: int, hub: Hub, clock: VirtualClock, show: Callable[[], None]) -> None:
    """Runs one role under its own name in the log, and reports who failed."""
    name = role.process_name(index)
    ROLE.set(f"{name}: ")

    def heartbeat() -> None:
        hub.computing()
        show()

    part = part_of(hub, role.sees, (index,))
    context = Context(name, index, plan.run, plan.settings, part, clock, heartbeat, roles=role.number)
    try:
        await role.run(context)
    except Stopped:
        return
    except UserError:
        raise
    except RunFailed as error:
        raise RunFailed(f"{name}: {error}") from None
    except Exception as error:
        log.exception("failed")
        raise RunFailed(f"{name}: {type(error).__name__}: {error}") from None


def _check_repeatable(plan: Plan) -> None:
    """Checks that a simulation would give the answers again that its record holds.

    Raises:
        UserError: they are those of another engine, or of people.
    """
    state = plan.resume
    if state is not None and state.said:
        before = yaml.safe_load(state.meta["config"])
        source = before.get("annotators", {}).get("source", "simulated")
        if before.get("engine") != "simulated" or not LABEL_SOURCES.facts(source).get("repeats"):
            raise UserError(
                f"{plan.run}: its record holds {len(state.said)} answers that a simulation cannot repeat; resume it "
                "with the engine and the label source that it began with"
            )


@contextlib.contextmanager
def _names_in_log() -> Iterator[None]:
    """Puts the name of the role before each line of the log, which all roles share."""
    handlers = list(log.handlers)
    for handler in handlers:
        handler.addFilter(_add_name)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_add_name)


def _add_name(record: logging.LogRecord) -> bool:
    if not getattr(record, "named", False):
        record.msg, record.named = f"{ROLE.get()}{record.msg}", True
    return True


async def _expire_leases(hub: Hub, clock: VirtualClock) -> None:
    """Returns what is not answered in time to S, at that very time."""
    with contextlib.suppress(Stopped):
        while True:
            deadline = await clock.until(hub.first_deadline)
            await clock.sleep(deadline - clock.now())
            hub.expire_leases()
