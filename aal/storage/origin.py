"""What a record says of its origin: settings, machine, software."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import time

from aal import __version__
from aal.config.loading import dump
from aal.config.settings import Settings
from aal.storage.source_commit import source_commit

_SOFTWARE = ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "pydantic", "pyyaml")


def _processors() -> list[str]:
    """The CPU and the GPUs, as Linux and NVIDIA's driver name them; elsewhere only the kind of machine."""
    names = [f"{os.cpu_count()} CPU cores", platform.machine()]
    places = [("model name", pathlib.Path("/proc/cpuinfo"))]
    places += [("Model", path) for path in sorted(pathlib.Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    for key, path in places:
        with contextlib.suppress(OSError):
            lines = [line.partition(":") for line in path.read_text(encoding="utf-8").splitlines()]
            names += [value.strip() for name, _, value in lines if name.strip() == key][:1]
    return names


def about(settings: Settings) -> dict[str, str]:
    """Returns what `run.db` says of a run's origin: config, seed, versions, hardware, time."""
    facts = {
        "config": dump(settings),
        "seed": str(settings.seed),
        "mode": settings.mode,
        "engine": settings.engine,
        "hardware": ", ".join([*_processors(), platform.system()]),
        "version_python": platform.python_version(),
        "version_aal": __version__,
    }
    if commit := source_commit():
        facts["version_aal"] += f", commit {commit}"
    if settings.engine != "simulated":  # a simulated run is the same to the last row, whenever it is done
        facts["started"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    for package in _SOFTWARE:
        facts[f"version_{package}"] = importlib.metadata.version(package)
    return facts
