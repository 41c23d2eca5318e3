"""What the processes of a run hold: memory of their own, and the images that all of them share."""

import contextlib
import pathlib
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import psutil
import torch

from bench.images import MINI_IMAGENET, Source, random_set
from bench.rows import Options, Row, alternate
from bench.run_process import check, processes_of, running, value, wait_for

# Ten workers who score with a VGG-16 of a quarter of the width; each of them offers twice.
WORDS = [
    *("server_num=1", "worker_num=10", "worker_query_num=2", "query_batch=20", "server_train_threshold=200"),
    *("initial_size=500", "val_size=100", "training.epochs=1", "recipe=modern", "models=vgg16_bn", "width=0.25"),
    *("annotators.seconds_per_label=0.05", "annotators.number=20"),
]
ONE_CARD = ("devices.servers=cuda:0", "devices.workers=cuda:0")
LOOK_EVERY_S = 0.5
MIB = 2**20


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the largest private and shared memory of a process of each role, and of the images, in MiB."""
    yield from _rows(options, "cifar-10", source.images.folder, "cifar10-cpu.yaml")
    if torch.cuda.is_available():
        yield from _on_gpu(options, source)
    options.note("memory")
    if not options.quick:
        with random_set("mini-imagenet", MINI_IMAGENET, classes=100) as folder:
            yield from _rows(options, "mini-imagenet", folder, "miniimagenet.yaml")


def _rows(options: Options, name: str, images: pathlib.Path, config: str) -> Iterator[Row]:
    runs = [largest_seen(images, ["--config", config, *WORDS]) for _ in range(options.rounds)]
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
        words = ["--config", "cifar10-cpu.yaml", *WORDS, *ONE_CARD, f"devices.worker_processes={processes}"]
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
        wait_for(process, lambda: (run / "log.txt").exists())
        while process.poll() is None and value(run, "select count(*) from meta where key = 'ended'") == 0:
            for key, found in _look(process.pid, run, images).items():
                largest[key] = max(largest[key], found)
            largest["all", "gpu"] = max(largest["all", "gpu"], _on_card() - before)
            time.sleep(LOOK_EVERY_S)
        check(process)
    return largest


def _on_card() -> float:
    """MiB in use on the first GPU, whoever uses them."""
    if not torch.cuda.is_available():
        return 0.0
    free, total = torch.cuda.mem_get_info(0)
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
