"""Engines: where the roles of a run are run. `engine` in a config names one."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aal.engines.base import Engine

ENGINES = {
    "local": ("aal.engines.local.engine", "LocalEngine"),
    "ray": ("aal.engines.ray.engine", "RayEngine"),
    "simulated": ("aal.engines.simulated.engine", "SimulatedEngine"),
}


def engine_named(name: str) -> "Engine":
    """Returns the engine of a name; only its own modules are imported."""
    module, engine = ENGINES[name]
    made: Engine = getattr(importlib.import_module(module), engine)()
    return made
