"""The run directory: its name, its settings, its log, and what the record says of machine and software."""

import contextlib
import importlib.metadata
import logging
import os
import pathlib
import platform
import time
from collections.abc import Iterator

from aal import __version__
from aal.config.errors import UserError
from aal.config.loading import dump, keys_of, override, read_config, resolve
from aal.config.settings import Settings
from aal.config.terminal import LineFormatter
from aal.storage.atomic import claimed, write_whole

MODELS = "models"
# What a resumed run may change: where it computes, how long it lasts, how it fails, what it shows.
MAY_CHANGE = {
    *("devices", "data_dir", "prepared_dir", "name", "worker_query_num", "server_train_num"),
    *("on_failure", "restart_limit", "hung_after_s", "tensorboard"),
}
_SOFTWARE = ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "pydantic", "pyyaml")


@contextlib.contextmanager
def new_run(settings: Settings, out: str | None) -> Iterator[pathlib.Path]:
    """Makes the directory of a new run with its `config.yaml`, and holds it for this program alone.

    Args:
        settings: of the run; `name` names the folder under `runs/`.
        out: the directory to use instead; it must be absent or empty.

    Raises:
        UserError: the folder is taken or cannot be made.
    """
    run = new_directory(settings.name, out)
    with claim(run):
        if any(path.name != ".lock" for path in run.iterdir()):  # another program was there first
            raise UserError(f"--out {run}: is not an empty directory; name a new one, or use --resume {run}")
        try:
            write_settings(run, settings)
            (run / MODELS).mkdir(mode=0o755)
        except OSError as error:
            raise UserError(f"--out {run}: cannot be written: {error.strerror}") from None
        yield run


def new_directory(name: str | None, out: str | None) -> pathlib.Path:
    """Makes an empty directory: `out`, or the first free of `runs/<name>`, `runs/<name>-2` and so on.

    Raises:
        UserError: `out` is taken, or the directory cannot be made.
    """
    try:
        if out is None:
            return _new_folder(pathlib.Path("runs") / (name or "run"))
        path = pathlib.Path(out)
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {out}: is a file; name a directory")
        if path.exists() and any(path.iterdir()):
            raise UserError(f"--out {out}: is not an empty directory; name a new one, or use --resume {out}")
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise UserError(f"--out {out or 'runs/'}: cannot make the directory: {error.strerror}") from None
    return path


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


@contextlib.contextmanager
def claim(run: pathlib.Path) -> Iterator[None]:
    """Holds a run directory for this program alone; the system frees it when the program dies.

    Raises:
        UserError: another program holds it.
    """
    try:
        with claimed(run, f"{run}: another program runs in this directory"):
            yield
    except PermissionError:
        raise UserError(f"{run}: cannot be written; its owner may resume it") from None


def resumed_settings(run: pathlib.Path, assignments: list[str]) -> Settings:
    """Returns a run's own settings with changes that do not concern what was done already.

    Args:
        run: its directory.
        assignments: `key=value` overrides.

    Raises:
        UserError: this is no run directory, or a change would not fit what was done already; each is named.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"--resume {run}: is no run directory, it has no config.yaml")
    tree = read_config(path)
    before = resolve(tree, str(path))
    try:
        after = resolve(override(tree, assignments), str(path), keys_of(assignments))
    except UserError:
        given = {key.partition(".")[0] for key in keys_of(assignments)}
        fixed = sorted((given & set(Settings.model_fields)) - MAY_CHANGE)
        if not fixed:
            raise
        text = "cannot be changed in a run that has begun; start a new one"
        raise UserError(*(f"{key}: {text}" for key in fixed)) from None
    check_changes(before, after)
    return after


def check_changes(before: Settings, after: Settings) -> None:
    """Checks that a run that began with some settings may go on with others.

    Raises:
        UserError: a change would spoil its data; each is named.
    """
    old, new = before.model_dump(), after.model_dump()
    refused = [
        f"{key}: cannot be changed from {old[key]!r} to {new[key]!r} in a run that has begun; start a new one"
        for key in old
        if old[key] != new[key] and key not in MAY_CHANGE
    ]
    if after.worker_query_num < before.worker_query_num:
        refused.append(f"worker_query_num: can only grow, from {before.worker_query_num}")
    if refused:
        raise UserError(*refused)


def write_settings(run: pathlib.Path, settings: Settings) -> None:
    """Writes the resolved settings to the run's `config.yaml`."""
    write_whole(run / "config.yaml", dump(settings).encode())


def log_to(run: pathlib.Path, role: str) -> None:
    """Sends this process's log to the run's `log.txt`, a line a record, with the role's name."""
    handler = logging.FileHandler(run / "log.txt", encoding="utf-8")
    handler.setFormatter(LineFormatter(f"%(asctime)s {role} {os.getpid()} %(levelname)s %(message)s"))
    logger = logging.getLogger("aal")
    logger.setLevel(logging.INFO)
    for old in logger.handlers:  # of a run before this one in the same process
        old.close()
    logger.handlers = [handler]
    logging.raiseExceptions = False  # a log that cannot be written is no reason to fail


@contextlib.contextmanager
def logged(run: pathlib.Path, role: str) -> Iterator[None]:
    """Sends this process's log to the run's `log.txt` meanwhile."""
    logger = logging.getLogger("aal")
    before = logger.handlers
    log_to(run, role)
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = before


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
    if settings.engine == "local":  # a simulated run is the same to the last row, whenever it is done
        facts["started"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    for package in _SOFTWARE:
        facts[f"version_{package}"] = importlib.metadata.version(package)
    return facts
