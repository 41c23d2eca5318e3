"""Whole runs of the program: how soon they begin, what their processes hold, and who works and who waits in them."""

import contextlib
import itertools
import json
import pathlib
import re
import subprocess
import sys
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
from bench.run_process import ROOT, Run, running
from bench.settings import WORDS

MOMENTS = {"first-query": "select count(*) from queries", "first-annotator": "select count(*) from waits"}
MISTAKE = ["main.py", "--config", "digits.yaml", "worker_nun=3"]
CONFIG = "cifar10-cpu.yaml"
ONE_CARD = ("devices.servers=cuda:0", "devices.workers=cuda:0")
UNITS = {"wall": "s", "annotator-wait": "s", "annotators-waiting": "% idle", "servers-training": "%", "accuracy": "%"}
MIB = 2**20


def startup(options: Options, source: Source) -> Iterator[Row]:
    """Gives the seconds from the command to the first query and to the first annotator served."""
    starts = alternate(options.rounds, {"ours": partial(start), "instead": partial(start, spawn=True)})
    import_torch, mistake = partial(_seconds_of, ["-c", "import torch"], 0), partial(_seconds_of, MISTAKE, 2)
    least = [import_torch() + found["training"] for found in starts["ours"]]
    for moment in MOMENTS:
        ours, instead = ([found[moment] for found in starts[key]] for key in ("ours", "instead"))
        yield Row(f"startup/{moment}", "s", ours, instead, least)
    options.note("startup")
    yield Row("startup/config-error", "s", **alternate(options.rounds, {"ours": mistake, "instead": import_torch}))
    options.note("startup/config-error")


def start(spawn: bool = False) -> dict[str, float]:
    """Returns the seconds to each moment, and those of the first training; the journal may be 0.05 s late."""
    found, started_at = {}, time.monotonic()
    with running(WORDS["startup"], spawn=spawn) as run:
        for moment, query in MOMENTS.items():
            run.wait(lambda query=query: run.value(query) > 0)  # type: ignore[misc]
            found[moment] = time.monotonic() - started_at
        found["training"] = run.value("select published_at - started_at from models where version = 0")
    return found


def _seconds_of(words: list[str], code: int) -> float:
    started_at = time.monotonic()
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)  # noqa: S603 - our own
    assert ended.returncode == code, ended.stderr.decode()
    return time.monotonic() - started_at


def memory(options: Options, source: Source) -> Iterator[Row]:
    """Gives the largest private and shared memory of a process of each role, and of the images, in MiB."""
    yield from _memory_of(options, "cifar-10", source.images.folder, CONFIG)
    if torch.cuda.is_available():
        yield from _on_gpu(options, source.images.folder)
    options.note("memory")
    if not options.quick:
        with random_set("mini-imagenet", MINI_IMAGENET, classes=100) as folder:
            yield from _memory_of(options, "mini-imagenet", folder, "miniimagenet.yaml")


def _memory_of(options: Options, name: str, images: pathlib.Path, config: str) -> Iterator[Row]:
    runs = [largest_seen(images, ["--config", config, *WORDS["memory"]]) for _ in range(options.rounds)]
    roles = ("server", "worker", "annotators", "hub", "main", "fork server")
    for role, kind in itertools.product(roles, ("private", "shared")):
        yield Row(f"memory/{name}/{role.replace(' ', '-')}/{kind}", "MiB", [run[role, kind] for run in runs])
    yield Row(f"memory/{name}/all", "MiB", [run["all", "proportional"] for run in runs])
    size = (images / "images.npy").stat().st_size / MIB
    copies = [size * run["all", "mapping"] for run in runs]
    yield Row(f"memory/{name}/images", "MiB", [run["all", "images"] for run in runs], copies, [size])


def _on_gpu(options: Options, images: pathlib.Path) -> Iterator[Row]:
    """Compares what a process of its own for each worker takes of the card with one process for all."""

    def taken(processes: int) -> float:
        words = ["--config", CONFIG, *WORDS["memory"], *ONE_CARD, f"devices.worker_processes={processes}"]
        return largest_seen(images, words)["all", "gpu"]

    found = alternate(options.rounds, {"ours": partial(taken, 1), "instead": partial(taken, 10)})
    yield Row("memory/cifar-10/gpu", "MiB", **found)
    each = [(many - one) / 9 for one, many in zip(found["ours"], found["instead"], strict=True)]
    yield Row("memory/cifar-10/gpu/worker", "MiB", each)
    options.note("memory/gpu")


def largest_seen(images: pathlib.Path, words: list[str]) -> dict[tuple[str, str], float]:
    """Runs to the end; returns the largest MiB by role and kind, and how many processes map the images."""
    free_at_first = _free_on_card()
    largest: dict[tuple[str, str], float] = defaultdict(float)
    with running(words, images=images) as run:

        def has_ended() -> bool:
            found = _look(run, images) | {("all", "gpu"): (free_at_first - _free_on_card()) / MIB}
            largest.update({key: max(largest[key], mib) for key, mib in found.items()})
            return run.value("select count(*) from meta where key = 'ended'") > 0

        run.wait(has_ended, every_s=0.5)
    return largest


def _free_on_card() -> int:
    return torch.cuda.mem_get_info(0)[0] if torch.cuda.is_available() else 0  # of the first GPU, whoever uses it


def _look(run: Run, images: pathlib.Path) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = defaultdict(float)
    for name, process in run.processes():
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


def endtoend(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of whole runs: asynchronous, synchronous, and asynchronous with PyTorch's own threads."""
    words = [] if options.full else WORDS["endtoend"]
    options.note("endtoend", config=" ".join([CONFIG, *words]))
    settings = load(CONFIG, words)
    labelling = settings.budget * settings.annotators.seconds_per_label / settings.annotators.number
    ours, instead = (partial(_run, source, [*words, mode]) for mode in ("mode=async", "mode=sync"))
    runs = alternate(options.rounds, {"ours": ours, "instead": instead})
    limits = {"wall": [labelling], "servers-training": [100.0]}
    for name, unit in UNITS.items():
        values = {key: [run[name] for run in found] for key, found in runs.items()}
        yield Row(f"endtoend/{name}", unit, **values, limit=limits.get(name))
    options.note("endtoend/wall")
    options.note("endtoend/threads", cores=core_count())
    threads = [f"devices.{role}_threads={core_count()}" for role in ("server", "worker")]
    default = [_run(source, [*words, *threads])["wall"] for _ in range(options.rounds)]
    yield Row("endtoend/threads", "s", [run["wall"] for run in runs["ours"]], default)


def _run(source: Source, words: list[str]) -> dict[str, float]:
    """Runs once; returns seconds and shares in percent by the name of their row."""
    with running(["--config", CONFIG, *words], images=source.images.folder) as run:
        run.wait()
        summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
        settings = load(str(run.folder / "config.yaml"))
        wall_s, servers = summary["wall_s"], 1 if settings.mode == "sync" else settings.server_num
        trained = run.value("select sum(published_at - started_at) from models")
        waited = run.value("select sum(got_at - asked_at) from waits")
    waiting, training = waited / (wall_s * settings.annotators.number), trained / (wall_s * servers)
    shares = 100 * waiting, 100 * training, 100 * summary["final_test_accuracy"]
    return dict(zip(UNITS, (wall_s, summary["annotator_wait_s"]["mean"], *shares), strict=True))
