"""Imported first by the fork server: it, and all that it forks, are killed when the program that started it is gone.

The kernel does that, so it holds for a process that is stopped, or still imports PyTorch, which takes seconds.
"""

import os

from aal.engines.local.parent_death import PARENT, die_with

_self = os.getpid()


def _in_child() -> None:
    global _self
    parent, _self = _self, os.getpid()
    die_with(parent)


_parent = os.environ.pop(PARENT, None)
die_with(None if _parent is None else int(_parent))
os.register_at_fork(after_in_child=_in_child)
