"""Schedules: who may do what next. A file for each; `mode` in a config names one."""

from typing import TYPE_CHECKING

from aal.config.registry import SCHEDULES
from aal.config.settings import Settings

if TYPE_CHECKING:
    from aal.coordination.schedules.base import Schedule


def schedule_of(settings: Settings) -> "type[Schedule]":
    """Returns the class of the schedule that the settings ask for."""
    schedule: type[Schedule] = SCHEDULES.load(settings.mode)
    if settings.mode == "async" and settings.max_staleness == "auto":
        from aal.coordination.schedules.just_in_time import JustInTime

        return JustInTime
    if settings.mode == "federated" and settings.federated and settings.federated.asynchronous:
        from aal.coordination.schedules.federated_asynchronous import FederatedAsynchronous

        return FederatedAsynchronous
    return schedule
