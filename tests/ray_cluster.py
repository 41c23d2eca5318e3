"""Runs on a Ray cluster whose machines share no folder."""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from aal.app.data import save_split
from aal.config.ray import RaySettings
from aal.engines.base import Plan
from bench.machines import Machines
from tests.builders import query, wait_for
from tests.test_faults import plan_of


def on(machines: Machines, plan: Plan, pins: Mapping[Any, str] | None = None, **changes: Any) -> Plan:
    """Returns a plan for a cluster, whose machines share nothing."""
    ray = RaySettings(address=machines.address, shared_folder=False, wait_s=5.0, pins=dict(pins or {}))
    return dataclasses.replace(plan, settings=plan.settings.model_copy(update={"engine": "ray", "ray": ray, **changes}))


def imagined(machines: Machines, run: pathlib.Path, labels: int = 60, **changes: Any) -> Plan:
    """A run on a cluster whose roles compute nothing."""
    pins = changes.pop("pins", None)
    plan = plan_of(run, labels=labels, hung_after_s=changes.pop("hung_after_s", 60.0), **changes)
    save_split(dataclasses.replace(plan.partition, mean=np.zeros(1, np.float32)), run / "split.npz")
    return on(machines, plan, pins)


def pid_of(run: pathlib.Path, name: str) -> int:
    """Returns the number of the newest process of a slot, which the log names."""
    found: list[str] = []

    def has_started() -> bool:
        text = (run / "log.txt").read_text() if (run / "log.txt").exists() else ""
        found[:] = re.findall(rf"^\S+ \S+ {name} (\d+) INFO started$", text, re.M)
        return bool(found)

    wait_for(has_started)
    return int(found[-1])


def answered(run: pathlib.Path) -> int:
    """Returns how many answers are on disk."""
    with contextlib.suppress(Exception):  # until there is a table
        return int(query(run, "select count(*) from answers")[0][0])
    return 0


def is_exact(run: pathlib.Path, labels: int) -> bool:
    """Whether a run has as many answers as it was to have, one an image."""
    return query(run, "select count(*), count(distinct item), count(label) from queries") == [(labels, labels, labels)]
