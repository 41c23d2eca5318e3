"""Whole runs of the program: how soon they begin, what their processes hold, and who works and who waits in them."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import psutil
import torch

from aal.config.cores import core_count
from aal.config.loading import load
from bench.harness import MINI_IMAGENET, Source, random_set
from bench.rows import Options, Row, alternate
from bench.run_process import ROOT, processes_of, running, value, wait_for
from bench.settings import WORDS

MOMENTS = {"first-query": "select count(*) from queries", "first-annotator": "select count(*) from waits"}
MISTAKE = ["main.py", "--config", "digits.yaml", "worker_nun=3"]
CONFIG = "cifar10-cpu.yaml"
ONE_CARD = ("devices.servers=cuda:0", "devices.workers=cuda:0")
LOOK_EVERY_S = 0.5
MIB = 2**20


# ------------------------------------------------------------------ how soon a run begins


def startup(options: Options, source: Source) -> Iterator[Row]:
    """Gives the seconds from the command to the first query and to the first annotator served."""
    starts = alternate(options.rounds, {"ours": lambda: start(), "instead": lambda: start(spawn=True)})
    least = [_import_torch() + found["training"] for found in starts["ours"]]
    for moment in MOMENTS:
        ours, instead = ([found[moment] for found in starts[key]] for key in ("ours", "instead"))
        yield Row(f"startup/{moment}", "s", ours, instead, least)
    options.note("startup")
    mistakes = alternate(options.rounds, {"ours": lambda: _seconds_of(MISTAKE, 2), "instead": _import_torch})
    yield Row("startup/config-error", "s", **mistakes)
    options.note("startup/config-error")


def start(spawn: bool = False) -> dict[str, float]:
    """Returns the seconds to each moment, and those of the first training; the journal may be 0.05 s late."""
    with tempfile.TemporaryDirectory(prefix="bench-startup-") as folder:
        run, found, started_at = pathlib.Path(folder) / "run", {}, time.monotonic()
        with running(run, WORDS["startup"], spawn=spawn) as process:
            for moment, query in MOMENTS.items():
                wait_for(process, run, lambda query=query: value(run, query) > 0)  # type: ignore[misc]
                found[moment] = time.monotonic() - started_at
            found["training"] = value(run, "select published_at - started_at from models where version = 0")
    return found


def _import_torch() -> float:
    return _seconds_of(["-c", "import torch"], 0)


def _seconds_of(words: list[str], code: int) -> float:
    started_at = time.monotonic()
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)  # noqa: S603 - our own
    assert ended.returncode == code, ended.stderr.decode()
    return time.monotonic() - started_at


# ------------------------------------------------------------------ what its processes hold


def memory(options: Options, source: Source) -> Iterator[Row]:
    """Gives the largest private and shared memory of a process of each role, and of the images, in MiB."""
    yield from _memory_of(options, "cifar-10", source.images.folder, CONFIG)
    if torch.cuda.is_available():
        yield from _on_gpu(options, source)
    options.note("memory")
    if not options.quick:
        with random_set("mini-imagenet", MINI_IMAGENET, classes=100) as folder:
            yield from _memory_of(options, "mini-imagenet", folder, "miniimagenet.yaml")


def _memory_of(options: Options, name: str, images: pathlib.Path, config: str) -> Iterator[Row]:
    runs = [largest_seen(images, ["--config", config, *WORDS["memory"]]) for _ in range(options.rounds)]
    for role in ("server", "worker", "annotators", "hub", "main", "fork server"):
        for kind in ("private", "shared"):
            yield Row(f"memory/{name}/{role.replace(' ', '-')}/{kind}", "MiB", [run[role, kind] for run in runs])
    yield Row(f"memory/{name}/all", "MiB", [run["all", "proportional"] for run in runs])
    size = (images / "images.npy").stat().st_size / MIB
    copies = [size * run["all", "mapping"] for run in runs]
    yield Row(f"memory/{name}/images", "MiB", [run["all", "images"] for run in runs], copies, [size])


def _on_gpu(options: Options, source: Source) -> Iterator[Row]:
    """Compares what a process of its own for each worker takes of the card with one process for all."""

    def taken(processes: int) -> float:
        words = ["--config", CONFIG, *WORDS["memory"], *ONE_CARD, f"devices.worker_processes={processes}"]
        return largest_seen(source.images.folder, words)["all", "gpu"]

    found = alternate(options.rounds, {"ours": lambda: taken(1), "instead": lambda: taken(10)})
    yield Row("memory/cifar-10/gpu", "MiB", **found)
    each = [(many - one) / 9 for one, many in zip(found["ours"], found["instead"], strict=True)]
    yield Row("memory/cifar-10/gpu/worker", "MiB", each)
    options.note("memory/gpu")


def largest_seen(images: pathlib.Path, words: list[str]) -> dict[tuple[str, str], float]:
    """Runs to the end; returns the largest MiB by role and kind, and how many processes map the images."""
    largest: dict[tuple[str, str], float] = defaultdict(float)
    before = _on_card()
    with (
        tempfile.TemporaryDirectory(prefix="bench-memory-") as folder,
        running(run := pathlib.Path(folder) / "run", words, images) as process,
    ):

        def ended() -> bool:
            found = _look(process.pid, run, images) | {("all", "gpu"): _on_card() - before}
            largest.update({key: max(largest[key], mib) for key, mib in found.items()})
            time.sleep(LOOK_EVERY_S)
            return value(run, "select count(*) from meta where key = 'ended'") > 0

        wait_for(process, run, ended)
    return largest


def _on_card() -> float:
    """MiB in use on the first GPU, whoever uses them."""
    free, total = torch.cuda.mem_get_info(0) if torch.cuda.is_available() else (0, 0)
    return (total - free) / MIB


def _look(pid: int, run: pathlib.Path, images: pathlib.Path) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = defaultdict(float)
    for name, process in processes_of(pid, run):
        role = re.sub(r"-\d+$", "", name)
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            every: list[Any] = process.memory_maps()
            maps = [one for one in every if one.path == str((images / "images.npy").resolve())]
            private = sum(one.private_dirty for one in every)  # what is clean is a file's, and can be dropped
            found[role, "private"] = max(found[role, "private"], private / MIB)
            found[role, "shared"] = max(found[role, "shared"], (sum(one.rss for one in every) - private) / MIB)
            found["all", "proportional"] += sum(one.pss for one in every) / MIB
            found["all", "images"] += sum(one.pss for one in maps) / MIB
            found["all", "mapping"] += any(one.rss for one in maps)
    return found


# ------------------------------------------------------------------ who works and who waits


def endtoend(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of whole runs: asynchronous, synchronous, and asynchronous with PyTorch's own threads."""
    words = [] if options.full else WORDS["endtoend"]
    options.note("endtoend", config=" ".join([CONFIG, *words]))
    settings = load(CONFIG, words)
    labelling = settings.budget * settings.annotators.seconds_per_label / settings.annotators.number
    kinds = {"ours": "mode=async", "instead": "mode=sync"}
    runs = alternate(options.rounds, {key: partial(_run, source, [*words, mode]) for key, mode in kinds.items()})

    def row(name: str, unit: str, limit: list[float] | None = None) -> Row:
        ours, instead = ([run[name] for run in runs[key]] for key in kinds)
        return Row(f"endtoend/{name}", unit, ours, instead, limit)

    yield row("wall", "s", limit=[labelling])
    options.note("endtoend/wall")
    yield row("annotator-wait", "s")
    yield row("annotators-waiting", "% idle")
    yield row("servers-training", "%", limit=[100.0])
    yield row("accuracy", "%")
    options.note("endtoend/threads", cores=core_count())
    threads = [f"devices.{role}_threads={core_count()}" for role in ("server", "worker")]
    default = [_run(source, [*words, *threads])["wall"] for _ in range(options.rounds)]
    yield Row("endtoend/threads", "s", [run["wall"] for run in runs["ours"]], default)


def _run(source: Source, words: list[str]) -> dict[str, float]:
    """Runs once; returns seconds and shares in percent by the name of their row."""
    with tempfile.TemporaryDirectory(prefix="bench-endtoend-") as folder:
        run = pathlib.Path(folder) / "run"
        with running(run, ["--config", CONFIG, *words], source.images.folder) as process:
            wait_for(process, run)
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        settings = load(str(run / "config.yaml"))
        wall_s, servers = summary["wall_s"], 1 if settings.mode == "sync" else settings.server_num
        trained = value(run, "select sum(published_at - started_at) from models")
        waited = value(run, "select sum(got_at - asked_at) from waits")
        return {
            "wall": wall_s,
            "annotator-wait": summary["annotator_wait_s"]["mean"],
            "annotators-waiting": 100 * waited / (wall_s * settings.annotators.number),
            "servers-training": 100 * trained / (wall_s * servers),
            "accuracy": 100 * summary["final_test_accuracy"],
        }
