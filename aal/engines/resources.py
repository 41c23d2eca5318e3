"""What a run needs of its machine, estimated before it starts, so that what cannot fit is refused."""

import math
from dataclasses import dataclass

from aal.config.errors import UserError
from aal.config.machine import address_space, free_memory, free_threads, most_open_files
from aal.config.registry import NETWORKS
from aal.config.settings import Settings
from aal.coordination.schedules import schedule_of

MIB, GB = 2**20, 1e9
ADDRESSES = 3.3e9  # bytes that a process which has loaded PyTorch maps, mostly of files
# Memory in MiB that is a process's own, without the images, which are mapped, and without what a network adds; as
# `python -m bench memory` measured it. What the fork server has loaded is shared by all.
SHARED, MAIN, HUB, ANNOTATORS, WORKER, SERVER, WEB = 290, 160, 60, 50, 40, 130, 90
IN_ONE_PROCESS, TORCH = 350, 200  # of a simulated run, and what it has more where it computes
PER_ANNOTATOR, PER_EXAMPLE = 3000, 60  # bytes
WITH_CUDA = 1000  # MiB that a CUDA context adds to a process's own memory on the host
THREADS, COMPUTING_THREADS, WEB_THREADS = 3, 4, 10  # of the hub or the annotators, of a server or a worker, the page
MAIN_FILES, FILES_EACH = 14, 2  # open files of the main process, and more for each; with fewer, measured, it fails
# Of a network without `facts`, such as a user's own: those of VGG-16, which are the largest.
LARGEST = {"parameters": 15_000_000, "activations": 790, "widest": 64}


@dataclass(frozen=True)
class Part:
    """Processes of one kind.

    Attributes:
        name: of the kind.
        setting: that says how many there are.
        number: how many.
        bytes: that each fills.
        threads: that each has.
    """

    name: str
    setting: str
    number: int
    bytes: float
    threads: int

    def __str__(self) -> str:
        each = f"{self.bytes / GB:.2g} GB"
        return f"{self.name} {each}" if self.number == 1 else f"{self.number} {self.name} of {each} each"


def parts_of(settings: Settings, shape: tuple[int, ...]) -> list[Part]:
    """Returns the processes of a run and what each needs.

    Args:
        settings: of the run.
        shape: (N, H, W, C) of the images.
    """
    s, schedule = settings, schedule_of(settings)
    servers, workers = schedule.server_num(s), schedule.shard_num(s)
    people = s.annotators.number * PER_ANNOTATOR
    names, shard = [one.model for one in s.networks], shape[0] // max(1, workers)
    training = max((_training_bytes(s, name, shape) for name in names), default=0.0)
    scoring = max((_scoring_bytes(s, name, shape, shard) for name in names), default=0.0)
    if s.targets:  # a worker keeps the newest model of each
        scoring += sum(4 * _network(s, name)[0] for name in names)
    known = shape[0] * PER_EXAMPLE
    if s.engine == "simulated":
        own = float(math.prod(shape)) if s.federated is not None else 0.0  # of all clients
        computing = TORCH * MIB + training + scoring + own if s.compute == "full" else 0.0
        whole = IN_ONE_PROCESS * MIB + known + people + 2000 * (servers + workers) + computing
        return [Part("process", "examples", 1, whole, THREADS)]
    processes = min(s.devices.worker_processes or workers, workers)
    hub = Part("main and hub", "server_num", 1, (SHARED + MAIN + HUB) * MIB + known, 4 * THREADS)
    if s.engine == "ray" and s.ray.address:  # the others are where Ray finds room
        return [hub]
    if s.federated is not None:  # clients train, a server holds a sum and a state, an evaluator scores
        own = _host(SERVER, s.devices.workers) + max(training, scoring) + math.prod(shape) / processes
        state = max((4 * _network(s, name)[0] for name in names), default=0.0)
        return [
            hub,
            Part("clients", "worker_num", processes, own, COMPUTING_THREADS),
            Part("server", "server_num", 1, WORKER * MIB + 5 * state, COMPUTING_THREADS),
            Part("evaluator", "server_num", 1, _host(WORKER, s.devices.servers) + scoring, COMPUTING_THREADS),
            Part("annotators", "worker_num", 1, ANNOTATORS * MIB + workers * people, THREADS),
        ]
    parts = [
        hub,
        Part("servers", "server_num", servers, _host(SERVER, s.devices.servers) + training, COMPUTING_THREADS),
        Part(
            "workers",
            "worker_num",
            processes,
            _host(WORKER, s.devices.workers) + scoring,
            COMPUTING_THREADS,
        ),
        Part("annotators", "annotators.number", min(1, s.annotators.number), ANNOTATORS * MIB + people, THREADS),
        Part("page", "people.supervisors", int(s.people.label), WEB * MIB, WEB_THREADS),
    ]
    return [part for part in parts if part.number]


def open_files(processes: int) -> int:
    """Returns how many files the main process of a run holds open that has so many others, the hub included."""
    return MAIN_FILES + FILES_EACH * processes


def check_resources(settings: Settings, shape: tuple[int, ...]) -> None:
    """Checks that a run fits into the memory, threads and open files that this machine leaves it.

    Args:
        settings: of the run.
        shape: (N, H, W, C) of the images.

    Raises:
        UserError: with the figures, a line for each that it does not fit into.
    """
    parts = parts_of(settings, shape)
    problems = []
    needed, free = sum(part.number * part.bytes for part in parts), free_memory()
    if free is not None and needed > free:
        most = max(parts, key=lambda part: part.number * part.bytes)
        listed = ", ".join(str(part) for part in parts)
        problems.append(
            f"{most.setting}: the run needs about {needed / GB:.1f} GB of memory ({listed}), and {free / GB:.1f} GB "
            f"are free; make {most.setting} smaller"
        )
    most = max(parts, key=lambda part: part.number)
    threads, left = sum(part.number * part.threads for part in parts), free_threads()
    if left is not None and threads > left:
        text = f"the run needs about {threads} threads, and this user may start {left} (ulimit -u, or the container's)"
        problems.append(f"{most.setting}: {text}; make {most.setting} smaller")
    files, limit = open_files(sum(part.number for part in parts)), most_open_files()
    if limit is not None and files > limit:
        text = f"the run needs about {files} open files, and a process may have {limit}"
        problems.append(f"{most.setting}: {text}; start it after `ulimit -n {2 * files}`")
    space = address_space()
    if settings.compute == "full" and space is not None and space < ADDRESSES:
        text = (
            f"a process may have {space / GB:.1f} GB of addresses (ulimit -v), and PyTorch takes {ADDRESSES / GB:.1f}"
        )
        problems.append(f"compute: {text}")
    if problems:
        raise UserError(*problems)


def _host(own: int, devices: list[str]) -> float:
    return MIB * (own + (WITH_CUDA if any(name not in ("auto", "cpu") for name in devices) else 0))


def _network(settings: Settings, name: str) -> tuple[float, float, float]:
    """Parameters, numbers kept a pixel for the gradient, and channels of the widest layer, at the run's width."""
    facts, width = {**LARGEST, **NETWORKS.facts(name)}, settings.width
    return facts["parameters"] * width**2, facts["activations"] * width, facts["widest"] * width


def _training_bytes(settings: Settings, name: str, shape: tuple[int, ...]) -> float:
    """What a training fills: weights, gradients, the optimiser's state, the best epoch, a batch, and a validation."""
    parameters, activations, _ = _network(settings, name)
    copies = 6 if settings.training.optimizer == "adam" else 5
    batch = min(settings.training.batch_size, shape[0])
    images = batch * shape[1] * shape[2] * activations
    return 4 * (copies * parameters + images) + _scoring_bytes(settings, name, shape, shape[0])


def _scoring_bytes(settings: Settings, name: str, shape: tuple[int, ...], number: int) -> float:
    """What scoring fills: the weights twice while they are read, and two layers of a batch."""
    parameters, _, widest = _network(settings, name)
    pixels = shape[1] * shape[2]
    batch = min(number, max(1, math.floor(2**18 / max(pixels, shape[3]))))  # as aal.training.inference scores on a CPU
    return 4 * (2 * parameters + 2 * batch * pixels * (widest + shape[3]))
