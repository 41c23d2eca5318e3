"""Asynchronous active learning: training, selecting and labelling at once, none waiting for another.

`aal.run("digits.yaml")` runs a config, `aal.load_run("runs/digits")` opens what a run left behind. Both are imported
when they are used, so that `import aal` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aal.api import Run, load_run, run
    from aal.config.errors import RunFailed, UserError

__version__ = "0.1.0"
__all__ = ["Run", "RunFailed", "UserError", "load_run", "run"]

_HOMES = {
    "Run": "aal.api",
    "load_run": "aal.api",
    "run": "aal.api",
    "RunFailed": "aal.config.errors",
    "UserError": "aal.config.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aal' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
