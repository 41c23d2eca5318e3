"""The folder of a run: its name, its log, what it says of the machine and the software."""

import importlib.metadata
import logging
import os
import pathlib
import platform
import time

from aal.config import Settings
from aal.errors import UserError
from aal.loading import dump

VERSION = "0.1.0"
MODELS = "models"
_SOFTWARE = ("torch", "torchvision", "numpy", "scikit-learn", "pydantic", "pyyaml")


def create_run(settings: Settings, out: str | None) -> pathlib.Path:
    """Makes the folder of a new run and writes its `config.yaml`.

    Args:
        settings: of the run; `name` names the folder under `runs/`.
        out: the folder to use instead; it must be absent or empty.

    Raises:
        UserError: the folder is taken or cannot be made.
    """
    try:
        run = _new_folder(pathlib.Path("runs") / (settings.name or "run")) if out is None else pathlib.Path(out)
        if out is not None and run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise UserError(f"--out {out}: is not an empty folder; name a new one")
        (run / MODELS).mkdir(parents=True, mode=0o755)
        (run / "config.yaml").write_text(dump(settings), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out or 'runs/'}: cannot make the run's folder: {error.strerror}") from None
    return run


def _new_folder(wanted: pathlib.Path) -> pathlib.Path:
    """Makes `wanted`, or the first free of `wanted-2`, `wanted-3` and so on."""
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def log_to(run: pathlib.Path, role: str) -> logging.Logger:
    """Sends this process's log to the run's `log.txt`, a line a record, with the role's name.

    Returns:
        The logger of the project.
    """
    handler = logging.FileHandler(run / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter(f"%(asctime)s {role} {os.getpid()} %(levelname)s %(message)s"))
    logger = logging.getLogger("aal")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return logger


def about(settings: Settings) -> dict[str, str]:
    """Returns what `run.db` says of a run's origin: config, seed, versions, hardware, time."""
    facts = {
        "config": dump(settings),
        "seed": str(settings.seed),
        "mode": settings.mode,
        "engine": settings.engine,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores, {platform.system()}",
        "version_python": platform.python_version(),
        "version_aal": VERSION,
    }
    for package in _SOFTWARE:
        facts[f"version_{package}"] = importlib.metadata.version(package)
    return facts
