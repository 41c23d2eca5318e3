"""What a bench tells: rows of medians and ratios, as a Markdown table or as one JSON object."""

import importlib.metadata
import os
import pathlib
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

PACKAGES = ("torch", "torchvision", "numpy", "pydantic")
LESS_IS_BETTER = ("s", "ms", "us", "MiB", "% idle")

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: begins with the part's name.
        unit: of the three values; of those in LESS_IS_BETTER a smaller value is better.
        ours: measured, at least one.
        instead: of what a user would write instead; None where there is no such thing.
        limit: of the best that can be had; None where none is known.
    """

    name: str
    unit: str
    ours: Sequence[float]
    instead: Sequence[float] | None = None
    limit: Sequence[float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns medians, ratios that are above 1 where ours is the better, and the spread of ours.

        The spread is half the distance between the largest and the smallest value, as a share of the median; None for
        a single value.
        """
        ours, instead, limit = (
            None if values is None else statistics.median(values) for values in (self.ours, self.instead, self.limit)
        )
        half = (max(self.ours) - min(self.ours)) / 2
        return {
            **{"name": self.name, "unit": self.unit, "ours": ours, "instead": instead, "limit": limit},
            "vs_instead": self._ratio(ours, instead),
            "of_limit": self._ratio(ours, limit),
            "spread": half / ours if len(self.ours) > 1 and ours else None,
        }

    def _ratio(self, ours: float | None, other: float | None) -> float | None:
        if ours is None or other is None or not ours or not other:
            return None
        return other / ours if self.unit in LESS_IS_BETTER else ours / other


def alternate(rounds: int, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Lets each contender measure itself once a round, in turn, so that other load on the machine hits all alike."""
    samples: dict[str, list[T]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            samples[name].append(measure())
    return samples


def rate_of(images: int, work: Callable[[], object]) -> float:
    """Returns how many of `images` a second `work()` gets through."""
    started_at = time.perf_counter()
    work()
    return images / (time.perf_counter() - started_at)


def machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the figures were measured on; `facts` are added."""
    import torch  # not above: the processes that a bench starts need none

    found = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_before": round(os.getloadavg()[0], 2),
    }
    return {**found, **facts}


def _cpu() -> str:
    """Its name and the instructions for bfloat16 that it has, which decide how fast it trains."""
    path = pathlib.Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    known = [feature for feature in ("avx512_bf16", "amx_bf16") if re.search(rf"\b{feature}\b", text)]
    return ", ".join([name.group(1) if name else platform.machine(), *known])


def versions() -> dict[str, str]:
    """Returns the versions of the software that matters."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def markdown(rows: Sequence[Row]) -> str:
    """Returns the rows as a table."""
    lines = [
        "| what | unit | ours | instead | limit | vs instead | of limit | spread |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        told = row.as_dict()
        values = [_number(told[key]) for key in ("ours", "instead", "limit")]
        ratios = ["" if told[key] is None else f"{told[key]:.2f}" for key in ("vs_instead", "of_limit")]
        spread = "" if told["spread"] is None else f"{100 * told['spread']:.0f} %"
        lines.append(f"| {' | '.join([row.name, row.unit, *values, *ratios, spread])} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
