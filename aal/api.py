"""The Python API: start a run from a script or a notebook, and open what a run left behind as data frames."""

import asyncio
import contextlib
import functools
import inspect
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from aal.config.errors import RunFailed, UserError
from aal.config.loading import find_config, keys_of, located, name_of, override, read_config, resolve
from aal.config.settings import Settings
from aal.reporting.labels import read_labels
from aal.reporting.metrics import summary_of
from aal.reporting.pages import write_report
from aal.reporting.progress import Progress
from aal.reporting.record import read
from aal.seeds import is_of_seeds, runs_of
from aal.storage.run_reader import Columns, Rows, RunReader

if TYPE_CHECKING:
    from torch import nn

WHOLE_NUMBERS = {
    *("id", "item", "label", "worker", "annotator", "server"),
    *("labels", "queries", "version", "newest", "epoch", "round", "arrival"),
}


class Run:
    """A run directory, finished or not. What it returns is read anew each time, except for the settings.

    Args:
        path: the run directory.

    Raises:
        UserError: the directory holds no run, or its record is damaged or has lost answers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        if is_of_seeds(self.path):
            runs = ", ".join(str(run) for run in runs_of(self.path))
            raise UserError(f"{self.path}: holds the runs of several seeds; load one of them: {runs}")
        with self._record():  # reports an error now where there is no run, or it has lost answers
            pass

    def __repr__(self) -> str:
        return f"aal.load_run({str(self.path)!r})"

    @contextlib.contextmanager
    def _record(self) -> Iterator[RunReader]:
        with RunReader(self.path) as reader:
            reader.check()
            yield reader

    @functools.cached_property
    def settings(self) -> Settings:
        """The resolved settings."""
        config = self.path / "config.yaml"
        return resolve(read_config(config), str(config))

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        return summary_of(read(self.path))

    @property
    def curve(self) -> pd.DataFrame:
        """A row for each model: version, server, labels, queries, test_accuracy, val_accuracy, seconds."""
        return _frame(self.summary["curve"])

    @property
    def labels(self) -> pd.DataFrame:
        """A row for each label: id, path, label, class, source, annotator, answered_at, strategy, version, round."""
        return _frame(read_labels(self.path))

    @property
    def queries(self) -> pd.DataFrame:
        """A row for each offered id: item (the id), worker, strategy, versions, times, annotator, label."""
        with self._record() as reader:
            return _frame(reader.queries())

    @property
    def waits(self) -> pd.DataFrame:
        """A row for each draw: annotator, asked_at, got_at, in seconds since the run began."""
        with self._record() as reader:
            return _frame(reader.waits())

    @property
    def models(self) -> pd.DataFrame:
        """A row for each published model: version, server, network, labels, epoch, accuracies, times, file."""
        with self._record() as reader:
            return _frame(reader.models())

    def load_model(self, version: int | None = None) -> "tuple[nn.Module, dict[str, Any]]":
        """Returns a model on the CPU, in evaluation mode, and the payload of its file.

        Args:
            version: of the model; None for the newest.

        Raises:
            UserError: there is no such version, or its file is missing or damaged.
        """
        from aal.storage.model_files import load_model
        from aal.training.networks import restore_model

        with self._record() as reader:
            paths = {model["version"]: model["path"] for model in reader.models()}
        if not paths or version not in {None, *paths}:
            raise UserError(f"{self.path}: has no model {version}; there are {list(paths)}")
        path = self.path / paths[max(paths) if version is None else version]
        payload = load_model(path)
        return restore_model(payload, path, [one.model for one in self.settings.networks]).eval(), payload

    def report(self) -> pathlib.Path:
        """Draws the report again; returns its Markdown page."""
        return write_report(self.path)


def _frame(table: Rows | Columns) -> pd.DataFrame:
    """A data frame whose whole numbers stay whole where some are missing."""
    frame = pd.DataFrame(table)
    return frame.astype({name: "Int64" for name in WHOLE_NUMBERS if name in frame})


def load_run(path: str | os.PathLike[str]) -> Run:
    """Opens a run directory.

    Raises:
        UserError: the directory holds no run, or its record is damaged or has lost answers.
    """
    return Run(path)


def run(
    settings_or_config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    progress: bool = True,
    **changes: Any,
) -> Run:
    """Runs active learning to its end.

    Args:
        settings_or_config: a config's path or its name under `configs/`, or the settings as nested dicts.
        out: the run directory; `runs/<name>` by default.
        seed: overrides that of the config.
        progress: whether a bar is shown; in a notebook, that of the notebook.
        **changes: of settings: `query_strategy="margin"`, `training={"epochs": 3}` or `**{"training.epochs": 3}`.
            Where a setting names an object as `module:object`, the class or function itself may be given.

    Returns:
        The finished run.

    Raises:
        UserError: the settings are wrong, a line for each mistake, or the user can mend what stopped the run.
        RunFailed: the run failed or was interrupted; `python main.py --resume` goes on with it.
    """
    settings = settings_from(settings_or_config, changes if seed is None else {**changes, "seed": seed})
    notebook = "ipykernel" in sys.modules
    shown = Progress(sys.stderr if progress else None, notebook=notebook and progress)
    return Run(_start(settings, None if out is None else os.fspath(out), shown))


def _start(settings: Settings, out: str | None, progress: Progress) -> pathlib.Path:
    """Starts a run as the command does.

    Raises:
        RunFailed: it did not finish.
    """
    from aal.app.main import start

    with _no_running_loop():
        path, result = start(settings, out, progress)
    if result.exit_code == 2:
        raise UserError(result.cause)
    if result.exit_code:
        raise RunFailed(f"{path}: {result.cause}")
    return path


@contextlib.contextmanager
def _no_running_loop() -> Iterator[None]:
    """Sets the running event loop aside: a notebook runs its cells inside one, and an engine has a loop of its own."""
    loop = asyncio._get_running_loop()
    task = asyncio.current_task() if loop else None
    if loop and task:
        asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        if loop and task:
            asyncio.tasks._enter_task(loop, task)


def settings_from(source: str | os.PathLike[str] | Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    """Returns resolved settings; the arguments are those of `run`.

    Raises:
        UserError: everything that is wrong with them, a line each.
    """
    if isinstance(source, Mapping):
        where, tree = "settings", override({}, _assignments(source))
    else:
        path = find_config(os.fspath(source))
        where, tree = str(path), read_config(path)
        tree["name"] = tree.get("name") or name_of(path)
    assignments = list(_assignments(changes))
    tree = override(tree, assignments)
    given = [*(_assignments(source) if isinstance(source, Mapping) else ()), *assignments]
    if tree.get("engine") != "simulated" and (local := [item for item in given if '"__main__:' in item]):
        raise UserError(
            *(
                f"{key}: the object is defined in the notebook or script itself, which other processes cannot import; "
                "put it into a module, or use engine simulated"
                for key in keys_of(local)
            )
        )
    return located(resolve(tree, where, keys_of(assignments), changed_by="argument"))


def _assignments(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The leaves of a tree as `key=value`, values as JSON, which YAML reads; an object as `module:object`."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _assignments(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value, ensure_ascii=False, default=_plain)}"


def _plain(value: Any) -> Any:
    """What stands for a value in a config."""
    if inspect.isclass(value) or inspect.isfunction(value):
        if "." in value.__qualname__ or "<" in value.__qualname__:
            raise UserError(f"{value.__qualname__}: only classes and functions at the top of a module can be named")
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numbers and arrays of NumPy
        return value.tolist()
    raise UserError(f"{value!r}: a setting is a number, text, true or false, a list, a dict, or a class or function")
