"""Every setting of a run: its type, its range, one sentence. YAML and key=value are the same tree."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

STRATEGY_NAMES = {  # also those of the published README
    "random": "random",
    "entropy": "entropy",
    "leastconfidence": "least_confidence",
    "margin": "margin",
    "uncertaintyentropy": "entropy",
    "uncertainty": "least_confidence",
    "uncertaintymargin": "margin",
}
DATA_NAMES = {
    "cifar10": "cifar-10",
    "cifar100": "cifar-100",
    "miniimagenet": "mini-imagenet",
    "digits": "digits",
    "folder": "folder",
}
IMAGE_SIDES = {"cifar-10": 32, "cifar-100": 32, "mini-imagenet": 84, "digits": 8}  # pixels; folder has a setting
FOLDER_SIDE = 32
SMALLEST_IMAGES = {"vgg16": 32, "vgg16_bn": 32, "resnet18": 8, "cnn": 8}  # pixels a side that a network can take


def _plain(name: object) -> str:
    return re.sub(r"[-_ ]", "", str(name)).lower()


def data_type_of(name: object) -> object:
    """Returns the data type that a name stands for; what is none, unchanged."""
    return DATA_NAMES.get(_plain(name), name)


def _strategy(name: object) -> object:
    return STRATEGY_NAMES.get(_plain(name), name)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


DataType = Annotated[
    Literal["cifar-10", "cifar-100", "mini-imagenet", "digits", "folder"], BeforeValidator(data_type_of)
]
StrategyName = Annotated[Literal["random", "entropy", "least_confidence", "margin"], BeforeValidator(_strategy)]
ModelName = Literal["vgg16", "vgg16_bn", "resnet18", "cnn"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
Devices = Annotated[list[Device], Field(min_length=1), BeforeValidator(_listed)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Group(BaseModel):
    """A group of settings: strict types, no unknown key, never changed after it was read."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TrainingSettings(Group):
    """How a server learns; `recipe` names a whole group, `training` changes single values of it."""

    optimizer: Literal["adam", "sgd"] = Field(description="adam, or sgd with Nesterov momentum")
    learning_rate: Rate = Field(description="its value, or its peak under one_cycle")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(description="of sgd")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        description="decay * w is added to the gradient of every kernel but the output layer's"
    )
    schedule: Literal["constant", "one_cycle"] = Field(description="of the learning rate, step by step")
    epochs: Positive = Field(description="passes over the labelled images")
    batch_size: Positive = Field(description="images a step of the optimiser")
    shift: Count = Field(description="random crops shifted by up to so many pixels; 0 for none")
    flip: bool = Field(description="random left-right flips")
    normalise: bool = Field(description="subtract the mean and divide by the deviation of each channel")
    precision: Literal["auto", "float32", "bf16"] = Field(
        description="of training; auto is bf16 where the device computes in it"
    )
    channels_last: bool = Field(description="memory layout of the images and kernels")
    compile: bool = Field(
        description="compile the network (on a GPU with CUDA graphs); docs/performance.md tells when it pays"
    )
    validate_after: Count = Field(
        description="epochs before the first validation; the best later epoch is kept (the last, if none is later)"
    )


RECIPES: dict[str, dict[str, Any]] = {
    # The published TF code: Adam, no augmentation, best validation epoch after epoch 25 (facts: CIFAR-10's rates).
    # Its L2 penalty 5e-4 * sum(w^2) has the gradient 1e-3 * w.
    "paper": {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "momentum": 0.0,
        "weight_decay": 1e-3,
        "schedule": "constant",
        "epochs": 100,
        "batch_size": 128,
        "shift": 0,
        "flip": False,
        "normalise": False,
        "precision": "float32",
        "channels_last": False,
        "compile": False,
        "validate_after": 26,
    },
    # Chosen on CIFAR-10 with a VGG-16 of a quarter of the width: 73 % from 5,000 labels, 51 % from 1,000.
    "modern": {
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 2e-3,
        "schedule": "one_cycle",
        "epochs": 20,
        "batch_size": 64,
        "shift": 4,
        "flip": True,
        "normalise": True,
        "precision": "auto",
        "channels_last": True,
        "compile": False,
        "validate_after": 15,
    },
}


class AnnotatorSettings(Group):
    """Who answers: simulated people."""

    number: Positive = Field(10, description="annotators who label at once")
    seconds_per_label: Seconds = Field(1.0, description="mean time of one label")
    spread: Annotated[float, Field(ge=0, le=10)] = Field(
        0.3, description="standard deviation of that time, as a share of the mean"
    )
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="share of wrong labels")
    lease_s: Rate = Field(600.0, description="seconds after which an unanswered query returns to the pool")


class DeviceSettings(Group):
    """Where the roles compute."""

    servers: Devices = Field(["auto"], description="auto, cpu, cuda:i, or a list that the servers share in turn")
    workers: Devices = Field(["auto"], description="the same for the workers")
    server_threads: Positive | None = Field(
        None, description="CPU threads a server; null: those that train share the cores on which nobody selects"
    )
    worker_threads: Positive | None = Field(
        None, description="threads of a worker's process; null: 1, in mode sync all; simulated roles use server_threads"
    )
    worker_processes: Positive | None = Field(
        None, description="processes that the workers share, one at a time in each; null: one each"
    )

    def processes_for(self, workers: int) -> int:
        """Returns how many processes so many workers have."""
        return min(self.worker_processes or workers, workers)


class CostSettings(Group):
    """What work costs on the virtual clock, in its seconds; `annotators` say what a label costs.

    In a config `costs: measured` and `costs: paper` stand for whole groups.
    """

    per_image_trained: Seconds = Field(0.0008, description="of each image and epoch of a training")
    per_image_scored: Seconds = Field(0.0003, description="of each image of a selection, a validation, a test")
    per_selection: Seconds = Field(0.05, description="of each selection, whatever its images")
    per_model_published: Seconds = Field(0.2, description="of each training, whatever its images")
    spread: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="standard deviation of each of these times, as a share of the mean"
    )
    measured: bool = Field(False, description="take these times from a short calibration on this machine first")


class Settings(Group):
    """All settings of a run."""

    name: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] | None = Field(
        None, description="the run's folder under runs/; null takes the config's name"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of everything random in the run")
    mode: Literal["async", "sync"] = Field(
        "async", description="async, or sync: the classic loop of one server and one worker that owns the whole pool"
    )
    engine: Literal["local", "simulated"] = Field(
        "local", description="local: processes of this machine; simulated: one process whose clock is virtual"
    )
    compute: Literal["full", "none"] = Field(
        "full", description="none: on the virtual clock, training and scoring are only their costs"
    )
    costs: CostSettings = Field(CostSettings(), description="what work costs on the virtual clock")
    examples: Annotated[int, Field(ge=2)] | None = Field(
        None, description="images of an imagined set, for compute none; null: as many as data_type has"
    )

    data_type: DataType = Field(description="cifar-10, cifar-100, mini-imagenet, digits or folder")
    data_dir: str = Field("data/downloads", description="where the images are, or are downloaded to")
    prepared_dir: str | None = Field(None, description="where the prepared arrays go; null is beside the images")
    image_size: Annotated[int, Field(ge=8, le=512)] | None = Field(
        None, description="pixels a side; a choice for data_type folder only (null: 32)"
    )
    test_share: Share | None = Field(
        None, description="share of the images kept for testing; for data_type folder and digits (null: 0.2)"
    )

    server_num: Positive = Field(1, description="servers, which train")
    worker_num: Positive = Field(10, description="workers, which select")
    worker_query_num: Positive = Field(6, description="batches that each worker offers")
    query_batch: Positive = Field(100, description="images a worker offers at a time")
    server_train_threshold: Positive = Field(1000, description="new labels that start a training")
    server_train_num: Positive | None = Field(
        None, description="trainings after the initial one, at the most; null for as many as the threshold gives"
    )
    max_staleness: Count | None = Field(
        1, description="rounds that selection may run ahead of the models; null lets the workers run free"
    )
    query_pool_size: Positive | None = Field(
        None, description="queries that may wait at once; null is two rounds, or two batches a worker if more"
    )
    assignment_type: Literal["RA", "DA"] = Field(
        "RA", description="RA draws one of the three uncertainty strategies for each worker, DA gives all the same"
    )
    query_strategy: StrategyName | None = Field(
        None, description="random, entropy, least_confidence or margin; under DA only"
    )
    split_strategy: Literal["RS", "DS"] = Field(
        "RS", description="shards of the workers: RS at random, DS by k-means on the images shrunk to 8 x 8 pixels"
    )
    initial_size: Positive = Field(5000, description="labelled images at the start")
    val_size: Count = Field(5000, description="labelled images that choose the epoch; never trained on")

    on_failure: Literal["restart", "stop"] = Field(
        "restart", description="restart a process that dies, or stop the run; either way nothing answered is lost"
    )
    restart_limit: Count = Field(3, description="restarts of each process, and of the hub, before the run stops")
    hung_after_s: Rate = Field(600.0, description="seconds without a sign of life after which a process counts as dead")

    models: Annotated[list[ModelName], Field(min_length=1), BeforeValidator(_listed)] = Field(
        ["vgg16"], description="vgg16, vgg16_bn, resnet18, cnn; a list is given to the servers in turn"
    )
    width: Annotated[float, Field(gt=0, le=4)] = Field(1.0, description="factor on the channels of every layer")
    recipe: Literal["paper", "modern"] = Field(
        "modern", description="paper or modern: the training settings to start from"
    )
    training: TrainingSettings = Field(description="single training settings that differ from the recipe's")
    annotators: AnnotatorSettings = Field(AnnotatorSettings(), description="the simulated annotators")
    devices: DeviceSettings = Field(DeviceSettings(), description="where the roles compute")

    @property
    def budget(self) -> int:
        """Labels to buy."""
        return self.worker_num * self.worker_query_num * self.query_batch

    @property
    def round_size(self) -> int:
        """Labels of one round of all the workers."""
        return self.worker_num * self.query_batch

    @property
    def pool_bound(self) -> int:
        """Queries that may wait in S."""
        if self.query_pool_size is not None:
            return self.query_pool_size
        if self.mode == "sync":
            return self.budget
        return 2 * max(self.round_size, self.server_train_threshold)


# Virtual seconds that give the paper's figure 4, read off the picture: the asynchronous interval is what a selection
# takes; the synchronous one adds a training, a line in its images that was fitted to the four batch sizes.
PAPER_COSTS: dict[str, dict[str, float]] = {
    "cifar-10": {"per_image_trained": 3.394e-4, "per_selection": 129.0, "per_model_published": 374.0},
    "cifar-100": {"per_image_trained": 1.163e-4, "per_selection": 136.0, "per_model_published": 50.0},
    "mini-imagenet": {"per_image_trained": 2.695e-3, "per_selection": 162.0, "per_model_published": 473.0},
}


def misfit(name: str, side: int) -> str | None:
    """Returns what is wrong with giving a network images of `side` pixels; None when they fit."""
    if side >= SMALLEST_IMAGES[name]:
        return None
    fit = ", ".join(other for other, smallest in SMALLEST_IMAGES.items() if side >= smallest)
    hint = f"; these take them: {fit}" if fit else ""
    return f"{name} needs images of at least {SMALLEST_IMAGES[name]} pixels a side, not {side}{hint}"


def contradictions(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds settings that are right one by one and wrong together; yields the keys concerned and what to tell."""
    if s.assignment_type == "DA" and s.query_strategy is None:
        yield (
            ("query_strategy", "assignment_type"),
            "assignment_type DA needs one: random, entropy, least_confidence or margin",
        )
    if s.assignment_type == "RA" and s.query_strategy is not None:
        yield (
            ("query_strategy", "assignment_type"),
            f"assignment_type RA draws the strategies itself; leave {s.query_strategy} out or use DA",
        )
    sizes = ("worker_num", "worker_query_num", "query_batch")
    if s.server_train_threshold > s.budget:
        yield (
            ("server_train_threshold", *sizes),
            f"{s.server_train_threshold} is more than the budget "
            f"worker_num * worker_query_num * query_batch = {s.budget}",
        )
    if s.query_pool_size is not None and s.query_pool_size < s.query_batch:
        yield (
            ("query_pool_size", "query_batch"),
            f"{s.query_pool_size} cannot hold one batch of {s.query_batch}",
        )
    if s.query_pool_size is not None and s.mode == "sync" and s.query_pool_size < s.server_train_threshold:
        yield (
            ("query_pool_size", "mode", "server_train_threshold"),
            f"{s.query_pool_size} cannot hold a round of mode sync, {s.server_train_threshold}",
        )
    if s.annotators.lease_s <= s.annotators.seconds_per_label:
        yield (
            ("annotators.lease_s", "annotators"),
            f"{s.annotators.lease_s:g} s run out before a label is given, which takes "
            f"{s.annotators.seconds_per_label:g} s in the mean",
        )
    if s.image_size is not None and s.data_type != "folder":
        yield ("image_size", "data_type"), f"is for data_type folder; {s.data_type} has its own size"
    side = IMAGE_SIDES.get(s.data_type) or s.image_size or FOLDER_SIDE
    for name in dict.fromkeys(s.models):
        if problem := misfit(name, side):
            yield ("models", "data_type", "image_size"), problem
    if s.engine == "local":
        if s.compute == "none":
            yield ("compute", "engine"), "none is for engine simulated, whose clock is virtual"
        if s.costs.measured:
            yield ("costs", "engine"), "are for engine simulated, whose clock is virtual"
    elif s.devices.worker_processes is not None:
        yield ("devices.worker_processes", "engine"), "is for engine local; a simulated run is one process"
    if s.examples is not None and s.compute == "full":
        yield ("examples", "compute"), "imagines a set, which only compute none can do"
    if s.costs.measured and s.examples is not None:
        yield ("costs", "examples"), "measured needs images, and examples imagines them"
    if s.test_share is not None and s.data_type not in ("folder", "digits"):
        yield ("test_share", "data_type"), f"is for folder and digits; {s.data_type} has its own test set"
