"""What a federation costs: its trainings beside the same ones alone, the average of the weights, memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from aal.app import data
from aal.app.data import ImageSet
from aal.config.loading import load
from aal.config.registry import TRAINERS
from aal.config.settings import Settings
from aal.coordination.partition import Partition
from aal.training.aggregation import State, weighted_mean
from aal.training.images import ImageBank, normalisation_of
from aal.training.trainer import TrainingTask
from bench.contenders import Baseline
from bench.end_to_end import largest_seen
from bench.harness import Source, network_of
from bench.rows import Options, Row, alternate, rate_of
from bench.run_process import running
from bench.settings import WORDS

CONFIG = "kafal-cifar10-cpu.yaml"
RUN = ["--config", CONFIG, *WORDS["federated"]]
CLIENTS = (10, 100)  # whose memory is measured
CASES = (("resnet8", 10), ("resnet8", 100), ("resnet18", 10))  # network, clients
REPEATS = 5  # of a measurement, the fastest of which counts


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives epochs of a client a second, milliseconds of an aggregation, MiB of all processes together."""
    yield from _epochs(options, source)
    yield from aggregations(options)
    for clients in CLIENTS[:1] if options.quick else CLIENTS:
        words = [*RUN, "engine=local", f"worker_num={clients}", "federated.rounds=1"]
        found = largest_seen(source.images.folder, [*words, "training.epochs=1", "devices.worker_processes=2"])
        yield Row(f"federated/memory/{clients}", "MiB", [found["all", "proportional"]])
    options.note("federated/memory")


def _epochs(options: Options, source: Source) -> Iterator[Row]:
    """Ours is a whole run, less a shorter one; instead is a plain loop, the limit the same trainings alone."""
    torch.set_num_threads(1)  # as each process of clients has
    settings = load(CONFIG, WORDS["federated"])
    split = data.split(source.images, settings, settings.worker_num)
    number = settings.worker_num * settings.training.epochs
    contenders = {
        "ours": partial(_rate_of_runs, source, settings, number),
        "instead": partial(rate_of, number, partial(_plain, source.images, settings, split)),
        "limit": partial(rate_of, number, partial(_alone, source.images, settings, split)),
    }
    yield Row("federated/epochs", "epochs/s", **alternate(options.rounds, contenders))
    options.note("federated/epochs", labels=settings.initial_size // settings.worker_num)


def _rate_of_runs(source: Source, settings: Settings, number: int) -> float:
    """Returns the epochs a second of the rounds that a longer run has more than a shorter one."""
    longer, shorter = 4, 1
    cycles = settings.worker_query_num + 1
    times = [_seconds_of_run(source, rounds) for rounds in (longer, shorter)]
    return cycles * (longer - shorter) * number / (times[0] - times[1])


def _seconds_of_run(source: Source, rounds: int) -> float:
    """Returns how long a run takes on one core."""
    began_at = time.monotonic()
    with running([*RUN, f"federated.rounds={rounds}"], images=source.images.folder) as run:
        run.wait()
        return time.monotonic() - began_at


def _of_client(split: Partition, client: int) -> np.ndarray:
    assert split.initial_owner is not None
    return split.initial[split.initial_owner == client]


def _alone(images: ImageSet, settings: Settings, split: Partition) -> None:
    """Trains on the labels of each client with the trainer of the run, and does nothing else."""
    bank = ImageBank(images.images, torch.device("cpu"))
    for client in range(settings.worker_num):
        ids = _of_client(split, client)
        task = TrainingTask(
            bank=bank,
            ids=ids,
            labels=images.labels[ids],
            training=settings.training,
            normalisation=normalisation_of(settings.training, split.mean, split.std),
            seed=client,
            classes=len(images.classes),
        )
        TRAINERS.load(settings.trainer)(network_of("resnet8", 1.0), task, **settings.trainer_options)


def _plain(images: ImageSet, settings: Settings, split: Partition) -> None:
    """Trains on the labels of each client as tutorials do."""
    normalisation = normalisation_of(settings.training, split.mean, split.std)
    for client in range(settings.worker_num):
        plain = Baseline(network_of("resnet8", 1.0), images, normalisation, torch.device("cpu"))
        plain.train(_of_client(split, client), split.validation, settings.training)


def aggregations(options: Options) -> Iterator[Row]:
    """Gives the milliseconds of an aggregation, of a bare mean of all tensors at once, and of sums in float32."""
    torch.set_num_threads(options.threads)
    for name, clients in CASES[:1] if options.quick else CASES:
        states = [network_of(name, 1.0, seed=seed).state_dict() for seed in range(clients)]
        averages = {"ours": _ours, "instead": _mean_of_all, "limit": _sums}
        found = alternate(
            options.rounds, {key: partial(_fastest, average, states) for key, average in averages.items()}
        )
        yield Row(f"federated/aggregate/{name}/{clients}", "ms", **found)
    options.note("federated/aggregate")


def _fastest(average: Callable[[Sequence[State]], object], states: Sequence[State]) -> float:
    times = []
    for _ in range(REPEATS):
        began_at = time.perf_counter()
        average(states)
        times.append(1e3 * (time.perf_counter() - began_at))
    return min(times)


def _ours(states: Sequence[State]) -> State:
    return weighted_mean((state, 1.0 + number) for number, state in enumerate(states))


def _mean_of_all(states: Sequence[State]) -> State:
    return {name: torch.stack([state[name] for state in states]).float().mean(0) for name in states[0]}


def _sums(states: Sequence[State]) -> State:
    sums = {name: value.to(torch.float32, copy=True) for name, value in states[0].items()}
    for state in states[1:]:
        torch._foreach_add_(list(sums.values()), [value.float() for value in state.values()])
    torch._foreach_div_(list(sums.values()), len(states))
    return sums
