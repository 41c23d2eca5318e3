"""What a role is given: it knows nothing of processes, machines or virtual time."""

import pathlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from aal.config.settings import Settings
from aal.coordination.clock import Clock

H_co = TypeVar("H_co", covariant=True)


@dataclass(frozen=True)
class Context(Generic[H_co]):
    """What a role is given.

    Attributes:
        name: of its process, as in the log.
        index: its number among those of its kind.
        run: the run directory, which model paths are relative to.
        settings: of the run.
        hub: its part of the hub: a `ServerHub`, a `WorkerHub` or an `AnnotatorHub`.
        clock: the run's time.
        heartbeat: to be called during long work; raises `Stopped` once the run is over.
        roles: how many of its kind there are.
        incarnation: of its process, 0 for the first in its place; it is in the names of the files that it writes.
        arriving: `.npy` files of which this machine holds only the rows that were read here; what is to be called with
            rows (n,) before they are read.
    """

    name: str
    index: int
    run: pathlib.Path
    settings: Settings
    hub: H_co
    clock: Clock
    heartbeat: Callable[[], None]
    incarnation: int = 0
    roles: int = 1
    arriving: Mapping[pathlib.Path, Callable[[np.ndarray], None]] = field(default_factory=dict)


def at_most_every(seconds: float, act: Callable[[], None]) -> Callable[[], None]:
    """Returns a function that calls `act` when it is called and `seconds` have passed since the last time."""
    last = -seconds

    def call() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            act()

    return call
