"""What a bench reports: rows of medians and ratios, as a Markdown table or as one JSON object."""

import argparse
import os
import pathlib
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil
import yaml
from tabulate import tabulate

from aal.config.cores import core_count
from bench.settings import FOLDER

LESS_IS_BETTER = ("s", "ms", "us", "MiB", "% idle", "ppm", "times")
NOTES = yaml.safe_load((FOLDER / "notes.yaml").read_text(encoding="utf-8"))

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """The command's options."""

    quick: bool = False  # fewer rounds and smaller sizes; the names of the rows give the sizes
    threads: int = 1  # of the process that trains or scores
    full: bool = False  # end-to-end runs as their config has them, not smaller ones
    notes: list[str] = field(default_factory=list)  # sentences for the reader of the table

    @property
    def rounds(self) -> int:
        """How often each contender measures itself."""
        return 1 if self.quick else 3

    def note(self, key: str, **values: Any) -> None:
        """Adds a sentence of `notes.yaml` for the reader of the table."""
        self.notes.append(NOTES[key].format(**values))


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured of ours, of what a user would write instead, and of the best there is."""

    name: str  # begins with the part's name
    unit: str  # of those in LESS_IS_BETTER a smaller value is better
    ours: Sequence[float]
    instead: Sequence[float] | None = None
    limit: Sequence[float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns medians, ratios that are above 1 where ours is the better, and half the range of ours as a share."""
        ours, half = statistics.median(self.ours), (max(self.ours) - min(self.ours)) / 2
        instead, limit = (statistics.median(values) if values else None for values in (self.instead, self.limit))
        power = -1 if self.unit in LESS_IS_BETTER else 1
        vs, of = ((ours / other) ** power if ours and other else None for other in (instead, limit))
        return {
            **{"name": self.name, "unit": self.unit, "ours": ours, "instead": instead, "limit": limit},
            **{"vs_instead": vs, "of_limit": of, "spread": half / ours if len(self.ours) > 1 and ours else None},
        }


def at_least_one(word: str, most: int = sys.maxsize) -> int:
    """Reads a number of a command line, for argparse."""
    number = int(word) if word.isdecimal() else 0
    if not 1 <= number <= most:
        upper = f" to {most}" if most < sys.maxsize else ""
        raise argparse.ArgumentTypeError(f"{word} is not a number from 1{upper}")
    return number


def parser_of(module: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of a command whose module documents it."""
    layout = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"python -m {module}", description=description, formatter_class=layout)


def alternate(rounds: int, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Lets each contender measure itself once a round, in turn, so that other load on the machine hits all alike."""
    found = [{name: measure() for name, measure in contenders.items()} for _ in range(rounds)]
    return {name: [samples[name] for samples in found] for name in contenders}


def rate_of(images: int, work: Callable[[], object], seconds: float = 0.0) -> float:
    """Returns how many images a second `work()`, which is for so many, gets through; it is repeated for `seconds`."""
    times, started_at = 0, time.perf_counter()
    while not times or time.perf_counter() - started_at < seconds:
        work()
        times += 1
    return times * images / (time.perf_counter() - started_at)


def until(reached: Callable[[], bool], seconds: float, every_s: float = 0.05) -> bool:
    """Waits until something is reached, at most for so long; returns whether it is."""
    deadline = time.monotonic() + seconds
    while not (is_reached := reached()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return is_reached


def machine() -> dict[str, Any]:
    """Returns what the figures are measured on; the CPU with its instructions for bfloat16, which decide its speed."""
    import torch  # not above: the processes that a bench starts, which import this module, need none

    path = pathlib.Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    known = [feature for feature in ("avx512_bf16", "amx_bf16") if re.search(rf"\b{feature}\b", text)]
    return {
        "cpu": ", ".join([name.group(1) if name else platform.machine(), *known]),
        "cores": core_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_before": round(os.getloadavg()[0], 2),
    }


def markdown(rows: Sequence[Row]) -> str:
    """Returns the rows as a table."""

    def cell(key: str, value: Any) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        if key in ("ours", "instead", "limit"):
            return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        return f"{100 * value:.0f} %" if key == "spread" else f"{value:.2f}"

    head = ("what", "unit", "ours", "instead", "limit", "vs instead", "of limit", "spread")
    lines = [[cell(key, value) for key, value in row.as_dict().items()] for row in rows]
    return tabulate(lines, head, "pipe", disable_numparse=True, colalign=("left", "left", *["right"] * 6))
