"""How the benches are to measure, and what they have to say besides figures."""

import argparse
import os
import sys
from dataclasses import dataclass, field


def at_least_one(word: str, most: int = sys.maxsize) -> int:
    """Reads a number of a command line, for argparse."""
    number = int(word) if word.isdecimal() else 0
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(
            f"{word} is not a number from 1" + (f" to {most}" if most < sys.maxsize else "")
        )
    return number


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
