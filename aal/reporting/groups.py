"""Runs of a comparison, grouped by the settings in which they differ, and the statistics of a group."""

import functools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aal.config.errors import UserError
from aal.reporting.curves import Floats, at_labels
from aal.reporting.metrics import summary_of
from aal.reporting.record import column, read

# Settings that say where and under which name a run was done, not what it does.
IRRELEVANT = {"seed", "name", "data_dir", "prepared_dir", "tensorboard"}
TIMES = 400  # points of a curve against time


@dataclass(frozen=True)
class Compared:
    """A run of a comparison, or what one of its networks did, where it trained several.

    Attributes:
        path: its directory.
        settings: its resolved settings, flat: keys with dots.
        summary: as in its `summary.json`; curve and accuracies are those of the network.
        network: its name; empty for a run with one.
    """

    path: pathlib.Path
    settings: dict[str, Any]
    summary: dict[str, Any]
    network: str = ""

    @property
    def is_virtual(self) -> bool:
        """Whether its times are those of a simulation."""
        return bool(self.summary["engine"] == "simulated")

    def points(self) -> list[dict[str, Any]]:
        """Returns the points of the curve that have a test accuracy."""
        return [point for point in self.summary["curve"] if point["test_accuracy"] is not None]

    def curve(self, x: str) -> tuple[Floats, Floats]:
        """Returns `labels` or `seconds` (n,) and the test accuracies (n,) of the points."""
        return column(self.points(), x), column(self.points(), "test_accuracy")


Groups = Mapping[str, Sequence[Compared]]


def _compared(path: pathlib.Path) -> list[Compared]:
    """Reads a run; of several networks or targets, each that has a curve is one of the results."""
    record = read(path)
    settings, summary = dict(_flat(record.config)), summary_of(record)
    several = summary.get("targets") or summary.get("networks") or ()
    networks = [(one["name"], {**summary, **one}) for one in several] or [("", summary)]
    parts = [part for network, own in networks if (part := Compared(path, settings, own, network)).points()]
    if not parts:
        raise UserError(f"{path}: has no model with a test accuracy yet, so there is no curve to compare")
    return parts


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def grouped(paths: Sequence[pathlib.Path]) -> Groups:
    """Returns runs by the settings in which they differ, and by network, in the order in which they were given.

    Args:
        paths: the directories of the runs.

    Raises:
        UserError: a run cannot be read or has no curve, or the data sets differ.
    """
    runs = [part for path in paths for part in _compared(path)]
    sets = {str(run.settings.get("data_type")): run.path for run in runs}
    if len(sets) > 1:
        found = ", ".join(f"{name} ({path})" for name, path in sets.items())
        raise UserError(f"runs of different data sets cannot be compared: {found}")
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in IRRELEVANT)
    differing = [key for key in keys if len({_shown(run.settings.get(key)) for run in runs}) > 1]
    groups: dict[str, list[Compared]] = {}
    for run in runs:
        parts = [_label(key, run.settings[key]) for key in differing if _says_something(key, run.settings.get(key))]
        parts += [f"network {run.network}"] if run.network else []
        groups.setdefault(", ".join(parts) or "all runs", []).append(run)
    return groups


def whole_runs(groups: Groups) -> Groups:
    """Returns each run once, in the group of the first of its networks, by the name of the group without the network.

    For figures of the whole run, such as waits.
    """
    seen: set[pathlib.Path] = set()
    whole: dict[str, list[Compared]] = {}
    for name, runs in groups.items():
        for run in runs:
            if run.path not in seen:
                seen.add(run.path)
                suffix = f"network {run.network}" if run.network else ""
                short = name.removesuffix(suffix).removesuffix(", ") if suffix else name
                whole.setdefault(short or "all runs", []).append(run)
    return whole


def _says_something(key: str, value: object) -> bool:
    """Whether a value belongs into a name: null mostly stands for a setting that is not used, but here for no bound."""
    return value not in (None, {}) or (value is None and key == "max_staleness")


def _label(key: str, value: object) -> str:
    """What a legend says of a setting; an option is known by its own name."""
    group, _, option = key.rpartition("options.")
    return f"{option}={_shown(value)}" if group else f"{key}={_shown(value)}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def values(runs: Sequence[Compared], *keys: str) -> Floats:
    """Returns a figure of the summaries, or of a group in them, for those runs that have it."""
    found = [functools.reduce(lambda tree, key: tree[key], keys, run.summary) for run in runs]
    return np.array([value for value in found if value is not None], dtype=float)


def common_span(runs: Sequence[Compared], x: str) -> tuple[float, float]:
    """Returns the last beginning and the first end of the curves along `x`; where they cross, nothing is in common."""
    spans = [run.curve(x)[0] for run in runs]
    return max(span.min() for span in spans), min(span.max() for span in spans)


def at_counts(runs: Sequence[Compared], counts: Floats) -> Floats:
    """Returns the accuracies (runs, n) at label counts (n,) that all curves reach."""
    return np.array([at_labels(*run.curve("labels"), counts) for run in runs])


def by_labels(runs: Sequence[Compared]) -> tuple[Floats, Floats]:
    """Returns the label counts (n,) of the runs' models that all curves reach, and the accuracies (runs, n) there."""
    begin, end = common_span(runs, "labels")
    counts = np.unique(np.concatenate([run.curve("labels")[0] for run in runs]))
    counts = counts[(counts >= begin) & (counts <= end)]
    return (counts, at_counts(runs, counts)) if counts.size else (counts, np.empty((len(runs), 0)))


def by_time(runs: Sequence[Compared]) -> tuple[Floats, Floats]:
    """Returns seconds (n,) and the accuracies (runs, n) of each run's newest model at these moments.

    They begin when all runs have a model and end with the last run; the last model of a run stays its newest.
    """
    begin, _ = common_span(runs, "seconds")
    end = max(float(run.curve("seconds")[0].max()) for run in runs)
    times = np.linspace(begin, end, TIMES)
    newest = []
    for run in runs:
        seconds, accuracy = run.curve("seconds")
        newest.append(accuracy[np.searchsorted(seconds, times, "right") - 1])
    return times, np.array(newest)
