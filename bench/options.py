"""How the benches are to measure, and what they have to say besides figures."""

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """The command's options.

    Attributes:
        quick: fewer rounds and smaller sizes; the names of the rows tell the sizes.
        threads: CPU threads of the process that trains or scores.
        data_dir: where CIFAR-10 is; None for the default.
        full: whole runs as their config has them, not a smaller one.
        notes: sentences for the reader of the table.
    """

    quick: bool = False
    threads: int = 1
    data_dir: str | None = None
    full: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def cores(self) -> int:
        """CPU cores that this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def rounds(self) -> int:
        """How often each contender measures itself."""
        return 1 if self.quick else 3
