"""Every setting of a run: its type, its range, one sentence. YAML and key=value are the same tree."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from aal.config.federated import FederatedSettings
from aal.config.fields import Classes, Count, Group, Name, Path, Positive, listed
from aal.config.people import PeopleSettings
from aal.config.ray import RaySettings
from aal.config.registry import AGGREGATIONS, IMAGE_SETS, LABEL_SOURCES, NETWORKS, SCHEDULES, STRATEGIES, TRAINERS
from aal.config.training_settings import TrainingSettings


def _bound(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9
    if value is None or value == "auto" or is_number:
        return value
    raise PydanticCustomError("bound", "must be auto, a whole number from 0 to 1,000,000,000, or null")


def _whole_targets(value: object) -> object:
    """Lets the name of a network stand for a target, and names each target that has no name after its network."""
    if not isinstance(targets := listed(value), list):
        return targets
    whole = [{"model": one} if isinstance(one, str) else one for one in targets]
    return [{"name": one["model"], **one} if isinstance(one, dict) and "model" in one else one for one in whole]


def _different_names(targets: "list[TargetSettings] | None") -> "list[TargetSettings] | None":
    names = [target.name for target in targets or ()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        text = f"two are called {twice[0]}; give each a name of its own"
        raise PydanticCustomError("same_names", "{text}", {"text": text})
    return targets


DataType = Annotated[Name, BeforeValidator(IMAGE_SETS.canonical)]
StrategyName = Annotated[Name, BeforeValidator(STRATEGIES.canonical)]
ModelName = Annotated[Name, BeforeValidator(NETWORKS.canonical)]
ScheduleName = Annotated[Name, BeforeValidator(SCHEDULES.canonical)]
TrainerName = Annotated[Name, BeforeValidator(TRAINERS.canonical)]
AggregationName = Annotated[Name, BeforeValidator(AGGREGATIONS.canonical)]
LabelSourceName = Annotated[Name, BeforeValidator(LABEL_SOURCES.canonical)]
Factor = Annotated[float, Field(gt=0, le=10**6)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,4})?|(GPU|MIG)-[\w/-]{1,100})$")]
Devices = Annotated[list[Device], Field(min_length=1, max_length=1000), BeforeValidator(listed)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Seconds = Annotated[float, Field(ge=0, le=10**6)]
RelativeStd = Annotated[float, Field(ge=0, le=10)]
Options = Annotated[dict[str, Any], Field(max_length=1000)]
Share = Annotated[float, Field(gt=0, lt=1)]


class AnnotatorSettings(Group):
    """Who answers."""

    source: LabelSourceName = Field(
        "simulated",
        description="simulated; recorded, which answers implies; or one of one's own as package.module:object",
    )
    options: Options = Field({}, description="parameters of the label source")
    number: Annotated[int, Field(ge=0, le=10**6)] = Field(
        10, description="annotators who label at once; 0 where only people label, in a browser"
    )
    seconds_per_label: Seconds = Field(1.0, description="mean time of one label")
    relative_std: RelativeStd = Field(0.3, description="standard deviation of that time, as a share of the mean")
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="share of wrong labels")
    answers: Path | None = Field(
        None,
        description="recorded answers, which source recorded gives again: a CSV of item, annotator, label, seconds, "
        "or JSON of Label Studio",
    )
    answers_per_item: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="different annotators who answer each image; budgets count images, whatever answers they get"
    )
    answers_at_most: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="where no class has more than half of the answers, another annotator is asked, up to so many"
    )
    aggregation: AggregationName = Field(
        "majority", description=f"how answers become a label: {AGGREGATIONS.choices()}"
    )
    cannot_tell: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="annotators who cannot tell what an image is, before nobody else is asked"
    )
    gold_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of known images mixed in as a check; their answers are no labels and not of the budget"
    )
    lease_s: Annotated[float, Field(gt=0, le=10**9)] = Field(
        600.0, description="seconds after which an unanswered query returns to the pool"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_recorded(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("answers") is not None:
            return {"source": "recorded", **given}
        return given


class DeviceSettings(Group):
    """Where the roles compute."""

    servers: Devices = Field(
        ["auto"],
        description="auto, cpu, cuda (GPUs in turn), cuda:i, GPU-... or MIG-..., or a list that servers share in turn",
    )
    workers: Devices = Field(["auto"], description="the same for the processes of workers, from the last GPU back")
    server_threads: Threads | None = Field(
        None, description="CPU threads a server; null: those that train share the free cores, a simulated run has 1"
    )
    worker_threads: Threads | None = Field(
        None,
        description="threads of a worker's process; null: 1, in mode sync the free cores; not for simulated runs",
    )
    worker_processes: Positive | None = Field(
        None, description="processes that the workers share, one at a time in each; null: one each, on GPUs one a GPU"
    )


class TargetSettings(Group):
    """One of several target models; the name of a network alone stands for one without options."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        "", description="in reports; that of its network by default"
    )
    model: ModelName = Field(description="its network")
    options: Options = Field({}, description="parameters of its network")


class CostSettings(Group):
    """What work costs on the virtual clock, in its seconds; `annotators` say what a label costs.

    In a config `costs: measured` and `costs: paper` stand for whole groups.
    """

    per_image_trained: Seconds = Field(0.0008, description="of each image and epoch of a training")
    per_image_scored: Seconds = Field(0.0003, description="of each image of a selection, a validation, a test")
    per_selection: Seconds = Field(0.05, description="of each selection, whatever its images")
    per_model_published: Seconds = Field(0.2, description="of each training, whatever its images")
    relative_std: RelativeStd = Field(
        0.0, description="standard deviation of each of these times, as a share of the mean"
    )
    client_factors: Annotated[list[Factor], Field(min_length=1, max_length=10**6)] | None = Field(
        None, description="in mode federated, how many times as long the work of each client takes, in turn"
    )
    measured: bool = Field(False, description="take these times from a short calibration on this machine first")


class Settings(Group):
    """All settings of a run."""

    LEFT_OPEN = frozenset({"initial_size", "val_size", "query_batch", "server_train_threshold"})

    name: Annotated[str, Field(pattern=r"^[\w][\w.-]*$", max_length=200)] | None = Field(
        None, description="the run's folder under runs/; null takes the config's name"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of everything random in the run")
    mode: ScheduleName = Field(
        "async",
        description="async; sync: the classic loop of one server and one worker that owns the whole pool; federated: "
        "workers are clients, which train on their own labels, and servers average",
    )
    mode_options: Options = Field({}, description="parameters of a schedule of your own")
    trainer: TrainerName = Field("fit", description="what a training job computes")
    trainer_options: Options = Field({}, description="parameters of a trainer of your own")
    engine: Literal["local", "ray", "simulated"] = Field(
        "local",
        description="local: processes of this machine; ray: of the machines of a Ray cluster; simulated: one process "
        "whose clock is virtual",
    )
    ray: RaySettings = Field(RaySettings(), description="the cluster of engine ray")
    compute: Literal["full", "none"] = Field(
        "full", description="none: on the virtual clock, training and scoring are only their costs"
    )
    costs: CostSettings = Field(CostSettings(), description="what work costs on the virtual clock")
    examples: Annotated[int, Field(ge=2, le=10**9)] | None = Field(
        None, description="images of an imagined set, for compute none; null: as many as data_type has"
    )

    data_type: DataType = Field(description=IMAGE_SETS.choices())
    data_options: Options = Field({}, description="parameters of a set of torchvision or of a function of one's own")
    data_dir: Path = Field("data/downloads", description="where the images are, or are downloaded to")
    prepared_dir: Path | None = Field(None, description="where the prepared arrays go; null: to ~/.cache/aal")
    classes: Classes | None = Field(
        None,
        description="of data_type folder: names of the classes; images in folders of other names have no label (null: "
        "each folder is a class)",
    )
    image_size: Annotated[int, Field(ge=8, le=512)] | None = Field(
        None, description="pixels a side that images are resized to; null: 32 for folder, otherwise their own size"
    )
    test_share: Share | None = Field(
        None, description="share of the images kept for testing, where a set has no test images of its own (null: 0.2)"
    )

    server_num: Positive = Field(1, description="servers, which train")
    worker_num: Positive = Field(10, description="workers, which select")
    worker_query_num: Positive = Field(6, description="batches that each worker offers")
    query_batch: Positive = Field(100, description="images a worker offers at a time")
    server_train_threshold: Positive = Field(1000, description="new labels that start a training")
    server_train_num: Positive | None = Field(
        None, description="trainings after the initial one, at the most; null for as many as the threshold gives"
    )
    max_staleness: Annotated[Literal["auto"] | Count | None, BeforeValidator(_bound)] = Field(
        "auto",
        description="auto: select just in time, so that nobody waits for a training and queries are fresh; a number: "
        "rounds that selection may run ahead of the models (1 as published), until the last of server_train_num "
        "trainings; null: no bound",
    )
    withdraw_stale: bool | None = Field(
        None,
        description="whether queries that nobody has drawn go back to their shards when newer ones are there, that a "
        "newer model chose; for max_staleness auto, where null is true",
    )
    federated: FederatedSettings | None = Field(
        None, description="clients, their rounds and how they train, for mode federated"
    )
    query_pool_size: Positive | None = Field(
        None, description="queries that may wait at once; null is two rounds, or two batches a worker if more"
    )
    assignment_type: Literal["RA", "DA"] = Field(
        "RA", description="RA draws one of the three uncertainty strategies for each worker, DA gives all the same"
    )
    query_strategy: StrategyName | None = Field(None, description=f"{STRATEGIES.choices()}; under DA only")
    features: Path | None = Field(
        None,
        description="numbers that stand for the images: an .npy file, or a model file or weights that make it",
    )
    embeddings_from: Literal["model", "features"] = Field("model", description="what strategies get as embeddings")
    count_waiting: bool = Field(
        False, description="whether coreset, typiclust and badge count queries without an answer as chosen already"
    )
    query_strategy_options: Options = Field({}, description="parameters of the strategy")
    split_strategy: Literal["RS", "DS"] = Field(
        "RS", description="shards of the workers: RS at random, DS by k-means on the images shrunk to 8 x 8 pixels"
    )
    initial_size: Count = Field(
        5000, description="labelled images at the start; 0, for max_staleness auto: begin with the first answers"
    )
    initial_strategy: Literal["random", "typiclust", "coreset"] = Field(
        "random", description="how the initial images are chosen; all but random on the features"
    )
    imbalance: Annotated[float, Field(gt=1, le=10**6)] | None = Field(
        None, description="a long-tailed pool: how many times fewer images of the last class than of the first are kept"
    )
    val_size: Count = Field(5000, description="labelled images that choose the epoch; never trained on")

    on_failure: Literal["restart", "stop"] = Field(
        "restart", description="restart a process that dies, or stop the run; either way nothing answered is lost"
    )
    restart_limit: Count = Field(3, description="restarts of each process, and of the hub, before the run stops")
    hung_after_s: Annotated[float, Field(ge=2, le=10**9)] = Field(
        600.0, description="seconds without a heartbeat after which a process counts as dead"
    )

    models: Annotated[list[ModelName], Field(min_length=1, max_length=1000), BeforeValidator(listed)] = Field(
        ["vgg16"],
        description=f"{NETWORKS.choices()}; a list is given to the servers in turn, the initial model is of the first",
    )
    model_options: Options = Field({}, description="parameters of the networks")
    targets: Annotated[
        Annotated[list[TargetSettings], Field(min_length=1, max_length=1000)] | None,
        BeforeValidator(_whole_targets),
        AfterValidator(_different_names),
    ] = Field(
        None,
        description="several target models that one labelled set serves, in the place of models: names of networks, or "
        "{name, model, options} each; each has versions of its own",
    )
    snapshots: Annotated[int, Field(ge=2, le=255)] | None = Field(
        None,
        description="last epochs of each training whose votes on the unlabelled images are kept; null: half of the "
        "epochs for strategies that need them (diam, cal, diam_qp), none for others",
    )
    pretrained: Path | None = Field(
        None, description="weights to start from: a file, or the name of torchvision weights; null starts from scratch"
    )
    freeze: bool = Field(False, description="train only the output layer")
    width: Annotated[float, Field(gt=0, le=4)] = Field(
        1.0, description="factor on the channels of every layer, for networks that have this option"
    )
    recipe: Literal["paper", "modern"] = Field(
        "modern", description="paper or modern: the training settings to start from"
    )
    training: TrainingSettings = Field(description="single training settings that differ from the recipe's")
    eval_precision: Literal["float32", "bf16"] = Field(
        "float32", description="of reported accuracies, whatever training.precision is"
    )
    annotators: AnnotatorSettings = Field(AnnotatorSettings(), description="the simulated annotators")
    people: PeopleSettings = Field(PeopleSettings(), description="who labels in a browser")
    devices: DeviceSettings = Field(DeviceSettings(), description="where the roles compute")
    tensorboard: bool = Field(False, description="also write scalars for TensorBoard (pip install tensorboard)")

    def tree(self) -> dict[str, Any]:
        """Returns what a config of these settings holds; what is left open is null there too."""
        tree = self.model_dump() | dict.fromkeys(self.left_open)
        tree["training"] |= dict.fromkeys(self.training.left_open)
        return tree

    @property
    def budget(self) -> int:
        """Labels to buy."""
        return self.worker_num * self.worker_query_num * self.query_batch

    @property
    def networks(self) -> list[TargetSettings]:
        """The networks that are trained: that of each target, or those that the servers are given in turn."""
        options = self.model_options
        # Not checked again: a name that is wrong is reported as that of `models`.
        return self.targets or [
            TargetSettings.model_construct(name=name, model=name, options=options) for name in self.models
        ]

    @property
    def target_num(self) -> int:
        """Target models; each has its own versions."""
        return len(self.targets or (None,))

    @property
    def votes_kept(self) -> int:
        """Snapshots of each training that vote on the unlabelled images."""
        if self.snapshots is not None:
            return self.snapshots
        return min(255, self.training.epochs // 2) if self.needs_votes else 0

    @property
    def needs_votes(self) -> bool:
        """Whether the strategy is registered as one that takes votes of snapshots."""
        return bool(self.query_strategy and STRATEGIES.facts(self.query_strategy).get("votes"))

    @property
    def round_size(self) -> int:
        """Labels of one round of all the workers."""
        return self.worker_num * self.query_batch
